//! What an operation does to the model, and what the store should say.

use libp2p_peerstore::{Source, Sources};

use super::{
    World,
    act::{Said, stream_protocols},
    naive::{By, Naive},
    naive_dials::stack,
    ops::{Book, Failure, Op},
    universe,
};

const PEER: By = By::Swarm { first_hand: true };
const OTHERS: By = By::Swarm { first_hand: false };

impl World {
    pub fn expect(&mut self, op: &Op) -> Said {
        let naive = &mut self.naive;
        match op.clone() {
            Op::Add(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.add(&peer, known, &told, Sources::APPLICATION, did);
                })
                .into(),
            Op::Set(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.replace(&peer, known, &told, Sources::APPLICATION, did);
                })
                .into(),
            Op::Pin(peer, told) => naive
                .edit(peer, By::User, |naive, known, did| {
                    naive.add(&peer, known, &told, Sources::PINNED, did);
                })
                .into(),
            Op::Unpin(peer, told) => naive
                .edit_known(peer, By::User, |naive, known, did| {
                    naive.unpin(&peer, known, &told, did)
                })
                .into(),
            Op::Remove(peer, told) => naive
                .edit_known(peer, By::User, |naive, known, did| {
                    naive.remove(&peer, known, &told, did)
                })
                .into(),
            Op::Tell(source, peer, told) => {
                let by = if source == Source::Identify {
                    PEER
                } else {
                    OTHERS
                };
                naive
                    .edit(peer, by, |naive, known, did| {
                        let told = naive.filtered(&told, did);
                        naive.add(&peer, known, &told, source.into(), did);
                    })
                    .into()
            }
            Op::Identify(peer, told) => naive
                .edit(peer, PEER, |naive, known, did| {
                    let told = naive.filtered(&told, did);
                    naive.replace(&peer, known, &told, Sources::IDENTIFY, did);
                })
                .into(),
            Op::Withdraw(source, peer, told) => {
                let did = naive.edit_known(peer, OTHERS, |naive, known, did| {
                    naive.withdraw(&peer, known, told.as_deref(), source.into(), did);
                });
                if did.changed {
                    naive.remove_if_empty(&peer);
                }
                did.into()
            }
            Op::Certify(peer, told) => naive
                .edit_known(peer, PEER, |naive, known, did| {
                    naive.certify(&peer, known, &told, did)
                })
                .into(),
            Op::Latency(peer, latency) => naive.measured_latency(peer, latency).into(),
            Op::SetProtocols(peer, told) => naive.set_protocols(peer, &told).into(),
            Op::AddProtocols(peer, told) => naive.add_protocols(peer, &told).into(),
            Op::RemoveProtocols(peer, told) => naive.remove_protocols(peer, &told).into(),
            Op::LearnProtocols(peer, told) => {
                let told: Vec<String> = stream_protocols(&told)
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                naive.learn_protocols(peer, &told).into()
            }
            Op::SetKey(peer, n) => naive.set_key(peer, &universe::key(n), By::User).single(),
            Op::LearnKey(peer, n) => naive.set_key(peer, &universe::key(n), PEER).into(),
            Op::SetMetadata(peer, key, value) => {
                naive.set_metadata(peer, &key, &value, By::User).single()
            }
            Op::LearnMetadata(peer, key, value) => {
                naive.set_metadata(peer, &key, &value, PEER).into()
            }
            Op::DeleteValue(peer, key) => naive.delete_value(peer, &key).into(),
            Op::SetTag(peer, name, value, ttl) => naive.set_tag(peer, &name, value, ttl).single(),
            Op::RemoveTag(peer, name) => naive
                .empty(peer, |known| known.tags.remove(&name).is_some())
                .into(),
            Op::DeleteBook(peer, book) => naive
                .empty(peer, |known| match book {
                    Book::Addresses => {
                        known.dropped.clear();
                        !std::mem::take(&mut known.addresses).is_empty()
                    }
                    Book::Protocols => !std::mem::take(&mut known.protocols).is_empty(),
                    Book::Keys => known.key.take().is_some(),
                    Book::Metadata => !std::mem::take(&mut known.metadata).is_empty(),
                    Book::Tags => !std::mem::take(&mut known.tags).is_empty(),
                })
                .into(),
            Op::Delete(peer) => naive.delete(&peer, None).into(),
            Op::DeleteFor(peer, duration) => naive.delete(&peer, Some(duration)).into(),
            op => {
                naive.hear_from_swarm(op);
                Said::Nothing
            }
        }
    }
}

impl Naive {
    fn hear_from_swarm(&mut self, op: Op) {
        match op {
            Op::Found(peer, address) => {
                self.edit(peer, OTHERS, |naive, known, did| {
                    let told = naive.filtered(&[address], did);
                    naive.add(&peer, known, &told, Sources::DISCOVERY, did);
                });
            }
            Op::Dialled(peer, address, failed) => self.connected(peer, &address, true, &failed),
            Op::Accepted(peer, address) => self.connected(peer, &address, false, &[]),
            Op::Moved(peer, to) => self.moved(peer, &to),
            Op::Closed(peer) => self.closed(peer),
            Op::DialFailed(peer, tried, failure) => {
                for address in tried {
                    if !matches!(failure, Failure::Unsupported) {
                        self.stacks.insert(stack(&address));
                    }
                    match failure {
                        Failure::Refused => {
                            self.dial_failed(peer, &address, false);
                            self.works(universe::about(&address).scope);
                        }
                        Failure::TimedOut => self.provisional_failure(peer, &address),
                        Failure::Unreachable => self.said_nothing(peer, &address),
                        Failure::Unsupported => self.unsupported(peer, &address),
                    }
                }
            }
            Op::WrongPeer(expected, obtained, address) => {
                self.wrong_peer(expected, obtained, &address);
            }
            Op::OwnAddressesChanged => self.own.clear(),
            Op::Alive(peer) => self.alive(&peer),
            op => unreachable!("not an act of one moment: {op:?}"),
        }
    }
}
