//! What dials and connections do, as the documentation has it.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{Sources, Standing};

use super::{
    naive::{By, Did, Known, Naive},
    naive_address::Address,
    naive_network::Link,
    universe::{self, about},
};

impl Naive {
    pub fn dial_succeeded(
        &self,
        peer: &PeerId,
        known: &mut Known,
        address: &Multiaddr,
        did: &mut Did,
    ) {
        let Some(address) = self.bare(peer, address, did) else {
            return;
        };
        let step = self.step();
        known.dropped.retain(|(dropped, _)| *dropped != address);
        let Some(it) = known.find(&address) else {
            let mut newcomer = Address::new(address, Sources::DIALLED, step);
            (newcomer.success, newcomer.successes, newcomer.in_use) = (Some(step), 1, true);
            // Nothing was known of it, so that nothing is learnt for others.
            self.succeeded(&mut newcomer, Standing::Hearsay);
            self.place(peer, known, newcomer, did);
            return;
        };
        let standing = self.standing(it);
        did.outcomes.push((standing, true));
        self.succeeded(it, standing);
        (it.in_use, it.wrong_peer, it.failures) = (true, false, 0);
        it.successes = (it.successes + 1).min(255);
        if self.is_success_stale(it) {
            it.success = Some(step);
        }
        self.hear(known, &address, Sources::DIALLED);
    }

    /// A failed dial counts.
    pub fn dial_failed(&mut self, peer: PeerId, address: &Multiaddr, wrong_peer: bool) {
        self.said_something(peer, address);
        let by = By::Swarm { first_hand: true };
        self.edit_known(peer, by, |naive, known, did| {
            let Some(address) = naive.bare(&peer, address, did) else {
                return;
            };
            let Some(at) = known
                .addresses
                .iter()
                .position(|known| known.address == address)
            else {
                return;
            };
            let it = &mut known.addresses[at];
            let standing = naive.standing(it);
            did.outcomes.push((standing, false));
            naive.failed(it, standing, wrong_peer);
            it.wrong_peer = wrong_peer || naive.is_blocked(it);
            it.failures = (it.failures + 1).min(255);
            it.failure = Some(naive.step());
            let trusted = Sources::PINNED | Sources::CERTIFIED | Sources::DIALLED;
            if wrong_peer && !it.sources.intersects(trusted) {
                known.drop_address(at, naive.after(naive.config.wrong_peer_block()));
                did.change_addresses();
            }
        });
    }

    /// Another peer answered than was expected.
    pub fn wrong_peer(&mut self, expected: PeerId, obtained: PeerId, address: &Multiaddr) {
        self.stacks.insert(stack(address));
        self.works(about(address).scope);
        let bare = self.bare(&expected, address, &mut Did::default());
        if obtained != universe::peer(universe::LOCAL) {
            self.dial_failed(expected, address, true);
            if let Some(bare) = bare {
                let by = By::Swarm { first_hand: true };
                self.edit_with_room(obtained, by, |naive, known, did| {
                    naive.add(&obtained, known, &[bare], Sources::IDENTIFY, did);
                });
            }
        } else if let Some(bare) = bare {
            let by = By::Swarm { first_hand: true };
            self.edit_known(expected, by, |_, known, did| {
                let before = known.addresses.len();
                known.addresses.retain(|known| known.address != bare);
                if known.addresses.len() < before {
                    did.change_addresses();
                }
            });
            self.own.insert(bare);
        } else {
            self.dial_failed(expected, address, true);
        }
    }

    pub fn unsupported(&mut self, peer: PeerId, address: &Multiaddr) {
        self.edit_known(peer, By::Swarm { first_hand: true }, |naive, known, did| {
            if let Some(address) = naive.bare(&peer, address, did)
                && let Some(known) = known.find(&address)
            {
                known.unsupported = true;
            }
        });
    }

    /// A connection is open; `failed` are the addresses that were tried in vain before it.
    pub fn connected(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        dialled: bool,
        failed: &[Multiaddr],
    ) {
        self.said_something(peer, address);
        let place = about(address);
        let relayed = dialled && place.scope == universe::Scope::Relay;
        self.links.entry(peer).or_default().push(Link {
            address: place.address.clone(),
            dialled,
            moved: false,
            reach: (!relayed).then_some(place.reach),
            scope: place.scope,
        });
        if dialled {
            self.stacks.insert(stack(address));
        }
        for failed in failed {
            if !self.stacks.contains(&stack(failed)) {
                self.said_nothing(peer, failed);
            } else if about(failed).scope == place.scope {
                self.dial_failed(peer, failed, false);
            } else {
                self.provisional_failure(peer, failed);
            }
        }
        self.works(place.scope);
        if dialled {
            self.edit(peer, By::Swarm { first_hand: true }, |naive, known, did| {
                naive.dial_succeeded(&peer, known, address, did);
            });
        } else {
            self.edit(
                peer,
                By::Swarm { first_hand: false },
                |naive, known, did| {
                    let admitted = naive.filtered(std::slice::from_ref(address), did);
                    if known
                        .addresses
                        .iter()
                        .all(|known| known.sources == Sources::INBOUND)
                    {
                        naive.add(&peer, known, &admitted, Sources::INBOUND, did);
                    }
                },
            );
        }
        self.note_links();
    }

    /// The latest connection of a peer is gone.
    pub fn closed(&mut self, peer: PeerId) {
        let Some(links) = self.links.get_mut(&peer) else {
            return;
        };
        links.pop();
        if links.is_empty() {
            self.links.remove(&peer);
            if let Some(known) = self.peers.get_mut(&peer) {
                known.heard = self.now;
            }
        }
        self.note_links();
    }

    /// The latest connection of a peer, which this node dialled, goes on at another address.
    pub fn moved(&mut self, peer: PeerId, to: &Multiaddr) {
        let links = self.links.get_mut(&peer);
        let link = links.and_then(|links| links.last_mut());
        let link = link.expect("there is a connection that can move");
        (link.address, link.moved) = (to.clone(), true);
        self.note_links();
        self.edit(peer, By::Swarm { first_hand: true }, |naive, known, did| {
            let admitted = naive.filtered(std::slice::from_ref(to), did);
            naive.add(&peer, known, &admitted, Sources::DISCOVERY, did);
        });
    }
}

/// What an address is made of: its protocols without their values.
pub fn stack(address: &Multiaddr) -> Vec<String> {
    let parts = about(address).address.iter();
    parts.map(|part| part.tag().to_owned()).collect()
}
