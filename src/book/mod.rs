//! The books: thin views on one record per peer. A book locks, acts, and releases.

mod address;
mod key;
mod metadata;
mod protocol;
mod tag;

use libp2p_identity::PeerId;

use crate::{
    event::Cause,
    inner::Inner,
    record::{Delta, Record},
    refusal::Refused,
    state::{By, Now, State, Written},
};

pub use address::AddressBook;
pub use key::KeyBook;
pub use metadata::MetadataBook;
pub use protocol::ProtocolBook;
pub use tag::{MAX_TAG_VALUE, Tag, TagBook};

/// Empties one book of a peer, and forgets the peer if that was all.
fn delete(store: &Inner, peer: PeerId, clear: impl FnOnce(&mut Record, &mut Delta)) -> bool {
    let written = store.write(peer, |state, now| {
        let written = state.edit_known(peer, By::User, Cause::User, now, |record, _, delta| {
            clear(record, delta);
        });
        if written.changed {
            state.remove_if_empty(&peer, Cause::User, now);
        }
        written
    });
    written.changed
}

/// A write of a single item: what was refused is an error.
fn single(
    store: &Inner,
    peer: PeerId,
    act: impl FnOnce(&mut State, Now) -> Written,
) -> Result<bool, Refused> {
    let mut reason = None;
    let written = store.write(peer, |state, now| {
        let written = act(state, now);
        reason = written.refused.iter().next().map(|(reason, _)| reason);
        written
    });
    match reason {
        Some(reason) => Err(reason),
        None => Ok(written.changed),
    }
}
