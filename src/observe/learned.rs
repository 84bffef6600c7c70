//! The sink that is told what an event says about peers.

use std::{borrow::Cow, time::Duration};

use libp2p_core::{Multiaddr, SignedEnvelope};
use libp2p_identity::{PeerId, PublicKey};
use libp2p_swarm::StreamProtocol;

#[cfg(feature = "identify")]
use crate::{AGENT_VERSION, PROTOCOL_VERSION, state::Identified};
use crate::{
    address::{Source, Sources},
    event::Cause,
    record::{Delta, Record, Rules},
    refusal::Refused,
    signed::{AcceptedRecord, RecordError},
    state::{By, Changed},
    store::PeerStore,
};

/// An event type that says something about peers, so that [`PeerStore::observe`] can wrap its behaviour.
///
/// It is implemented for the events of identify, Kademlia, mDNS, ping and rendezvous clients (each with its cargo
/// feature). Implement it for the events of your own discovery protocol; for an event type of another crate use
/// [`PeerStore::observe_with`].
///
/// ```
/// use libp2p_core::Multiaddr;
/// use libp2p_identity::PeerId;
/// use libp2p_peerstore::{Config, Learned, PeerStore, Teach};
///
/// /// What my discovery protocol yields.
/// struct Found(PeerId, Vec<Multiaddr>);
///
/// impl Teach for Found {
///     fn teach(&self, learned: &mut Learned<'_>) {
///         learned.add(self.0, &self.1);
///     }
/// }
///
/// let store = PeerStore::in_memory(PeerId::random(), Config::default());
/// let peer = PeerId::random();
/// store.learn(&Found(peer, vec!["/ip4/192.0.2.1/tcp/4001".parse()?]));
/// assert!(store.contains(&peer));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Teach {
    /// Under which source the store keeps what is told.
    const SOURCE: Source = Source::Discovery;

    /// Whether the behaviour's `NewExternalAddrOfPeer` only repeat what its events say, and are ignored. When
    /// they are not, they are added.
    const ECHOES: bool = false;

    /// Tells the sink what the event says about peers.
    fn teach(&self, learned: &mut Learned<'_>);
}

/// A sink for what is learnt about peers: the way into the store for everything that runs in the swarm.
///
/// What it is told counts as learnt, not as the application's own word: it is ignored after
/// [`PeerStore::shutdown`], and for peers under [`PeerStore::delete_for`]. Each call returns what it did.
#[derive(Debug)]
pub struct Learned<'a> {
    store: &'a PeerStore,
    source: Source,
}

impl<'a> Learned<'a> {
    pub(crate) fn new(store: &'a PeerStore, source: Source) -> Self {
        Self { store, source }
    }

    /// Somebody told of addresses of a peer: they are added.
    pub fn add(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> Changed {
        let (admitted, filtered) = self.filtered(&peer, addresses);
        self.add_admitted(peer, &admitted, filtered)
    }

    pub(super) fn add_admitted(
        &mut self,
        peer: PeerId,
        admitted: &[Multiaddr],
        filtered: usize,
    ) -> Changed {
        let sources = Sources::from(self.source);
        let cause = self.cause();
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.hear_addresses(peer, admitted, filtered, (sources, cause), now)
        })
    }

    /// The peer itself told its complete list of addresses: it replaces what is known, except for what the user
    /// pinned. An empty list changes nothing.
    pub fn replace(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> Changed {
        let (admitted, filtered) = self.filtered(&peer, addresses);
        self.replace_admitted(peer, &admitted, filtered)
    }

    /// Whoever told of addresses takes them back; `None` takes back all that this source told of the peer. An
    /// address that nobody else told goes, and a peer of which nothing is left with it.
    pub fn withdraw(&mut self, peer: PeerId, addresses: Option<&[Multiaddr]>) -> Changed {
        let source = Sources::from(self.source);
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            let cause = Cause::Expired;
            let written = state.edit_known(peer, By::Swarm, cause, now, |record, rules, delta| {
                record.withdraw(addresses, source, rules, delta);
            });
            if written.changed {
                state.remove_if_empty(&peer, cause, now);
            }
            written
        })
    }

    /// A signed record of the peer contains these addresses. Those that are known become certified; none is
    /// added. The caller has verified the record.
    pub fn certify(&mut self, peer: PeerId, signed: &[Multiaddr]) -> Changed {
        self.edit_known(peer, |record, rules, delta| {
            record.certify(signed, rules, delta)
        })
    }

    /// A signed record of the peer came beside its own list of addresses, which was told first. Those of its
    /// addresses that are known become certified, and while one of them is known the record is kept, see
    /// [`PeerStore::signed_peer_record`]; none is added. The signature is checked, unless the store holds just this
    /// record; one that does not belong to the peer, or is older than the one that is held, is refused.
    pub fn certify_by_record(&mut self, peer: PeerId, envelope: &SignedEnvelope) -> Changed {
        self.store.certify_by_record(peer, envelope, self.cause())
    }

    /// A signed record came from anywhere: as [`PeerStore::consume_peer_record`], but not as the application's own
    /// word. Its addresses are shown to the [filter](crate::Config::with_address_filter).
    ///
    /// # Errors
    ///
    /// [`RecordError`] says why the record was not taken.
    pub fn peer_record(
        &mut self,
        envelope: &SignedEnvelope,
    ) -> Result<AcceptedRecord, RecordError> {
        self.store.take_record(envelope, By::Swarm, self.cause())
    }

    /// A message to a connected peer and back took so long. It counts for a tenth of the mean, and as
    /// [`Learned::alive`]. Of a peer that is not known nothing is kept.
    ///
    /// It is kept in microseconds, up to 71 minutes. [`Event::LatencyChanged`](crate::Event::LatencyChanged) says
    /// when the mean has moved noticeably; then it is also marked to be written with the next commit.
    pub fn latency(&mut self, peer: PeerId, latency: Duration) -> Changed {
        self.alive(peer);
        self.edit_known(peer, |record, _, delta| {
            record.measured_latency(latency, delta);
        })
    }

    /// The peer told the complete list of the protocols that it speaks: it replaces what is known.
    pub fn protocols(&mut self, peer: PeerId, protocols: &[StreamProtocol]) -> Changed {
        self.edit(peer, |record, rules, delta| {
            record.learn_protocols(protocols, rules, delta);
        })
    }

    /// The public key of a peer. One that does not hash to the peer id is refused.
    pub fn public_key(&mut self, peer: PeerId, key: &PublicKey) -> Changed {
        self.edit(peer, |record, _, delta| record.set_public_key(key, delta))
    }

    /// A peer told all that identify tells. Nearly always that is what it told before.
    #[cfg(feature = "identify")]
    pub(crate) fn identified(&mut self, peer: PeerId, told: Identified<'_>) {
        let sources = Sources::from(self.source);
        let (admitted, filtered) = self.filtered(&peer, told.addresses);
        let inner = self.store.inner();
        let known = Identified {
            addresses: &admitted,
            ..told
        };
        let repeat = inner.with(|state, now| {
            state.heard_from(&peer, now);
            let refused = state.repeats_identify(&peer, &known, sources, now)?;
            state.refuse(Refused::Filtered, filtered);
            Some(refused + filtered)
        });
        match repeat {
            None => {}
            Some(0) => return,
            Some(refused) => {
                tracing::debug!(%peer, refused, "refused to store addresses, as before");
                return;
            }
        }
        self.replace_admitted(peer, &admitted, filtered);
        self.protocols(peer, told.protocols);
        self.public_key(peer, told.public_key);
        self.metadata(peer, AGENT_VERSION, told.agent.as_bytes());
        self.metadata(peer, PROTOCOL_VERSION, told.version.as_bytes());
    }

    fn replace_admitted(
        &mut self,
        peer: PeerId,
        admitted: &[Multiaddr],
        filtered: usize,
    ) -> Changed {
        let sources = Sources::from(self.source);
        self.edit(peer, |record, rules, delta| {
            delta.refused.add(Refused::Filtered, filtered);
            record.replace_addresses(admitted, sources, rules, delta);
        })
    }

    /// Something came from a peer over a live connection, which shows that the network works.
    pub fn alive(&mut self, peer: PeerId) {
        self.store
            .inner()
            .with(|state, now| state.heard_from(&peer, now));
    }

    /// A metadata value of a peer.
    pub fn metadata(&mut self, peer: PeerId, key: &str, value: &[u8]) -> Changed {
        self.edit(peer, |record, rules, delta| {
            record.set_metadata(key, value, rules, delta);
        })
    }

    /// What the user's filter admits: asked before the lock is taken.
    fn filtered<'b>(&self, peer: &PeerId, told: &'b [Multiaddr]) -> (Cow<'b, [Multiaddr]>, usize) {
        self.store.inner().config().filtered(peer, told)
    }

    fn edit(
        &mut self,
        peer: PeerId,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Changed {
        let cause = self.cause();
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit(peer, By::Swarm, cause, now, rule)
        })
    }

    fn edit_known(
        &mut self,
        peer: PeerId,
        rule: impl FnOnce(&mut Record, Rules<'_>, &mut Delta),
    ) -> Changed {
        let cause = self.cause();
        let inner = self.store.inner();
        inner.write(peer, |state, now| {
            state.edit_known(peer, By::Swarm, cause, now, rule)
        })
    }

    fn cause(&self) -> Cause {
        match self.source {
            Source::Identify => Cause::Identify,
            _ => Cause::Discovery,
        }
    }
}
