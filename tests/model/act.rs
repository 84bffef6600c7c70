//! What an operation does to the store and what it says.

use libp2p_core::{Multiaddr, transport::TransportError};
use libp2p_identity::PeerId;
use libp2p_peerstore::{Changed, Refused, Source};
use libp2p_swarm::{DialError, StreamProtocol};

use super::{
    World,
    naive::Did,
    ops::{Book, Failure, Op},
    support::{self, Swarm, did},
    universe,
};

impl World {
    pub fn act(&mut self, op: &Op) -> Said {
        let store = &self.store;
        let (addresses, protocols) = (store.addresses(), store.protocols());
        let (metadata, tags) = (store.metadata(), store.tags());
        match op.clone() {
            Op::Add(peer, told) => addresses.add(peer, told).into(),
            Op::Set(peer, told) => addresses.set(peer, told).into(),
            Op::Pin(peer, told) => addresses.pin(peer, told).into(),
            Op::Unpin(peer, told) => addresses.unpin(peer, told).into(),
            Op::Remove(peer, told) => addresses.remove(peer, told).into(),
            Op::Tell(source, peer, told) => store.learned(source).add(peer, &told).into(),
            Op::Identify(peer, told) => store.learned(Source::Identify).replace(peer, &told).into(),
            Op::Withdraw(source, peer, told) => {
                store.learned(source).withdraw(peer, told.as_deref()).into()
            }
            Op::Certify(peer, told) => store.learned(Source::Identify).certify(peer, &told).into(),
            Op::Latency(peer, latency) => store
                .learned(Source::Discovery)
                .latency(peer, latency)
                .into(),
            Op::SetProtocols(peer, told) => protocols.set(peer, told).into(),
            Op::AddProtocols(peer, told) => protocols.add(peer, told).into(),
            Op::RemoveProtocols(peer, told) => protocols.remove(peer, told).into(),
            Op::LearnProtocols(peer, told) => store
                .learned(Source::Identify)
                .protocols(peer, &stream_protocols(&told))
                .into(),
            Op::SetKey(peer, n) => store.keys().set(peer, universe::key(n)).into(),
            Op::LearnKey(peer, n) => store
                .learned(Source::Identify)
                .public_key(peer, &universe::key(n))
                .into(),
            Op::SetMetadata(peer, key, value) => metadata.set(peer, &key, value).into(),
            Op::LearnMetadata(peer, key, value) => store
                .learned(Source::Identify)
                .metadata(peer, &key, &value)
                .into(),
            Op::DeleteValue(peer, key) => metadata.delete_value(&peer, &key).into(),
            Op::SetTag(peer, name, value, ttl) => tags.set(peer, &name, value, ttl).into(),
            Op::RemoveTag(peer, name) => tags.remove(&peer, &name).into(),
            Op::DeleteBook(peer, Book::Addresses) => addresses.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Protocols) => protocols.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Keys) => store.keys().delete(&peer).into(),
            Op::DeleteBook(peer, Book::Metadata) => metadata.delete(&peer).into(),
            Op::DeleteBook(peer, Book::Tags) => tags.delete(&peer).into(),
            Op::Delete(peer) => store.delete(&peer).into(),
            Op::DeleteFor(peer, duration) => store.delete_for(&peer, duration).into(),
            op => {
                self.tell_swarm(op);
                Said::Nothing
            }
        }
    }

    /// What nobody answers to.
    fn tell_swarm(&mut self, op: Op) {
        let swarm = &mut self.swarm;
        match op {
            Op::Found(peer, address) => swarm.found(peer, &address),
            Op::Dialled(peer, address, failed) => swarm.dialled_after(peer, address, &failed),
            Op::Accepted(peer, address) => swarm.accepted(peer, address),
            Op::Moved(peer, to) => swarm.moved(peer, to),
            Op::Closed(peer) => swarm.closed(peer),
            Op::DialFailed(peer, tried, failure) => dial_failed(swarm, peer, tried, failure),
            Op::WrongPeer(expected, obtained, address) => {
                swarm.wrong_peer(expected, obtained, address);
            }
            Op::OwnAddressesChanged => swarm.own_address_confirmed(&support::at(9)),
            Op::Alive(peer) => self.store.learned(Source::Kademlia).alive(peer),
            op => unreachable!("not an act of one moment: {op:?}"),
        }
    }
}

fn dial_failed(swarm: &mut Swarm, peer: PeerId, tried: Vec<Multiaddr>, failure: Failure) {
    use std::io::ErrorKind;
    match failure {
        Failure::Refused => swarm.dial_failed(peer, tried),
        Failure::TimedOut => swarm.timed_out(peer, tried),
        Failure::Unreachable => {
            swarm.dial_failed_by(peer, tried, || ErrorKind::HostUnreachable.into())
        }
        Failure::Unsupported => {
            let attempt = |address: Multiaddr| {
                let address = support::with_id(address, peer);
                (
                    address.clone(),
                    TransportError::MultiaddrNotSupported(address),
                )
            };
            let attempts = tried.into_iter().map(attempt).collect();
            swarm.dial_failed_with(peer, &DialError::Transport(attempts));
        }
    }
}

/// The names that can come over the wire: each begins with a slash.
pub fn stream_protocols(names: &[String]) -> Vec<StreamProtocol> {
    let names = names.iter().cloned();
    names
        .filter_map(|name| StreamProtocol::try_from_owned(name).ok())
        .collect()
}

/// What a call returned, in a form that is the same for both.
#[derive(Debug, PartialEq)]
pub enum Said {
    Nothing,
    Changed(bool, usize),
    Single(Result<bool, Refused>),
    WasThere(bool),
}

impl From<Changed> for Said {
    fn from(changed: Changed) -> Self {
        let (changed, refused) = did(changed);
        Said::Changed(changed, refused)
    }
}

impl From<Result<bool, Refused>> for Said {
    fn from(result: Result<bool, Refused>) -> Self {
        Said::Single(result)
    }
}

impl From<bool> for Said {
    fn from(was_there: bool) -> Self {
        Said::WasThere(was_there)
    }
}

impl From<Did> for Said {
    fn from(did: Did) -> Self {
        Said::Changed(did.changed, did.refused.len())
    }
}

impl Did {
    /// As a call for a single item says it: what was refused is an error.
    pub fn single(self) -> Said {
        Said::Single(match self.refused.first() {
            Some(reason) => Err(*reason),
            None => Ok(self.changed),
        })
    }
}
