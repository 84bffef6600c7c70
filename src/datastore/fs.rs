//! A folder of files in the layout of js-libp2p: one file per key.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use parking_lot::Mutex;

use super::{Batch, Datastore, DatastoreError, KeyValue};

mod folder;
mod journal;
pub(crate) mod name;
mod reading;
#[cfg(test)]
mod tests;
mod trouble;
mod walk;

use folder::{Folder, Found, Listing, find, make_folder, private};
use journal::Operations;
use name::{Names, Place, SERVICE};
use trouble::Trouble;
use walk::Walk;

/// Notes that files stand where portable names put them.
const PORTABLE: &str = "portable";

/// A [`Datastore`] in a folder of files, in the layout of js-libp2p's `datastore-fs`: the value of `/a/b` is the
/// content of `a/b.data`. A folder that a js-libp2p node wrote can be opened, used, and given back.
///
/// It is slower than [`RedbDatastore`](crate::RedbDatastore) and takes more room (a block of the file system per
/// key). Choose it to share a folder with js-libp2p, or where files that anybody can look at are worth that.
///
/// # What a commit promises
///
/// - A file is never written to in place: a new one is written aside, synced, and renamed over the old one, and its
///   folder synced. Whoever looks sees the old value or the new one.
/// - A commit of several keys is first written to a journal, synced. From then on it is whole for all that read
///   through this datastore, also after a crash of the process or the machine: the next call of
///   [`FsDatastore::open`] finishes it. Across peers a commit is atomic too.
/// - When a commit fails with its journal written (a disk that became full in its midst), the error is returned,
///   readers see the commit as done, and each later commit, [`Datastore::close`] and the next [`FsDatastore::open`] try to
///   finish it first.
/// - Other programs see a commit file by file. After a crash, open and close the folder once before a js-libp2p
///   node gets it; else it may find half a commit, and a later [`FsDatastore::open`] would write the other half over
///   what the node has written since.
/// - When the disk is full, deleting needs room for the journal as well.
/// - On Linux a commit of more than 32 keys syncs the whole file system twice instead of each file.
///
/// # Keys and files
///
/// Keys become paths; none can leave the folder, and no two can meet:
///
/// - What cannot be a path stands in a file that is named by the SHA-256 hash of its key, with the ending `.keyed`,
///   in the deepest folder that the key's leading parts can name. Such a file begins with the length of its key (8
///   bytes, big-endian) and the key. That applies to keys with an empty part, `.` or `..` as a folder, a zero byte,
///   no slash at the beginning, a folder that ends in `.data` or `.keyed` (files may: `/b.data` stands in
///   `b.data.data`), a part of more than 255 bytes with its ending, or folders of more than 512 bytes in all. js-libp2p
///   does not see them. (It would write some of them to the path of another key, or outside of its folder.)
/// - Names that begin with a dot are names like others, as in js-libp2p.
/// - Where the file system does not keep all names apart (capitals and small letters, forms of an accent; Windows
///   always), a part other than `AgentVersion` and `ProtocolVersion` that has anything but `a`–`z`, `0`–`9` and
///   `-_.+=@,`, ends with a dot or is the name of a Windows device stands in such a file too. That is found out at
///   [`FsDatastore::open`], which then moves what js-libp2p wrote under other names; [`FsDatastore::open_portable`]
///   asks for it. Where both are there, js-libp2p's is the newer one and stays. It is moved back when the folder is
///   opened where names are exact. One kind of file system is expected in the whole folder.
/// - A file that is not where its key belongs, one with another ending, and a name that is not Unicode are not read and
///   not touched.
/// - A symbolic link where a value or a folder should be is an error and not followed. The folder itself may be one.
///
/// Folders that deleting leaves empty are removed.
///
/// # One owner
///
/// The folder `.libp2p-peerstore` in it holds a lock, the journal, and files that are being written; what a crash
/// leaves of those is removed at the next [`FsDatastore::open`]. The lock keeps out other processes and stores that
/// use this type. js-libp2p neither takes nor honours locks: never run both on one folder.
///
/// New files and folders can be read by their owner only, also where the old file was open to others. What
/// js-libp2p made and nobody has changed stays as it is.
///
/// # Memory and time
///
/// A query holds the names of the folders that it is in, and one value. Calls block while the disk works.
/// [`FsDatastore::open`] looks at the names of all files only where names are, or were, portable.
///
/// ```
/// use libp2p_peerstore::{Config, FsDatastore, PeerStore};
///
/// # async fn example(local_peer_id: libp2p_identity::PeerId, folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
/// // The folder that js-libp2p's `new DatastoreFs(folder)` was given.
/// let store = PeerStore::open(local_peer_id, FsDatastore::open(folder)?, Config::default()).await?;
/// println!("{:?}", store.load_report());
/// store.shutdown().await?;
/// # Ok(()) }
/// # let folder = tempfile::tempdir()?;
/// # futures::executor::block_on(example(libp2p_identity::PeerId::random(), folder.path()))?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FsDatastore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// As the user spelt it.
    path: PathBuf,
    folder: Folder,
    /// Held by a commit, and while a folder is listed: a file system may show a file that is replaced meanwhile
    /// twice, or not at all.
    writing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hold: Hold,
    /// What stands in the journal: readers see it as done.
    unfinished: Arc<Operations>,
}

/// The locked file.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn alone(file: File) -> Result<Self, TryLockError> {
        file.try_lock().map(|()| Self(file))
    }

    fn shared(file: File) -> Result<Self, TryLockError> {
        file.try_lock_shared().map(|()| Self(file))
    }
}

impl Drop for Lock {
    /// Closing alone does not do it while a process that was forked meanwhile, to become another program, has the file too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// How the folder is held.
#[derive(Debug)]
enum Hold {
    /// By the lock on this file, alone.
    Owner {
        _lock: Lock,
    },
    /// To be read, together with others; without a lock where there is no file for one.
    Reader {
        _lock: Option<Lock>,
    },
    Closed,
}

impl FsDatastore {
    /// Opens the folder at `path`, or creates it, in a folder that exists.
    ///
    /// Blocks while it finishes what a crash has left.
    ///
    /// # Errors
    ///
    /// [`DatastoreError::Locked`] when another process or store holds the folder, [`DatastoreError::Open`] when it is
    /// a file, may not be written, lies on a file system without locks, or holds a damaged journal.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DatastoreError> {
        Self::open_with(path.as_ref(), false)
    }

    /// As [`FsDatastore::open`], with portable names wherever the folder is: it can be copied to any file system.
    ///
    /// # Errors
    ///
    /// As [`FsDatastore::open`].
    pub fn open_portable(path: impl AsRef<Path>) -> Result<Self, DatastoreError> {
        Self::open_with(path.as_ref(), true)
    }

    /// The folder, as it was spelt when it was opened.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn open_with(path: &Path, portable: bool) -> Result<Self, DatastoreError> {
        let refused = |hint, source: io::Error| DatastoreError::Open {
            location: path.display().to_string(),
            hint,
            source: source.into(),
        };
        let made = match make_folder(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                return Err(refused(
                    open_hint(&error, "the folder cannot be made"),
                    error,
                ));
            }
        };
        // What the path leads to now counts, whatever becomes of the working directory or of a link.
        let root = path
            .canonicalize()
            .map_err(|error| refused(open_hint(&error, "the folder cannot be read"), error))?;
        match make_folder(&root.join(SERVICE)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused(
                    open_hint(&error, "the folder cannot be written"),
                    error,
                ));
            }
            _ => {}
        }
        let mut folder = Folder {
            root,
            names: Names::Exact,
            #[cfg(test)]
            fault: tests::Fault::default(),
        };
        let lock = private()
            .truncate(false)
            .open(folder.service("lock"))
            .map_err(|error| refused(open_hint(&error, "its lock cannot be opened"), error))?;
        // Held by what unlocks from here on, so that an opening that fails below lets the folder go, too.
        let lock = match Lock::alone(lock) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => {
                return Err(DatastoreError::Locked {
                    location: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(error)) => {
                let hint = "its file system has no locks; choose a folder on another one";
                return Err(refused(hint, error));
            }
        };
        let unfinished = prepare(&mut folder, made, portable).map_err(|trouble| DatastoreError::Open {
            location: path.display().to_string(),
            hint: "what was left in it cannot be put in order; the cause names the file and what to do",
            source: trouble.into(),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                folder,
                writing: Mutex::default(),
                state: Mutex::new(State {
                    hold: Hold::Owner { _lock: lock },
                    unfinished: Arc::new(unfinished),
                }),
            }),
        })
    }
}

fn open_hint(error: &io::Error, other: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "the folder above it, or what it links to, does not exist; create that first"
        }
        io::ErrorKind::NotADirectory => "it is a file, or leads through one; name a folder",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "it cannot be read and written; check who owns it, and whether the disk is read-only"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "there is no space left; make some"
        }
        _ => other,
    }
}

/// Puts in order what the last owner has left. Returns what it could not finish.
fn prepare(folder: &mut Folder, made: bool, portable: bool) -> Result<Operations, Trouble> {
    let service = folder.root.join(SERVICE);
    if !matches!(find(&service)?, Found::Folder) {
        return Err(Trouble::of(&service, "not a folder; move it away"));
    }
    if let Some(above) = folder.root.parent().filter(|_| made) {
        folder.sync_folder(above)?;
    }
    folder.sync_folder(&folder.root)?;
    folder.remove_temporary()?;
    let marker = folder.service(PORTABLE);
    let was_portable = marker.exists();
    let names = match portable {
        true => Names::Portable,
        false => folder.probe(),
    };
    // A commit is finished as it was begun.
    folder.names = if was_portable { Names::Portable } else { names };
    let mut unfinished = Operations::new();
    if let Some(content) = folder.read_journal()? {
        let damaged =
            "damaged; without it the last commit may be there in part; remove it to go on";
        let operations = journal::decode(&content)
            .ok_or_else(|| Trouble::of(&folder.service("journal"), damaged))?;
        tracing::info!(
            keys = operations.len(),
            "finishing a commit that was cut short"
        );
        match folder
            .apply(&operations)
            .and_then(|()| folder.remove_journal())
        {
            Ok(()) => {}
            // Readers see it as done, and the next commit tries again: a full disk is no reason not to start.
            Err(trouble) if folder.names == names => {
                tracing::warn!(
                    error = &trouble as &dyn std::error::Error,
                    "could not finish a commit that was cut short"
                );
                unfinished = operations;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    folder.names = names;
    if names == Names::Portable {
        private()
            .open(&marker)
            .and_then(|marker| marker.sync_all())
            .map_err(|error| Trouble::io(&marker, error))?;
    }
    if was_portable || names == Names::Portable {
        move_all(folder)?;
    }
    if was_portable && names == Names::Exact {
        std::fs::remove_file(&marker).map_err(|error| Trouble::io(&marker, error))?;
    }
    Ok(unfinished)
}

/// Moves every file to where the names of now put its key. Where both are there, the one that js-libp2p sees stays:
/// nobody else can have written it since the last move.
fn move_all(folder: &Folder) -> Result<(), Trouble> {
    let mut above = vec![String::new()];
    while let Some(path) = above.pop() {
        // All that js-libp2p may have made, not only what is a portable name.
        let Listing { folders, files } = folder.list(Names::Exact, &path)?;
        above.extend(folders.into_iter().map(|name| format!("{path}/{name}")));
        for file in files {
            let place = Place::found(&path, file);
            let Some((key, value)) = folder.entry(&place)? else {
                continue;
            };
            let belongs = |names: Names| names.place(&key) == place;
            if belongs(folder.names) || !(belongs(Names::Exact) || belongs(Names::Portable)) {
                continue;
            }
            let stays = place.keyed && folder.get(&key)?.is_some();
            tracing::debug!(
                key,
                "moving an entry to where this file system keeps it apart"
            );
            folder.move_entry(&key, (!stays).then_some(value), &place)?;
        }
    }
    Ok(())
}

impl Shared {
    fn is_read_only(&self) -> bool {
        matches!(self.state.lock().hold, Hold::Reader { .. })
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, operation: &'static str, trouble: Trouble) -> DatastoreError {
        DatastoreError::failed(operation, self.location(), trouble)
    }

    /// What stands in the journal, if the datastore is open.
    fn unfinished(&self, operation: &'static str) -> Result<Arc<Operations>, DatastoreError> {
        let state = self.state.lock();
        match state.hold {
            Hold::Owner { .. } | Hold::Reader { .. } => Ok(state.unfinished.clone()),
            Hold::Closed => Err(DatastoreError::Closed {
                operation,
                location: self.location(),
            }),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, DatastoreError> {
        if let Some(value) = self.unfinished("read")?.get(key) {
            return Ok(value.clone());
        }
        self.folder
            .get(key)
            .map_err(|trouble| self.failed("read", trouble))
    }

    fn commit(&self, batch: Batch) -> Result<(), DatastoreError> {
        let _writing = self.writing.lock();
        let unfinished = self.unfinished("commit")?;
        if self.is_read_only() {
            let source = "it was opened to be read only";
            return Err(DatastoreError::failed("commit", self.location(), source));
        }
        self.write(&unfinished, batch)
            .map_err(|trouble| self.failed("commit", trouble))
    }

    fn write(&self, unfinished: &Arc<Operations>, batch: Batch) -> Result<(), Trouble> {
        let mut operations = Operations::clone(unfinished);
        operations.extend(batch);
        if operations.is_empty() {
            return Ok(());
        }
        if operations.len() == 1 && unfinished.is_empty() {
            // A rename is whole or not at all by itself.
            return self.folder.apply(&operations);
        }
        let written = match operations == **unfinished {
            // It stands there.
            true => Ok(()),
            false => self.folder.write_journal(&journal::encode(&operations)),
        };
        // If it was renamed and not synced, it may be there after a crash: then it counts from now on.
        let in_doubt = written.is_err() && unfinished.is_empty() && self.folder.has_journal();
        let operations = Arc::new(operations);
        if written.is_ok() || in_doubt {
            self.state.lock().unfinished = operations.clone();
        }
        written?;
        self.folder.apply(&operations)?;
        self.folder.remove_journal()?;
        self.state.lock().unfinished = Arc::default();
        Ok(())
    }

    fn close(&self) -> Result<(), DatastoreError> {
        let _writing = self.writing.lock();
        let finished = match self.unfinished("close") {
            Ok(_) if self.is_read_only() => Ok(()),
            Ok(unfinished) => self.write(&unfinished, Batch::default()),
            // Closed before.
            Err(_) => return Ok(()),
        };
        self.state.lock().hold = Hold::Closed;
        finished.map_err(|trouble| self.failed("close", trouble))
    }
}

impl Datastore for FsDatastore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, DatastoreError>> {
        async move { self.shared.get(key) }.boxed()
    }

    fn query<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<KeyValue, DatastoreError>> {
        let walk = Walk::new(&self.shared, prefix);
        stream::unfold(Some(walk), |walk| async {
            let mut walk = walk?;
            match walk.next() {
                Ok(Some(entry)) => Some((Ok(entry), Some(walk))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move { self.shared.commit(batch) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move { self.shared.close() }.boxed()
    }

    fn location(&self) -> String {
        self.shared.location()
    }
}
