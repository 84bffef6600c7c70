//! The behaviour: what the swarm tells goes into the store, what the store tells goes to the swarm.

use std::{
    fmt, io,
    num::NonZeroUsize,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use libp2p_core::{
    ConnectedPoint, Endpoint, Multiaddr,
    transport::{PortUse, TransportError},
};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    AddressChange, ConnectionClosed, ConnectionDenied, ConnectionId, DialError, DialFailure,
    FromSwarm, NetworkBehaviour, NewExternalAddrOfPeer, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, dial_opts::DialOpts,
};

use crate::{
    address::{Sources, bare, without_given},
    dial_error::{self, Whose},
    error::BehaviourError,
    event::{Cause, Event, Subscription},
    handler::Handler,
    inner::Inner,
    links::is_dialled,
    metrics::Offered,
    network::Scope,
    record::{Delta, Outcome, Record, Rules},
    redial::{Feelers, Redial},
    refusal::Refused,
    state::By,
    store::PeerStore,
};

/// Records that one poll looks at for what has expired.
const COLLECTED_PER_POLL: usize = 64;

/// A [`NetworkBehaviour`] that feeds a [`PeerStore`] from its swarm, offers the store's addresses at every dial by
/// peer id, and yields the store's events.
///
/// It speaks no protocol of its own and keeps no connection alive. Its place among the other behaviours matters in one
/// point only: what an [`Observed`](crate::Observed) one before it tells of a peer by way of a dial is weighed for that
/// dial, and what one behind it tells only fills up what is not offered yet. In each place they offer together no more
/// than [`Config::max_dial_addresses`](crate::Config::max_dial_addresses).
///
/// What each swarm event does to the store is listed in the [crate documentation](crate).
pub struct PeerStoreBehaviour {
    store: PeerStore,
    /// `None` when [`Config::swarm_events`](crate::Config::swarm_events) is off.
    events: Option<Subscription>,
    /// Set to when something expires next, in the clock's elapsed time.
    alarm: Option<Alarm>,
    redial: Option<Redial>,
    feelers: Option<Feelers>,
    feeler_alarm: Option<Alarm>,
    /// What was offered for the dials that are under way.
    offered: Offered,
}

/// A moment in the clock's elapsed time, and the wait for it.
type Alarm = (Duration, BoxFuture<'static, ()>);

impl PeerStoreBehaviour {
    /// A behaviour for one swarm.
    ///
    /// # Errors
    ///
    /// [`BehaviourError::AlreadyAttached`] when the store has a live behaviour already.
    pub fn new(store: PeerStore) -> Result<Self, BehaviourError> {
        if !store.inner().attach() {
            return Err(BehaviourError::AlreadyAttached);
        }
        let events = store
            .inner()
            .config()
            .swarm_events()
            .then(|| store.subscribe());
        Ok(Self {
            store,
            events,
            alarm: None,
            redial: None,
            feelers: None,
            feeler_alarm: None,
            offered: Offered::default(),
        })
    }

    /// Dials remembered peers at start, `parallel` at a time, until this node has so many `connections` or nobody is
    /// left to try. They are chosen as by [`PeerStore::bootstrap_peers`], three for each connection that is wanted.
    /// Off by default.
    #[must_use]
    pub fn with_redial(mut self, connections: NonZeroUsize, parallel: NonZeroUsize) -> Self {
        let wanted = connections.get().saturating_mul(3);
        let peers = self.store.bootstrap_peers(wanted);
        tracing::info!(peers = peers.len(), "will dial remembered peers");
        self.redial = Some(Redial::new(connections, parallel, peers));
        self
    }

    /// Dials an unproven address each `interval`, so that the store knows more good ones than the application
    /// happens to need. The address is chosen by group first, then by peer, at random; one IP address is tried once in
    /// ten minutes at most, one /24 (IPv6: /48) once in a minute; names and relays are not. Off by default.
    #[must_use]
    pub fn with_feelers(mut self, interval: Duration) -> Self {
        let now = self.store.inner().clock().elapsed();
        self.feelers = Some(Feelers::new(interval, now));
        self
    }

    /// The store that this behaviour feeds.
    pub fn store(&self) -> &PeerStore {
        &self.store
    }

    fn edit(
        &self,
        peer: PeerId,
        cause: Cause,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) {
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit(peer, By::Swarm, cause, now, rule)
        });
    }

    fn connection_established(&self, event: ConnectionEstablished<'_>) {
        let peer = event.peer_id;
        let scope = Scope::of_connection(event.endpoint);
        let inner = self.store.inner();
        inner.with(|state, now| {
            // First who is connected, so that a peer that becomes known by this is known as connected.
            state.connection_opened(peer, event.endpoint, now);
            if event.endpoint.is_dialer() {
                state.stacks.dialled(event.endpoint.get_remote_address());
            }
            for address in event.failed_addresses {
                if !state.stacks.are_known_of(address) {
                    // Why it failed is not told: there may be no transport for it.
                    state.dial_said_nothing(&peer, address, now);
                    continue;
                }
                // In the scope of the one that succeeded the network works; elsewhere it is to be shown.
                if Scope::of(address) == scope {
                    state.dialled(peer, address, Outcome::Failure, now);
                } else {
                    state.dial_failed(peer, address, now);
                }
            }
            state.scope_works(scope, now);
        });
        match event.endpoint {
            ConnectedPoint::Dialer {
                address,
                role_override: Endpoint::Dialer,
                ..
            } => {
                inner.write(peer, |state, now| state.dial_succeeded(peer, address, now));
            }
            // A hole-punched connection: its address is a mapping of the remote NAT, for us alone.
            ConnectedPoint::Dialer { address, .. } => self.seen_inbound(peer, address),
            ConnectedPoint::Listener { send_back_addr, .. } => {
                self.seen_inbound(peer, send_back_addr);
            }
        }
    }

    fn connection_closed(&self, event: ConnectionClosed<'_>) {
        let address = event.endpoint.get_remote_address();
        let dialled = is_dialled(event.endpoint);
        self.store
            .inner()
            .with(|state, now| state.connection_closed(event.peer_id, address, dialled, now));
    }

    fn address_change(&self, event: AddressChange<'_>) {
        let old = event.old.get_remote_address();
        let new = event.new.get_remote_address();
        self.store
            .inner()
            .with(|state, now| state.connection_moved(event.peer_id, old, new, now));
        match event.new {
            ConnectedPoint::Dialer {
                address,
                role_override: Endpoint::Dialer,
                ..
            } => {
                // The peer moved there by itself: nobody has dialled it.
                self.heard_of(event.peer_id, Cause::Dial, Sources::DISCOVERY, address);
            }
            ConnectedPoint::Dialer { address, .. } => self.seen_inbound(event.peer_id, address),
            ConnectedPoint::Listener { send_back_addr, .. } => {
                self.seen_inbound(event.peer_id, send_back_addr);
            }
        }
    }

    fn seen_inbound(&self, peer: PeerId, address: &Multiaddr) {
        let told = std::slice::from_ref(address);
        let (admitted, filtered) = self.store.inner().config().filtered(&peer, told);
        self.edit(peer, Cause::Inbound, |record, rules, delta| {
            delta.refused.add(Refused::Filtered, filtered);
            if let [address] = &*admitted {
                record.seen_inbound(address, rules, delta);
            }
            record.hold_address(address, rules);
        });
    }

    fn heard_of(&self, peer: PeerId, cause: Cause, source: Sources, address: &Multiaddr) {
        let told = std::slice::from_ref(address);
        let (admitted, filtered) = self.store.inner().config().filtered(&peer, told);
        self.store.inner().write(peer, |state, now| {
            state.hear_addresses(peer, &admitted, filtered, (source, cause), now)
        });
    }

    fn dial_failure(&self, event: DialFailure<'_>) {
        let Some(peer) = event.peer_id else {
            return;
        };
        match event.error {
            DialError::Transport(attempts) => {
                for (address, error) in attempts {
                    self.attempt_failed(peer, address, error);
                }
            }
            DialError::WrongPeerId { obtained, address } => {
                self.wrong_peer(peer, *obtained, address);
            }
            // `LocalPeerId` comes from dials without an expected peer: it says nothing about any other peer.
            // The others say that nothing was dialled, or was broken off by this node.
            DialError::LocalPeerId { .. }
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => {}
        }
    }

    fn attempt_failed(&self, peer: PeerId, address: &Multiaddr, error: &TransportError<io::Error>) {
        let error = match error {
            TransportError::MultiaddrNotSupported(_) => {
                self.edit_known(peer, |record, rules, delta| {
                    record.dial_unsupported(address, rules, delta);
                });
                return;
            }
            TransportError::Other(error) => error,
        };
        let whose = dial_error::whose(error);
        self.store.inner().with(|state, now| {
            state.stacks.dialled(address);
            match whose {
                Whose::Ours => state.dial_said_nothing(&peer, address, now),
                // Somebody at that address said so: it says all about the address, and of the network that it works.
                Whose::Theirs => {
                    state.dialled(peer, address, Outcome::Failure, now);
                    state.network_works(address, now);
                }
                Whose::Unknown => state.dial_failed(peer, address, now),
            }
        });
    }

    /// Another peer answered than was expected. It told where it is, and nothing was proven, as the connection did
    /// not come about: whoever gives itself a new key for each handshake is not to become many proven peers.
    fn wrong_peer(&self, expected: PeerId, obtained: PeerId, address: &Multiaddr) {
        let inner = self.store.inner();
        let local = self.store.local_peer_id();
        let max_len = inner.config().address_len_limit();
        let bare = bare(&expected, address, max_len).ok().flatten();
        inner.write(expected, |state, now| {
            state.stacks.dialled(address);
            state.network_works(address, now);
            match &bare {
                Some(own) if obtained == local => state.is_own(expected, own.clone(), now),
                _ => state.dialled(expected, address, Outcome::WrongPeer, now),
            }
        });
        if let Some(told) = bare.filter(|_| obtained != local) {
            inner.write(obtained, |state, now| {
                let (by, cause) = (By::Swarm, Cause::Dial);
                let told = std::slice::from_ref(&told);
                state.edit_with_room(obtained, by, cause, now, |record, rules, delta| {
                    let dialled_there = true;
                    let rules = Rules {
                        dialled_there,
                        ..rules
                    };
                    record.add_addresses(told, Sources::IDENTIFY, rules, delta);
                })
            });
        }
    }

    fn new_external_addr_of_peer(&self, event: NewExternalAddrOfPeer<'_>) {
        let (peer, address) = (event.peer_id, event.addr);
        if self.store.inner().is_echo(&peer, address) {
            return;
        }
        self.heard_of(peer, Cause::Discovery, Sources::DISCOVERY, address);
    }

    /// A dial that this behaviour starts by itself, if one is due.
    fn dial(&mut self, cx: &mut Context<'_>) -> Option<DialOpts> {
        let inner = self.store.inner();
        if let Some(redial) = &mut self.redial {
            let connected = inner.read(|state, _| state.connected_peers().count());
            if let Some(opts) = redial.next(connected) {
                return Some(opts);
            }
            if redial.is_done(connected) {
                self.redial = None;
            }
        }
        let feelers = self.feelers.as_mut()?;
        loop {
            let due = feelers.due();
            if !poll_alarm(&mut self.feeler_alarm, due, inner, cx) {
                return None;
            }
            let now = inner.clock().elapsed();
            if let Some(opts) = feelers.pick(inner.feeler_candidates(), now) {
                return Some(opts);
            }
        }
    }

    fn dial_ended(&mut self, connection: ConnectionId) {
        self.store.inner().dial_ended(connection);
        if let Some(redial) = &mut self.redial {
            redial.ended(connection);
        }
    }

    /// Collects what has expired, a little at each poll, and sets the alarm for what expires next.
    fn collect(&mut self, cx: &mut Context<'_>) {
        let inner = self.store.inner();
        let (more, next) = inner.with(|state, now| {
            let more = state.collect(COLLECTED_PER_POLL, now);
            (more, state.next_expiry())
        });
        if more {
            cx.waker().wake_by_ref();
            return;
        }
        // A fixed moment, or each poll would set the alarm anew.
        if let Some(next) = next.map(|at| inner.elapsed_at(at))
            && poll_alarm(&mut self.alarm, next, inner, cx)
        {
            cx.waker().wake_by_ref();
        }
    }

    fn edit_known(&self, peer: PeerId, rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta)) {
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit_known(peer, By::Swarm, Cause::Dial, now, rule)
        });
    }
}

/// Whether the moment `at` has come; else the task is woken then.
fn poll_alarm(
    alarm: &mut Option<Alarm>,
    at: Duration,
    store: &Inner,
    cx: &mut Context<'_>,
) -> bool {
    if alarm.as_ref().is_none_or(|(set, _)| *set != at) {
        *alarm = None;
    }
    let (_, sleep) = alarm.get_or_insert_with(|| (at, store.clock().sleep_until(at)));
    let has_come = sleep.poll_unpin(cx).is_ready();
    if has_come {
        *alarm = None;
    }
    has_come
}

impl fmt::Debug for PeerStoreBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerStoreBehaviour")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Drop for PeerStoreBehaviour {
    fn drop(&mut self) {
        self.store.inner().detach();
    }
}

impl NetworkBehaviour for PeerStoreBehaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        maybe_peer: Option<PeerId>,
        addresses: &[Multiaddr],
        effective_role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let offers = match maybe_peer {
            Some(peer) => {
                let offers = self.store.inner().offers_for(connection, &peer);
                let offers = offers.unwrap_or_default();
                let max_len = self.store.inner().config().address_len_limit();
                without_given(&peer, offers, addresses, max_len)
            }
            None => Vec::new(),
        };
        self.offered.begun(connection, effective_role, &offers);
        Ok(offers)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.dial_ended(event.connection_id);
                let meter = self.store.inner().meter();
                self.offered.established(&event, meter);
                self.connection_established(event);
            }
            FromSwarm::ConnectionClosed(event) => self.connection_closed(event),
            FromSwarm::AddressChange(event) => self.address_change(event),
            FromSwarm::DialFailure(event) => {
                self.dial_ended(event.connection_id);
                let meter = self.store.inner().meter();
                self.offered.failed(&event, meter);
                self.dial_failure(event);
            }
            FromSwarm::NewExternalAddrOfPeer(event) => self.new_external_addr_of_peer(event),
            FromSwarm::NewListenAddr(_)
            | FromSwarm::ExpiredListenAddr(_)
            | FromSwarm::ExternalAddrConfirmed(_)
            | FromSwarm::ExternalAddrExpired(_) => {
                self.store
                    .inner()
                    .with(|state, _| state.own_addresses_changed());
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        protocols: THandlerOutEvent<Self>,
    ) {
        self.store
            .inner()
            .with(|state, now| state.heard_from(&peer, now));
        self.edit(peer, Cause::Identify, |record, rules, delta| {
            record.learn_protocols(&protocols, rules, delta);
        });
    }

    #[tracing::instrument(level = "trace", name = "NetworkBehaviour::poll", skip(self, cx))]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.collect(cx);
        if let Some(opts) = self.dial(cx) {
            return Poll::Ready(ToSwarm::Dial { opts });
        }
        let Some(events) = &mut self.events else {
            return Poll::Pending;
        };
        match Pin::new(events).poll_next(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            // After shutdown nothing comes any more.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
