//! How records lie in memory. A rule changes a [`Record`](crate::record::Record); what is kept of it is a block of bytes and some
//! numbers of what many peers have alike.

mod packed;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use packed::{
    Addresses, Has, Head, Known, MAX_ADDRESS_LEN, MAX_ADDRESSES, Packed, id_bytes,
};
pub(crate) use shared::{Bookmark, Lists, Texts, same_set};
