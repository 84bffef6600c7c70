//! An executor and a clock in the test's hand.

use std::{fmt, future::Future, time::Duration};

use futures::{
    FutureExt, StreamExt,
    channel::mpsc,
    executor::LocalPool,
    future::{BoxFuture, RemoteHandle},
    task::LocalSpawnExt,
};

use crate::{clock::ManualClock, config::Config};

/// Runs stores on the test's own thread, on a clock that stands still: nothing happens but in the calls of this.
///
/// Datastores that wait for a runtime or for real time do not get on with it.
pub struct ManualExecutor {
    pool: LocalPool,
    engines: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    queue: Option<mpsc::UnboundedReceiver<BoxFuture<'static, ()>>>,
    clock: ManualClock,
}

impl Default for ManualExecutor {
    fn default() -> Self {
        let (engines, queue) = mpsc::unbounded();
        Self {
            pool: LocalPool::new(),
            engines,
            queue: Some(queue),
            clock: ManualClock::default(),
        }
    }
}

impl fmt::Debug for ManualExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ManualExecutor");
        text.field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl ManualExecutor {
    /// The defaults, on this executor and its clock. Dropping the last handle of a store does not wait, as it would
    /// wait for its own thread. Stores made with it run as long as this executor is driven.
    pub fn config(&self) -> Config {
        let engines = self.engines.clone();
        Config::default()
            .with_clock(self.clock.clone())
            .with_drop_deadline(Duration::ZERO)
            // When the executor is gone, so is the engine: `PeerStore::open` says so.
            .with_executor(move |engine| drop(engines.unbounded_send(engine)))
    }

    /// The clock of [`ManualExecutor::config`].
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Runs a future to its end, and the stores with it.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        self.begin();
        self.pool.run_until(future)
    }

    /// Runs until everybody waits for something.
    pub fn settle(&mut self) {
        self.begin();
        self.pool.run_until_stalled();
    }

    /// Lets time pass, and everybody act on it.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.settle();
    }

    /// Starts something that goes on in the background of the other calls, until the handle is dropped.
    pub fn start<F>(&mut self, future: F) -> RemoteHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (remote, handle) = future.remote_handle();
        // Fails only while the pool is being dropped.
        let _ = self.pool.spawner().spawn_local(remote);
        self.settle();
        handle
    }

    /// The result of something that was started, if it is there by now.
    pub fn result<T: 'static>(&mut self, handle: &mut RemoteHandle<T>) -> Option<T> {
        self.settle();
        handle.now_or_never()
    }

    /// Takes the engines of stores, once.
    fn begin(&mut self) {
        if let Some(queue) = self.queue.take() {
            let run = queue.for_each_concurrent(None, |engine| engine);
            // Fails only while the pool is being dropped.
            let _ = self.pool.spawner().spawn_local(run);
        }
    }
}
