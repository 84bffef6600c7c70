//! When the store writes, what it writes, and what becomes of it when the datastore fails, hangs or goes.
//!
//! Most of it runs on an executor that the test drives by hand, so that "nothing is written" is a fact and not
//! the hope that one has waited long enough.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[path = "support/datastore.rs"]
mod support;

#[path = "persistence/alarm.rs"]
mod alarm;
#[path = "persistence/content.rs"]
mod content;
#[path = "persistence/executor.rs"]
mod executor;
#[path = "persistence/failure.rs"]
mod failure;
#[path = "persistence/moments.rs"]
mod moments;
#[path = "persistence/one_state.rs"]
mod one_state;
#[path = "persistence/panics.rs"]
mod panics;
#[path = "persistence/removal.rs"]
mod removal;
#[path = "persistence/schedule.rs"]
mod schedule;
#[path = "persistence/shutdown.rs"]
mod shutdown;
#[path = "persistence/swarm.rs"]
mod swarm;
