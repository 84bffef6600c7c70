//! The folder of a js-libp2p node is opened, used, and given back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::executor::block_on;
use libp2p_peerstore::{
    Config, Datastore, FsDatastore, LoadReport, MemoryDatastore, MigrationOptions, PeerStore,
    RedbDatastore, migrate,
};
use tempfile::TempDir;

use crate::{
    assert_holds, assert_js_reads, expected, fixture,
    support::{Hand, addr, addrs_key, metadata_key, protos_key},
};

/// A copy of what js-libp2p wrote.
fn copy() -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture().join("store"), folder.path());
    folder
}

/// All that js-libp2p can see: every file that ends in `.data`, by its path.
fn js_sees(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "data") {
                let content = fs::read(&path).unwrap();
                files.insert(path.strip_prefix(root).unwrap().to_path_buf(), content);
            }
        }
    }
    files
}

/// The same as a datastore, read by js-libp2p's rule and not by ours.
fn as_js_reads(root: &Path) -> MemoryDatastore {
    let memory = MemoryDatastore::default();
    for (path, value) in js_sees(root) {
        let key = format!("/{}", path.to_str().unwrap());
        block_on(memory.put(key.strip_suffix(".data").unwrap(), value)).unwrap();
    }
    memory
}

fn file_of(key: &str) -> PathBuf {
    PathBuf::from(format!("{}.data", &key[1..]))
}

#[test]
fn a_folder_of_js_libp2p_loads_whole_and_is_not_touched() {
    let folder = copy();
    let before = js_sees(folder.path());
    for portable in [false, true, false] {
        let datastore = match portable {
            true => FsDatastore::open_portable(folder.path()),
            false => FsDatastore::open(folder.path()),
        };
        let mut hand = Hand::default();
        let store = hand.open(datastore.unwrap());
        let mut report = LoadReport::default();
        (report.peers, report.entries) = (24, before.len());
        assert_eq!(store.load_report(), report);
        assert_holds(&store, &expected());
        hand.shutdown(store);
        assert_eq!(js_sees(folder.path()), before);
    }
}

#[test]
fn what_changed_is_written_and_all_else_stays_byte_for_byte() {
    let folder = copy();
    let before = js_sees(folder.path());
    let peers = expected();
    let mut hand = Hand::default();
    let store = hand.open(FsDatastore::open(folder.path()).unwrap());

    // One peer of each kind of change.
    let with_metadata: Vec<_> = peers
        .iter()
        .filter(|peer| peer.metadata.len() > 2)
        .collect();
    let (more, fewer, gone) = (with_metadata[0], with_metadata[1], with_metadata[2]);
    assert!(store.addresses().add(more.id, [addr(7)]).changed);
    store.metadata().set(more.id, "note/of ours", "x").unwrap();
    store.metadata().set(more.id, "a/../b", "odd").unwrap();
    assert!(store.protocols().set(fewer.id, ["/only/1"]).changed);
    assert!(store.metadata().delete_value(&fewer.id, "AgentVersion"));
    assert!(store.delete(&gone.id));
    let new = libp2p::PeerId::random();
    store.addresses().add(new, [addr(8)]);
    hand.shutdown(store);

    let after = js_sees(folder.path());
    let changed: Vec<&PathBuf> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    let mut expected_changes = vec![
        file_of(&addrs_key(&more.id)),
        file_of(&metadata_key(&more.id, "note/of ours")),
        file_of(&protos_key(&fewer.id)),
        file_of(&metadata_key(&fewer.id, "AgentVersion")),
        file_of(&addrs_key(&new)),
    ];
    let of_gone = before
        .keys()
        .filter(|path| path.to_str().unwrap().contains(&gone.b32));
    expected_changes.extend(of_gone.cloned());
    let changed: std::collections::BTreeSet<_> = changed.into_iter().cloned().collect();
    assert_eq!(changed, expected_changes.into_iter().collect());
    assert!(
        !after
            .keys()
            .any(|path| path.to_str().unwrap().contains(&gone.b32))
    );
    assert!(
        !folder
            .path()
            .join("peers/metadata")
            .join(&gone.b32)
            .exists()
    );

    // js-libp2p finds all other peers as they were.
    let js = as_js_reads(folder.path());
    for peer in [more, fewer] {
        for (key, _) in js.entries() {
            if key.contains(&peer.b32) {
                block_on(js.delete(&key)).unwrap();
            }
        }
    }
    block_on(js.delete(&addrs_key(&new))).unwrap();
    let ours = [more, fewer, gone].map(|peer| peer.id);
    let left = expected()
        .into_iter()
        .filter(|peer| !ours.contains(&peer.id));
    assert_js_reads(&js, &left.collect::<Vec<_>>());

    // And this crate its own changes.
    let store = hand.open(FsDatastore::open(folder.path()).unwrap());
    assert_eq!((store.len(), store.load_report().foreign), (24, 0));
    let odd = store.metadata().get_value(&more.id, "a/../b");
    assert_eq!(odd.unwrap(), b"odd");
}

#[test]
fn a_folder_goes_to_redb_and_back_without_a_change() {
    let folder = copy();
    let others = tempfile::tempdir().unwrap();
    let fs = FsDatastore::open(folder.path()).unwrap();
    let redb = RedbDatastore::open(others.path().join("peers.redb")).unwrap();
    let back = FsDatastore::open(others.path().join("back")).unwrap();
    let options = MigrationOptions::default();
    let there = block_on(migrate(&fs, &redb, &options, |_| {})).unwrap();
    assert_eq!((there.peers, there.foreign, there.undecodable), (24, 0, 0));
    block_on(migrate(&redb, &back, &options, |_| {})).unwrap();
    assert_eq!(js_sees(&others.path().join("back")), js_sees(folder.path()));
    let store = PeerStore::open(libp2p::PeerId::random(), redb, Config::default());
    assert_holds(&block_on(store).unwrap(), &expected());
}
