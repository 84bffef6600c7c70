//! What a swarm would tell the store, told by hand.

use std::io;

use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionId, DialError, FromSwarm, NetworkBehaviour,
        behaviour::{ConnectionEstablished, DialFailure},
    },
};
use libp2p_peerstore::{Learned, PeerStoreBehaviour, Source, Teach};

/// A connection to the peer was established by a dial of this node.
pub fn dialled(behaviour: &mut PeerStoreBehaviour, peer: PeerId, address: &Multiaddr) {
    let endpoint = ConnectedPoint::Dialer {
        address: address.clone(),
        role_override: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    established(behaviour, peer, &endpoint);
}

/// The peer connected to this node.
pub fn inbound(behaviour: &mut PeerStoreBehaviour, peer: PeerId, address: &Multiaddr) {
    let endpoint = ConnectedPoint::Listener {
        local_addr: "/ip4/192.0.2.2/tcp/1".parse().unwrap(),
        send_back_addr: address.clone(),
    };
    established(behaviour, peer, &endpoint);
}

fn established(behaviour: &mut PeerStoreBehaviour, peer: PeerId, endpoint: &ConnectedPoint) {
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
}

/// A dial of this node to the address failed.
pub fn dial_failed(behaviour: &mut PeerStoreBehaviour, peer: PeerId, address: &Multiaddr) {
    let address = address.clone().with_p2p(peer).unwrap();
    let refused = TransportError::Other(io::ErrorKind::ConnectionRefused.into());
    behaviour.on_swarm_event(FromSwarm::DialFailure(DialFailure {
        peer_id: Some(peer),
        error: &DialError::Transport(vec![(address, refused)]),
        connection_id: ConnectionId::new_unchecked(1),
    }));
}

/// Kademlia told of an address.
pub struct Gossip(pub PeerId, pub Multiaddr);

impl Teach for Gossip {
    const SOURCE: Source = Source::Kademlia;

    fn teach(&self, learned: &mut Learned<'_>) {
        learned.add(self.0, std::slice::from_ref(&self.1));
    }
}

/// Identify told of an address.
pub struct Told(pub PeerId, pub Multiaddr);

impl Teach for Told {
    const SOURCE: Source = Source::Identify;

    fn teach(&self, learned: &mut Learned<'_>) {
        learned.replace(self.0, std::slice::from_ref(&self.1));
    }
}

/// A signed record of the peer contains the address.
pub struct Certified(pub PeerId, pub Multiaddr);

impl Teach for Certified {
    const SOURCE: Source = Source::Identify;

    fn teach(&self, learned: &mut Learned<'_>) {
        learned.certify(self.0, std::slice::from_ref(&self.1));
    }
}
