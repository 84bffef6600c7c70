//! An executor in the thread of a run: the same bytes do the same, and no run waits for a thread.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, executor, future::BoxFuture};

type Task = BoxFuture<'static, ()>;

/// What was handed to the executor and has not ended. It goes on while somebody waits here, and when it has its turn.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<Task>>>);

impl Tasks {
    /// For [`Config::with_executor`](libp2p_peerstore::Config::with_executor).
    pub fn executor(&self) -> impl Fn(Task) + Send + Sync + 'static {
        let tasks = self.0.clone();
        move |task| {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.push(task);
        }
    }

    /// Waits for the future, and lets the tasks go on meanwhile.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        executor::block_on(poll_fn(|cx| {
            // Once before, for what it is woken by, and once after, for what it asks for.
            _ = self.poll(cx);
            let outcome = future.as_mut().poll(cx);
            _ = self.poll(cx);
            outcome
        }))
    }

    /// Lets the tasks go on as far as they can.
    pub fn turn(&self) {
        _ = self.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Waits for all tasks to end.
    pub fn finish(&self) {
        executor::block_on(poll_fn(|cx| self.poll(cx)));
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain_mut(|task| task.poll_unpin(cx).is_pending());
        if tasks.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
