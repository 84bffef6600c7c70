//! Write your own datastore: all peers in one text file, which an editor can open.
//!
//! ```text
//! cargo run --features testing --example own_datastore
//! ```
//!
//! You will see the file with one peer in it, the peer loaded from it again, and the conformance suite of this crate pass. It
//! suits a few hundred peers: each commit writes the whole file. A folder in the system's temporary folder is used, and removed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use data_encoding::HEXLOWER;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use libp2p::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, PeerStore, testing::Conformance,
};

#[allow(dead_code)]
#[path = "shared/text.rs"]
mod text;

use text::chain;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
type Entries = BTreeMap<String, Vec<u8>>;

// --- What you write ------------------------------------------------------------------------------------------

/// A line for each entry: the key as a string of JSON, a space, the value in hexadecimal.
struct TextFile {
    path: PathBuf,
    /// What is in the file.
    entries: Mutex<Entries>,
}

impl TextFile {
    fn open(path: &Path) -> Result<Self, DatastoreError> {
        // An error says what was tried, where, and what the system said.
        let failed = |error| DatastoreError::failed("open", path.display().to_string(), error);
        let entries = match fs::read_to_string(path) {
            Ok(text) => parse(&text).ok_or_else(|| failed(invalid("a line is no entry")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Entries::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            entries: Mutex::new(entries),
        })
    }

    /// The next entry with this prefix behind a key: a query holds one at a time, however many there are.
    fn next(&self, prefix: &str, behind: Option<&str>) -> Option<KeyValue> {
        let entries = self.entries();
        let mut rest = entries
            .range(behind.unwrap_or(prefix).to_owned()..)
            .skip_while(|(key, _)| Some(key.as_str()) == behind);
        let (key, value) = rest.next().filter(|(key, _)| key.starts_with(prefix))?;
        Some((key.clone(), value.clone()))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // What is in there was whole before a panic too: it is exchanged as a whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Beside the file first, synced, and then in its place: a crash leaves the old one or the new one.
    fn write(&self, entries: &Entries) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        for (key, value) in entries {
            let key = serde_json::to_string(key)?;
            writeln!(file, "{key} {}", HEXLOWER.encode(value))?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // The new name is in the folder only once that is synced.
        File::open(folder)?.sync_all()
    }
}

impl Datastore for TextFile {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move { Ok(self.entries().get(key).cloned()) }.boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        stream::unfold(None, move |last: Option<String>| async move {
            let entry = self.next(prefix, last.as_deref())?;
            let key = entry.0.clone();
            Some((Ok(entry), Some(key)))
        })
        .boxed()
    }

    /// All of the batch or nothing, and durable when it returns. The store calls this on a thread where waiting for a
    /// disk disturbs nobody.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move {
            let mut entries = self.entries();
            let mut changed = entries.clone();
            for (key, value) in batch {
                match value {
                    Some(value) => changed.insert(key, value),
                    None => changed.remove(&key),
                };
            }
            let place = self.path.display().to_string();
            self.write(&changed)
                .map_err(|error| DatastoreError::failed("commit", place, error))?;
            *entries = changed;
            Ok(())
        }
        .boxed()
    }
}

fn parse(text: &str) -> Option<Entries> {
    let entry = |line: &str| {
        let (key, value) = line.rsplit_once(' ')?;
        let value = HEXLOWER.decode(value.as_bytes()).ok()?;
        Some((serde_json::from_str(key).ok()?, value))
    };
    text.lines().map(entry).collect()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

// --- The story -----------------------------------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match story().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own_datastore: failed: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("peers.txt");
    let (node, friend) = (PeerId::random(), PeerId::random());

    let store = PeerStore::open(node, TextFile::open(&file)?, Config::default()).await?;
    store
        .addresses()
        .add(friend, ["/ip4/192.0.2.1/tcp/4001".parse()?]);
    store.protocols().add(friend, ["/chat/1.0.0"]);
    store.shutdown().await?;
    print!("{}", fs::read_to_string(&file)?);

    let store = PeerStore::open(node, TextFile::open(&file)?, Config::default()).await?;
    println!("loaded: {:?}", store.peer_ids());
    store.shutdown().await?;

    // All rules of the trait, with a new file for each of them, and some again after the file was closed and opened. In your
    // crate this is a test.
    let files = AtomicUsize::new(0);
    let new_file = || {
        let number = files.fetch_add(1, Ordering::Relaxed);
        let opened = TextFile::open(&folder.path().join(format!("{number}.txt")));
        async { opened.expect("a new file can be opened") }
    };
    let report = Conformance::new(new_file)
        .with_reopen(|closed: TextFile| async move {
            TextFile::open(&closed.path).expect("what was written can be opened")
        })
        .run()
        .await;
    report.assert();
    println!("own_datastore: ok, the suite passed");
    Ok(())
}
