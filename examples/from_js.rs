//! Migrate from js-libp2p: the folder of a js node's peer store is opened as it is, and moved into one file.
//!
//! ```text
//! cargo run --features fs --example from_js                    # a folder that js-libp2p 0.30.13 wrote, from the tests
//! cargo run --features fs --example from_js -- FOLDER PEERS.redb
//! ```
//!
//! You will see how many peers and entries were moved, and a few of the peers as they are in the new file. The folder
//! stays as it is, but for a folder `.libp2p-peerstore` with a lock in it, which js-libp2p skips. Without arguments everything
//! happens to a copy in the system's temporary folder, which is removed.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use libp2p::PeerId;
use libp2p_peerstore::{
    Config, Datastore, FsDatastore, MigrationOptions, Order, PeerStore, RedbDatastore, migrate,
};

#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use text::{chain, plain, plain_list};

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/js-libp2p-0.30/store"
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("from_js: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let (folder, file) = match (args.next(), args.next()) {
        (Some(folder), Some(file)) => (folder, file),
        (None, None) => {
            let folder = temporary.path().join("store");
            copy(Path::new(FOLDER), &folder)?;
            (folder, temporary.path().join("peers.redb"))
        }
        _ => return Err("give a folder and a file, or nothing".into()),
    };
    if !folder.is_dir() {
        return Err(format!("there is no folder {}", folder.display()).into());
    }
    moved(&folder, &file).await?;

    // From here on it is a store like any other.
    let local_peer_id = PeerId::random();
    let datastore = RedbDatastore::open(&file)?;
    let store = PeerStore::open(local_peer_id, datastore, Config::default()).await?;
    for peer in store.query().order_by(Order::LastSeen).limit(3) {
        let addresses = peer.addresses.iter().map(|info| &info.address);
        println!("{}: {}", peer.id, plain_list(addresses));
        println!("    {}", plain(peer.agent_version().unwrap_or_default()));
    }
    let peers = store.len();
    store.shutdown().await?;
    println!("from_js: ok, {peers} peers");
    Ok(())
}

async fn moved(folder: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let (from, to) = (FsDatastore::open(folder)?, RedbDatastore::open(file)?);
    let report = migrate(&from, &to, &MigrationOptions::default(), |_| {}).await?;
    println!(
        "{} entries of {} peers moved, {} of them foreign",
        report.entries, report.peers, report.foreign
    );
    to.close().await?;
    Ok(from.close().await?)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => fs::copy(entry.path(), to).map(drop)?,
        }
    }
    Ok(())
}
