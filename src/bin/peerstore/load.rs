//! A store that is loaded from a datastore and never writes to it.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use indicatif::ProgressBar;
use libp2p_identity::PeerId;
use libp2p_peerstore::{
    Batch, Config, Datastore, DatastoreError, KeyValue, LoadReport, MemoryDatastore, OpenError,
    PeerStore, tool,
};

use crate::{failure::Failure, progress::Progress, target::Target};

/// Longer than any store has been in use.
const FOR_EVER: Duration = Duration::from_secs(50 * 365 * 24 * 60 * 60);

/// What is to be seen of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum See {
    /// What a node would, that starts now.
    Alive,
    /// Also what has expired.
    Everything,
}

/// A store in memory, and the datastore that it was loaded from, which is still open.
pub struct Loaded {
    pub store: PeerStore,
    pub datastore: Arc<dyn Datastore>,
    too_large: usize,
}

impl Loaded {
    pub async fn open(target: &Target, see: See) -> Result<Self, Failure> {
        let progress = Progress::counting("loading", "entries");
        let datastore = target.open_to_read().await?;
        let loaded = load(&datastore, see, progress.handle()).await;
        let (store, too_large) = loaded.map_err(|error| of_loading(target, error))?;
        Ok(Self {
            store,
            datastore,
            too_large,
        })
    }

    /// The same store again, to see more or less of it.
    pub async fn again(&self, target: &Target, see: See) -> Result<PeerStore, Failure> {
        let progress = Progress::counting("loading", "entries");
        let loaded = load(&self.datastore, see, progress.handle()).await;
        let loaded = loaded.map_err(|error| of_loading(target, error))?;
        Ok(loaded.0)
    }

    pub fn report(&self) -> LoadReport {
        let mut report = self.store.load_report();
        report.entries += self.too_large;
        report.undecodable += self.too_large;
        report
    }

    /// Lets go of the datastore, which what follows does not need: a node, or the next command of a pipe, may want it.
    pub async fn release(self) -> PeerStore {
        // Nothing is lost when a connection does not end in order.
        let _ = self.datastore.close().await;
        self.store
    }
}

/// A store of these entries alone.
pub async fn of_entries(entries: Vec<KeyValue>, see: See) -> Result<PeerStore, OpenError> {
    let memory = MemoryDatastore::default();
    let mut batch = Batch::default();
    for (key, value) in entries {
        batch.put(key, value);
    }
    memory.commit(batch).await.map_err(OpenError::Load)?;
    let memory: Arc<dyn Datastore> = Arc::new(memory);
    let loaded = load(&memory, see, ProgressBar::hidden()).await;
    loaded.map(|(store, _)| store)
}

/// A store, and how many values were too large for it.
async fn load(
    datastore: &Arc<dyn Datastore>,
    see: See,
    progress: ProgressBar,
) -> Result<(PeerStore, usize), OpenError> {
    let is_loaded = Arc::new(AtomicBool::new(false));
    let too_large = Arc::new(AtomicUsize::new(0));
    let unwritten = Unwritten {
        datastore: datastore.clone(),
        progress,
        is_loaded: is_loaded.clone(),
        too_large: too_large.clone(),
    };
    // Whose store it is, it does not say. Nobody has this id.
    let store = PeerStore::open(PeerId::random(), unwritten, config(see)).await;
    is_loaded.store(true, Ordering::Relaxed);
    Ok((store?, too_large.load(Ordering::Relaxed)))
}

fn of_loading(target: &Target, error: OpenError) -> Failure {
    match &error {
        OpenError::Load(error) => Failure::of_store("cannot load the store", target, error),
        _ => Failure::new(format!("cannot load the store `{target}`"))
            .because(&error)
            .help("the system refuses a thread; end other programs"),
    }
}

/// Limits so wide that all is seen that stands in a value which a node reads. How large such a value may be is for
/// [`is_too_large`] to say: these limits together would allow for 800 MB.
fn config(see: See) -> Config {
    let most = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    let config = Config::default()
        .with_max_peers(NonZeroUsize::MAX)
        .with_max_addresses_per_peer(most(65_535))
        .with_max_address_len(most(4_096))
        .with_max_protocols_per_peer(most(65_536))
        .with_max_protocol_len(most(4_096))
        .with_max_metadata_per_peer(most(65_536))
        .with_max_metadata_key_len(most(4_096))
        .with_max_metadata_value_len(most(16 * 1_024 * 1_024))
        .with_max_tags_per_peer(most(4_096))
        .with_max_tag_name_len(most(4_096))
        .with_max_signed_record_len(most(1_024 * 1_024));
    match see {
        See::Alive => config,
        // What proves an address does not: else what is long gone would stand as proven.
        See::Everything => config
            .with_hearsay_lifetime(FOR_EVER)
            .with_max_hearsay_lifetime(FOR_EVER)
            .with_inbound_lifetime(FOR_EVER)
            .with_self_told_lifetime(FOR_EVER),
    }
}

/// A datastore that is read, and into which nothing goes: a store would delete what has expired.
struct Unwritten {
    datastore: Arc<dyn Datastore>,
    progress: ProgressBar,
    /// Then it seems to be empty: it may be closed, and the store looks for what it would delete.
    is_loaded: Arc<AtomicBool>,
    /// How many values were left out.
    too_large: Arc<AtomicUsize>,
}

/// Whether a node skips this value for its length, as `check` and `migrate` say.
fn is_too_large((key, value): &KeyValue) -> bool {
    let skips = |(peer, book)| tool::inspect(&peer, &book, value).undecodable.is_some();
    value.len() > tool::MAX_VALUE_LEN && tool::parse_key(key).is_some_and(skips)
}

impl Datastore for Unwritten {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        self.datastore.get(key)
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        if self.is_loaded.load(Ordering::Relaxed) {
            return stream::empty().boxed();
        }
        let entries = self.datastore.query(prefix);
        let entries = entries.filter(|entry| {
            self.progress.inc(1);
            let is_too_large = entry.as_ref().is_ok_and(is_too_large);
            self.too_large
                .fetch_add(usize::from(is_too_large), Ordering::Relaxed);
            future::ready(!is_too_large)
        });
        entries.boxed()
    }

    fn commit(&self, _: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        Box::pin(async { Ok(()) })
    }
}
