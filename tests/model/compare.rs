//! Every answer of the store against the model's.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_peerstore::{AddressInfo, Peer, Refused, Standing, Tag};
use libp2p_swarm::StreamProtocol;

use super::{
    World,
    naive::{Known, Naive, STEP},
    naive_address::Address,
    naive_confidence::KEPT,
    support::with_id,
    universe,
};

impl World {
    /// Compares every answer.
    pub fn compare(&mut self) {
        self.adopt_old_times();
        let (store, naive) = (&self.store, &self.naive);
        for reason in Refused::ALL {
            let expected = naive.refusals.get(&reason).copied().unwrap_or_default();
            assert_eq!(store.refusals().get(reason), expected, "{reason:?}");
        }
        let known: BTreeSet<PeerId> = naive.peers.keys().copied().collect();
        assert_eq!(set(store.peer_ids()), known);
        let listed = store.peers();
        assert_eq!(set(listed.iter().map(|peer| peer.id)), known);
        for peer in &listed {
            naive.assert_same(peer, &naive.peers[&peer.id]);
        }
        let connected: BTreeSet<PeerId> = naive.links.keys().copied().collect();
        assert_eq!(set(store.connected_peers()), connected);
        for n in 0..universe::PROTOCOLS {
            let name = universe::protocol(n);
            let speak = naive
                .peers
                .iter()
                .filter(|(_, known)| known.protocols.contains(&name));
            let speak: BTreeSet<PeerId> = speak.map(|(id, _)| *id).collect();
            assert_eq!(set(store.peers_supporting(&name)), speak, "{name}");
            // Walks take their time: one name at a time is enough.
            if u64::from(n) == naive.now % u64::from(universe::PROTOCOLS) {
                let found = store.filter(|peer| peer.supports(&name));
                assert_eq!(set(found.into_iter().map(|peer| peer.id)), speak, "{name}");
            }
        }
        // A visit that ends early has met so many peers, and no more.
        let (mut met, stop) = (0, known.len() / 2 + 1);
        let ended = store.for_each(|_| {
            met += 1;
            if met == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(
            (met, ended.is_some()),
            (stop.min(known.len()), stop <= known.len())
        );
        // All of them were listed: book by book it is enough to ask for every third one in turn.
        self.comparisons += 1;
        for id in universe::peers().skip(self.comparisons % 3).step_by(3) {
            self.compare_peer(&id);
        }
    }

    /// Compares who is known.
    pub fn compare_peers(&self) {
        let known: BTreeSet<PeerId> = self.naive.peers.keys().copied().collect();
        assert_eq!(set(self.store.peer_ids()), known);
    }

    fn compare_peer(&mut self, id: &PeerId) {
        let (store, naive) = (&self.store, &self.naive);
        let known = naive.peers.get(id);
        assert_eq!(store.contains(id), known.is_some(), "{id}");
        assert_eq!(store.is_connected(id), naive.is_connected(id));
        assert_eq!(
            store.connections(id),
            naive.links.get(id).map_or(0, Vec::len)
        );
        let stored = known.and_then(|known| known.key.clone());
        assert_eq!(
            store.keys().get(id),
            stored.or_else(|| universe::inlined_key(id))
        );
        let (addresses, protocols) = (store.addresses(), store.protocols());
        let (metadata, tags) = (store.metadata(), store.tags());
        let Some(known) = known else {
            assert!(store.get(id).is_none());
            assert!(addresses.get(id).is_none() && addresses.infos(id).is_none());
            assert!(addresses.multiaddrs_for_peer(id).is_empty());
            assert!(protocols.get(id).is_none() && metadata.get(id).is_none());
            assert!(tags.get(id).is_none());
            assert!(self.swarm.offers(*id).is_empty());
            return;
        };
        naive.assert_same(&store.get(id).unwrap(), known);
        let infos = addresses.infos(id).unwrap();
        naive.assert_same_addresses(&infos, known);
        let bare: Vec<Multiaddr> = infos.iter().map(|info| info.address.clone()).collect();
        let full: Vec<Multiaddr> = bare.iter().map(|bare| with_id(bare.clone(), *id)).collect();
        assert_eq!(addresses.get(id), Some(bare));
        assert_eq!(addresses.multiaddrs_for_peer(id), full);

        assert_same_protocols(&protocols.get(id).unwrap(), known);
        let asked: Vec<String> = (0..universe::PROTOCOLS)
            .rev()
            .map(universe::protocol)
            .collect();
        let mut spoken = asked.clone();
        spoken.retain(|name| known.protocols.contains(name));
        let names = |names: Vec<StreamProtocol>| -> Vec<String> {
            names.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(protocols.supports(id, &asked)), spoken);
        let first = protocols.first_supported(id, &asked);
        assert_eq!(first.map(|name| name.to_string()), spoken.first().cloned());

        assert_eq!(metadata.get(id).as_ref(), Some(&known.metadata));
        for n in 0..universe::METADATA_KEYS {
            let key = universe::metadata_key(n);
            assert_eq!(
                metadata.get_value(id, &key).as_ref(),
                known.metadata.get(&key)
            );
        }
        assert_same_tags(&tags.get(id).unwrap(), known);
        for n in 0..universe::TAGS {
            let name = universe::tag(n);
            let expected = known.tags.get(&name).map(|(value, _)| *value);
            assert_eq!(tags.get_value(id, &name), expected);
        }
        let offered = naive.offers(id, known, &infos);
        assert_eq!(self.swarm.offers(*id), offered);
    }

    /// What lies further back than some weeks counts as that: from then on it does so in the model too.
    fn adopt_old_times(&mut self) {
        let now = self.naive.now;
        for (id, known) in &mut self.naive.peers {
            let infos = self.store.addresses().infos(id).unwrap_or_default();
            for known in &mut known.addresses {
                let Some(info) = infos.iter().find(|info| info.address == known.address) else {
                    continue;
                };
                let adopt = |ours: &mut u64, theirs: u64| {
                    if *ours < theirs && theirs <= now.saturating_sub(KEPT) + STEP {
                        *ours = theirs;
                    }
                };
                adopt(&mut known.first_heard, seconds(info.first_heard));
                adopt(&mut known.last_heard, seconds(info.last_heard));
                for (ours, theirs) in [
                    (&mut known.success, info.last_success),
                    (&mut known.failure, info.last_failure),
                ] {
                    if let (Some(ours), Some(theirs)) = (ours, theirs) {
                        adopt(ours, seconds(theirs));
                    }
                }
            }
        }
    }

    /// Small print that is not worth a commit may be older on disk: of an address whose connection ended by a quarter of
    /// what a proof lives for, or the grain of its times; by some successes, by small moves of the latency.
    pub fn adopt_what_was_not_written(&mut self) {
        let (store, now) = (&self.store, self.naive.now);
        let config = self.naive.config.clone();
        let may_have_expired = |known: &Address| {
            let (mut older, lag) = (known.clone(), known.unwritten);
            older.last_heard = (older.last_heard - lag).max(older.first_heard);
            older.success = older.success.map(|at| at - lag);
            older.expires(&config).is_some_and(|at| at <= now)
        };
        self.naive.peers.retain(|id, known| {
            let expired = known.addresses.iter().all(may_have_expired)
                && !known.addresses.is_empty()
                && known.tags.is_empty();
            store.contains(id) || !expired
        });
        for (id, known) in &mut self.naive.peers {
            let Some(peer) = store.get(id) else {
                continue;
            };
            let find = |known: &Address| {
                peer.addresses
                    .iter()
                    .find(|info| info.address == known.address)
            };
            known
                .addresses
                .retain(|known| find(known).is_some() || !may_have_expired(known));
            for known in &mut known.addresses {
                let Some(info) = find(known) else {
                    continue;
                };
                assert!(info.successes <= known.successes);
                known.successes = info.successes;
                let lag = std::mem::take(&mut known.unwritten);
                let is_older = |ours: u64, theirs: u64| theirs <= ours && ours - theirs <= lag;
                let heard = seconds(info.last_heard);
                if is_older(known.last_heard, heard) {
                    known.last_heard = heard;
                }
                if let (Some(ours), Some(theirs)) = (known.success, info.last_success)
                    && is_older(ours, seconds(theirs))
                {
                    known.success = Some(seconds(theirs));
                }
            }
            if let (Some(ours), Some(theirs)) = (&mut known.latency, peer.latency) {
                let theirs = u64::try_from(theirs.as_micros()).unwrap();
                assert!(ours.since.contains(&theirs), "{ours:?} {theirs}");
                (ours.mean, ours.told, ours.since) = (theirs, theirs, vec![theirs]);
            }
        }
    }
}

impl Naive {
    fn assert_same(&self, peer: &Peer, known: &Known) {
        self.assert_same_addresses(&peer.addresses, known);
        assert_same_protocols(&peer.protocols, known);
        assert_same_tags(&peer.tags, known);
        assert_eq!(peer.metadata, known.metadata);
        let stored = known.key.clone();
        assert_eq!(
            peer.public_key,
            stored.or_else(|| universe::inlined_key(&peer.id))
        );
        let latency = known.latency.as_ref();
        let latency = latency.map(|latency| Duration::from_micros(latency.mean));
        assert_eq!(peer.latency, latency);
        assert!(peer.signed_record.is_none());
        assert_eq!(peer.connected, self.is_connected(&peer.id));
        let seen = seconds(peer.last_seen);
        match peer.connected {
            true => assert_eq!(seen, self.now),
            false if known.heard > self.loaded => assert_eq!(seen, known.heard, "{}", peer.id),
            // Of an earlier run it is known in steps.
            false => assert!(seen <= self.loaded, "{seen} after {}", self.loaded),
        }
    }

    fn assert_same_addresses(&self, infos: &[AddressInfo], known: &Known) {
        let theirs: BTreeSet<_> = infos.iter().map(|info| info.address.clone()).collect();
        let ours = known
            .addresses
            .iter()
            .map(|known| known.address.clone())
            .collect();
        assert_eq!(theirs, ours);
        assert_eq!(infos.len(), known.addresses.len());
        let place = |info: &AddressInfo| {
            let mut addresses = known.addresses.iter();
            addresses
                .position(|known| known.address == info.address)
                .unwrap()
        };
        for pair in infos.windows(2) {
            let [one, other] = pair else { unreachable!() };
            let best_first = (other.standing.cmp(&one.standing))
                .then(other.confidence.total_cmp(&one.confidence))
                .then(place(one).cmp(&place(other)));
            assert!(best_first.is_le(), "{one:?} before {other:?}");
        }
        for info in infos {
            let known = &known.addresses[place(info)];
            let expected = (
                known.sources,
                self.standing(known),
                (known.first_heard, known.last_heard),
                (known.success, known.failure),
                (known.successes, known.failures),
                known.expires(&self.config),
            );
            let found = (
                info.sources,
                info.standing,
                (seconds(info.first_heard), seconds(info.last_heard)),
                (
                    info.last_success.map(seconds),
                    info.last_failure.map(seconds),
                ),
                (info.successes, info.failures),
                info.expires.map(seconds),
            );
            assert_eq!(found, expected, "{known:?} at {}", self.now);
            let (least, most) = self.confidence(known, info.standing).unwrap_or((0.0, 1.0));
            let expected = least - 1e-9..=most + 1e-9;
            let confidence = info.confidence;
            assert!(expected.contains(&confidence), "{confidence} of {known:?}");
            self.assert_back_off(info, known);
        }
    }

    /// Two minutes after the first failure, doubled by each further one, up to an hour; by chance a quarter more or
    /// less.
    fn assert_back_off(&self, info: &AddressInfo, known: &Address) {
        let passed = known.failure.map_or(Duration::MAX, |at| self.since(at));
        let doublings = known.failures.saturating_sub(1).min(10);
        let full = match known.failures {
            0 => Duration::ZERO,
            _ => Duration::from_secs(120 << doublings).min(Duration::from_secs(3_600)),
        };
        let (shortest, longest) = (full.mul_f64(0.749), full.mul_f64(1.251));
        let back_off = info.back_off.unwrap_or_default();
        assert!(
            back_off >= shortest.saturating_sub(passed)
                && back_off <= longest.saturating_sub(passed),
            "{back_off:?} of {full:?}, {passed:?} after {known:?}"
        );
    }

    /// What is offered for a dial: the best tier that has an address outside its back-off; else the one that was left
    /// alone for longest. If all of that tier said nothing lately, it has half of the places, and the next tier that has
    /// anything else has the others.
    fn offers(&self, id: &PeerId, known: &Known, infos: &[AddressInfo]) -> Vec<Multiaddr> {
        let may_be_dialled = |info: &&AddressInfo| {
            let mut addresses = known.addresses.iter();
            let known = addresses
                .find(|known| known.address == info.address)
                .unwrap();
            let is_open = !self.is_blocked(known) && !self.own.contains(&known.address);
            !known.unsupported && (known.is_pinned() || is_open)
        };
        let tier = |info: &AddressInfo| match info.standing {
            Standing::Hearsay if info.is_pinned() => Standing::SelfTold,
            standing => standing,
        };
        let candidates: Vec<&AddressInfo> = infos.iter().filter(may_be_dialled).collect();
        let ready = candidates.iter().filter(|info| info.back_off.is_none());
        let (silent, other): (Vec<&AddressInfo>, Vec<_>) = ready
            .clone()
            .copied()
            .partition(|info| self.is_silent(*id, &info.address));
        let max = self.config.max_dial_addresses().get();
        let next = other.iter().map(|info| tier(info)).max();
        let offered: Vec<&AddressInfo> = match ready.clone().map(|info| tier(info)).max() {
            Some(best) if next.is_some_and(|next| next != best) => {
                let first = silent.into_iter().filter(|info| tier(info) == best);
                let second = other.into_iter().filter(|info| Some(tier(info)) == next);
                let offered: Vec<_> = first.take(max / 2).chain(second).collect();
                // The order is that of all.
                let mut ordered = candidates;
                ordered.retain(|info| offered.iter().any(|it| it.address == info.address));
                ordered.truncate(max);
                ordered
            }
            Some(best) => {
                let all = other.into_iter().chain(silent);
                let mut offered: Vec<_> = all.filter(|info| tier(info) == best).collect();
                let enough = offered[0].confidence > 0.9;
                offered.truncate(if enough { max.div_ceil(2) } else { max });
                offered
            }
            None => candidates
                .into_iter()
                .min_by_key(|info| info.last_failure)
                .into_iter()
                .collect(),
        };
        offered
            .into_iter()
            .map(|info| with_id(info.address.clone(), *id))
            .collect()
    }
}

fn assert_same_protocols(names: &[StreamProtocol], known: &Known) {
    let set: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(
        (names.len(), &set),
        (known.protocols.len(), &known.protocols)
    );
}

fn assert_same_tags(tags: &BTreeMap<String, Tag>, known: &Known) {
    let tags = tags
        .iter()
        .map(|(name, tag)| (name.clone(), (tag.value, tag.expires.map(seconds))));
    assert_eq!(tags.collect::<BTreeMap<_, _>>(), known.tags);
}

/// Peers as a set; each is there once.
fn set(ids: impl IntoIterator<Item = PeerId>) -> BTreeSet<PeerId> {
    let ids: Vec<PeerId> = ids.into_iter().collect();
    let set: BTreeSet<PeerId> = ids.iter().copied().collect();
    assert_eq!(set.len(), ids.len());
    set
}

pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_secs()
}
