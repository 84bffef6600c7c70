//! The locks of the store: those of `parking_lot`, or with `--cfg shuttle` those of the model checker `shuttle`, which runs
//! `tests/shuttle.rs` in every order that it can think of.

use std::time::Duration;

#[cfg(not(shuttle))]
use parking_lot::Condvar;
#[cfg(not(shuttle))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(shuttle))]
pub(crate) use std::thread_local;

#[cfg(shuttle)]
use checked::Condvar;
#[cfg(shuttle)]
pub(crate) use checked::Mutex;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;

/// Something that happens once, and that threads wait for.
pub(crate) struct Once {
    happened: Mutex<bool>,
    condvar: Condvar,
}

impl Once {
    pub(crate) fn new(happened: bool) -> Self {
        Self {
            happened: Mutex::new(happened),
            condvar: Condvar::new(),
        }
    }

    pub(crate) fn happens(&self) {
        *self.happened.lock() = true;
        self.condvar.notify_all();
    }

    /// Waits until it has happened, but no longer than `most`.
    pub(crate) fn wait_for(&self, most: Duration) {
        let mut happened = self.happened.lock();
        self.condvar
            .wait_while_for(&mut happened, |happened| !*happened, most);
    }
}

/// `shuttle`'s locks, with as much of the manners of `parking_lot` as is used here.
#[cfg(shuttle)]
mod checked {
    use std::{
        fmt,
        ops::{Deref, DerefMut},
        sync::PoisonError,
        time::Duration,
    };

    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// `None` only while a condition variable has it.
    pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            let guard = self.0.lock();
            MutexGuard(Some(guard.unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Mutex").finish_non_exhaustive()
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_deref().expect("no condition variable has it")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_deref_mut().expect("no condition variable has it")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        /// Time does not pass here: whoever waits in vain is found to be in a deadlock.
        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            condition: impl FnMut(&mut T) -> bool,
            _: Duration,
        ) {
            let waiting = guard.0.take().expect("no condition variable has it");
            let waited = self.0.wait_while(waiting, condition);
            guard.0 = Some(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}
