//! The command line, as it is called: the real binary on real stores.

#![allow(clippy::unwrap_used)]

#[path = "support/api.rs"]
mod api;
#[path = "cli/changing.rs"]
mod changing;
#[path = "cli/checking.rs"]
mod checking;
#[path = "cli/documents.rs"]
mod documents;
#[path = "cli/exporting.rs"]
mod exporting;
#[path = "cli/importing.rs"]
mod importing;
#[path = "cli/listing.rs"]
mod listing;
#[path = "cli/redis.rs"]
mod redis_server_of_its_own;
#[path = "cli/refusing.rs"]
mod refusing;
#[path = "support/redis_server.rs"]
#[allow(dead_code)]
mod servers;
#[path = "cli/showing.rs"]
mod showing;
#[path = "support/skip.rs"]
mod skip;
#[path = "cli/support.rs"]
mod support;
