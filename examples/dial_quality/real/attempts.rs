//! What a transport is given to dial, and when it gives up: attempts at hosts that are silent end when nothing else is
//! waited for.

use std::{
    collections::HashSet,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either, select},
    task::AtomicWaker,
};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        muxing::StreamMuxerBox,
        transport::{self, ListenerId, TransportEvent},
    },
};
use libp2p_peerstore::{Clock, ManualClock};

use crate::trace::bare;

/// An attempt gives up after so long, on a clock of its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a transport has tried in the dial that is under way.
#[derive(Default)]
pub(super) struct Attempts {
    tries: Mutex<Tries>,
    /// Attempts give up by this clock.
    patience: ManualClock,
    /// Whoever drives the swarm, which does not see its attempts.
    pub(super) waker: AtomicWaker,
}

#[derive(Default)]
struct Tries {
    begun: Vec<Multiaddr>,
    under_way: Vec<Multiaddr>,
    silent: HashSet<Multiaddr>,
}

/// An attempt that is under way.
struct Attempt {
    attempts: Arc<Attempts>,
    address: Multiaddr,
}

impl Attempts {
    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect_silence_at(&self, silent: impl Iterator<Item = Multiaddr>) {
        self.tries().silent = silent.collect();
    }

    /// The addresses that were tried since the last look, in the order in which they were.
    pub(super) fn take(&self) -> Vec<Multiaddr> {
        std::mem::take(&mut self.tries().begun)
    }

    /// When all that is waited for is silent, the time of the attempts is over.
    pub(super) fn give_up(&self) {
        let tries = self.tries();
        let silent = |address: &Multiaddr| tries.silent.contains(address);
        let is_over = !tries.under_way.is_empty() && tries.under_way.iter().all(silent);
        drop(tries);
        if is_over {
            self.patience.advance(TIMEOUT);
        }
    }
}

impl Attempt {
    fn begin(attempts: Arc<Attempts>, address: &Multiaddr) -> Self {
        let address = bare(address);
        let mut tries = attempts.tries();
        tries.begun.push(address.clone());
        tries.under_way.push(address.clone());
        drop(tries);
        attempts.waker.wake();
        Self { attempts, address }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut tries = self.attempts.tries();
        let at = tries.under_way.iter().position(|a| *a == self.address);
        at.map(|at| tries.under_way.swap_remove(at));
        drop(tries);
        self.attempts.waker.wake();
    }
}

/// A transport that tells what it tries.
pub(super) struct Witness {
    pub(super) inner: transport::Boxed<(PeerId, StreamMuxerBox)>,
    pub(super) attempts: Arc<Attempts>,
}

impl Transport for Witness {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = <transport::Boxed<Self::Output> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.inner.dial(address.clone(), opts)?;
        let attempts = Arc::clone(&self.attempts);
        // The swarm asks for all dials at once, and begins with one when it polls it.
        let attempt = async move {
            let patience = &attempts.patience;
            let timeout = patience.sleep_until(patience.elapsed() + TIMEOUT);
            let _under_way = Attempt::begin(Arc::clone(&attempts), &address);
            match select(dial, timeout).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        Ok(attempt.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
