//! A value that tests and datastores share, and that either can wait for.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Waiting<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug, Default)]
struct Inner<T> {
    value: T,
    wakers: Vec<Waker>,
}

impl<T> Clone for Waiting<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Waiting<T> {
    pub(super) fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.lock().value)
    }

    /// Changes the value, and wakes whoever waits.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let (result, wakers) = {
            let mut inner = self.0.lock();
            (change(&mut inner.value), std::mem::take(&mut inner.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    pub(super) async fn until(&self, holds: impl Fn(&T) -> bool) {
        poll_fn(|cx| {
            let mut inner = self.0.lock();
            if holds(&inner.value) {
                return Poll::Ready(());
            }
            inner.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(super) fn owners(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}
