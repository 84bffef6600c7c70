//! Learning from other behaviours: a wrapper that sees what they tell, and a sink that it fills.

#[cfg(feature = "identify")]
mod identify;
#[cfg(feature = "kad")]
mod kad;
mod learned;
#[cfg(feature = "mdns")]
mod mdns;
#[cfg(feature = "ping")]
mod ping;
#[cfg(feature = "rendezvous")]
mod rendezvous;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use libp2p_core::{Endpoint, Multiaddr, transport::PortUse};
use libp2p_identity::PeerId;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};

pub use learned::{Learned, Teach};

use crate::{
    address::{Source, bare, with_peer, without_given},
    store::PeerStore,
};

/// What an event says about peers, told to the sink.
type TeachFn<E> = dyn FnMut(&E, &mut Learned<'_>) + Send;

/// A behaviour from which the store learns, by [`PeerStore::observe`] or [`PeerStore::observe_with`].
///
/// Its events reach the application unchanged, and its methods are there through `Deref`. One thing changes: of
/// the addresses that the inner behaviour adds to a dial by peer id, only those are passed on that the store
/// would offer itself. Identify and Kademlia otherwise go round every limit of the store, and identify's cache
/// offers what a push has taken back. A peer that the store does not know is dialled as the inner behaviour
/// likes, but for what the store refuses whoever it is told of: what the
/// [filter](crate::Config::with_address_filter) does not admit, this node's own addresses, those of its local networks,
/// and an IP address at which [`Config::max_claims_per_ip`](crate::Config::max_claims_per_ip) peers are said to be
/// already. [`Observed::pass_dial_addresses`] or [`Config::gate_dials`](crate::Config::gate_dials) switch that
/// off. Addresses that the application put into `DialOpts` are never touched.
///
/// It works without a [`PeerStoreBehaviour`](crate::PeerStoreBehaviour) too, for what events say.
pub struct Observed<B: NetworkBehaviour> {
    inner: B,
    store: PeerStore,
    teach: Box<TeachFn<B::ToSwarm>>,
    source: Source,
    /// `NewExternalAddrOfPeer` only repeats what an event has just said.
    echoes: bool,
    pass_dial_addresses: bool,
}

impl<B: NetworkBehaviour> Observed<B> {
    pub(crate) fn new(inner: B, store: PeerStore) -> Self
    where
        B::ToSwarm: Teach,
    {
        let mut observed = Self::with(inner, store, |event: &B::ToSwarm, learned| {
            event.teach(learned)
        });
        observed.source = B::ToSwarm::SOURCE;
        observed.echoes = B::ToSwarm::ECHOES;
        observed
    }

    pub(crate) fn with(
        inner: B,
        store: PeerStore,
        teach: impl FnMut(&B::ToSwarm, &mut Learned<'_>) + Send + 'static,
    ) -> Self {
        let pass_dial_addresses = !store.inner().config().gate_dials();
        Self {
            inner,
            store,
            teach: Box::new(teach),
            source: Source::Discovery,
            echoes: false,
            pass_dial_addresses,
        }
    }

    /// Says under which source the store keeps what this behaviour tells. By default it is that of the event
    /// type, or [`Source::Discovery`] with [`PeerStore::observe_with`].
    #[must_use]
    pub fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Whether every address that the inner behaviour adds to a dial is passed on to the swarm. By default
    /// only those are that the store would offer itself, see [`Config::gate_dials`](crate::Config::gate_dials).
    #[must_use]
    pub fn pass_dial_addresses(mut self, pass: bool) -> Self {
        self.pass_dial_addresses = pass;
        self
    }

    /// Takes the behaviour out again.
    pub fn into_inner(self) -> B {
        self.inner
    }

    fn learned(&self) -> Learned<'_> {
        Learned::new(&self.store, self.source)
    }

    /// Of what the inner behaviour adds to a dial, what the store would offer too, in the form in which it does.
    /// `admitted` is what the user's filter leaves of it.
    fn gate(
        &self,
        (dial, peer): (ConnectionId, PeerId),
        told: &[Multiaddr],
        admitted: &[Multiaddr],
        given: &[Multiaddr],
    ) -> Vec<Multiaddr> {
        let inner = self.store.inner();
        let max_len = inner.config().address_len_limit();
        let Some(offers) = inner.offers_for(dial, &peer) else {
            // No opinion of the peer, but of places: what was refused a moment ago is not dialled all the same.
            let mut passed = without_given(&peer, admitted.to_vec(), given, max_len);
            inner.read(|state, now| {
                let rules = state.rules(now);
                passed.retain(|address| {
                    let bare = bare(&peer, address, max_len).ok().flatten();
                    bare.is_some_and(|bare| rules.passes_unknown(&bare))
                });
            });
            return passed;
        };
        let told = without_given(&peer, told.to_vec(), given, max_len);
        let mut passed: Vec<Multiaddr> = Vec::with_capacity(told.len().min(offers.len()));
        for address in told {
            let Ok(Some(address)) = bare(&peer, &address, max_len) else {
                continue;
            };
            let address = with_peer(address, peer);
            if offers.contains(&address) && !passed.contains(&address) {
                passed.push(address);
            }
        }
        passed
    }
}

impl<B: NetworkBehaviour> Deref for Observed<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B: NetworkBehaviour> DerefMut for Observed<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour + fmt::Debug> fmt::Debug for Observed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("inner", &self.inner)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Observed<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection_id, local_addr, remote_addr)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(
            connection_id,
            peer,
            local_addr,
            remote_addr,
        )
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        maybe_peer: Option<PeerId>,
        addresses: &[Multiaddr],
        effective_role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let told = self.inner.handle_pending_outbound_connection(
            connection_id,
            maybe_peer,
            addresses,
            effective_role,
        )?;
        let Some(peer) = maybe_peer else {
            return Ok(told);
        };
        // For a peer that Kademlia has only heard of, this is the one place where its addresses show. From a cache of
        // what the peer itself said they are hearsay all the same: it may be out of date.
        if told.is_empty() {
            return Ok(told);
        }
        let (admitted, filtered) = self.store.inner().config().filtered(&peer, &told);
        let mut learned = Learned::new(&self.store, self.source.for_dials());
        learned.add_admitted(peer, &admitted, filtered);
        if self.pass_dial_addresses {
            return Ok(told);
        }
        Ok(self.gate((connection_id, peer), &told, &admitted, addresses))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(
            connection_id,
            peer,
            addr,
            role_override,
            port_use,
        )
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(event) => {
                self.store.inner().dial_ended(event.connection_id);
            }
            FromSwarm::DialFailure(event) => self.store.inner().dial_ended(event.connection_id),
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer_id, connection_id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = std::task::ready!(self.inner.poll(cx));
        match &event {
            ToSwarm::GenerateEvent(event) => {
                (self.teach)(event, &mut Learned::new(&self.store, self.source));
            }
            ToSwarm::NewExternalAddrOfPeer { peer_id, address } => {
                if !self.echoes {
                    self.learned().add(*peer_id, std::slice::from_ref(address));
                }
                // The swarm tells all behaviours next, before it polls anything: the store's own is not to take
                // it for news from somebody else.
                self.store.inner().announce(peer_id, address);
            }
            _ => {}
        }
        Poll::Ready(event)
    }
}
