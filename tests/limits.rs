//! Everything is bounded: what goes over a limit is refused and counted, or takes the place of what is worth
//! less.

#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod support;

#[path = "limits/addresses.rs"]
mod addresses;
#[path = "limits/input.rs"]
mod input;
#[path = "limits/peers.rs"]
mod peers;
#[path = "limits/values.rs"]
mod values;
