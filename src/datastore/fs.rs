//! A folder of files in the layout of js-libp2p: one file per key.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use parking_lot::Mutex;

use super::{Batch, Datastore, DatastoreError, KeyValue};

mod folder;
mod journal;
mod lost;
pub(crate) mod name;
mod opening;
mod reading;
#[cfg(test)]
mod tests;
mod trouble;
mod walk;

use folder::Folder;
use journal::Operations;
use lost::Trace;
use name::Names;
use opening::{make_root, open_hint, refused};
use trouble::Trouble;
use walk::Walk;

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
/// - When a commit fails with its journal written (a disk that became full in its midst, a folder where a file belongs),
///   the error is returned and names the file, readers see the commit as done, and each later commit, [`Datastore::close`] and
///   the next [`FsDatastore::open`] try to finish it first. As long as they cannot, no other commit is begun: each fails
///   with the same error and leaves nothing behind.
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
/// When that folder is removed or replaced while it is in use, alone or with all that is around it, the next commit
/// notices. It takes hold of what is there now, makes it where nothing is, and fails with [`DatastoreError::Lost`];
/// the store then writes everything that it holds. What stands in there of other peers is left. (Elsewhere than on Unix
/// it is noticed when the folder is gone.) Where a disk was unmounted none is made. That single files were removed is not noticed.
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
#[derive(Debug)]
pub struct FsDatastore {
    shared: Arc<Shared>,
    /// The losses that this handle has told of.
    told: AtomicU64,
}

impl Clone for FsDatastore {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            told: AtomicU64::new(self.told.load(Ordering::Relaxed)),
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// As the user spelt it.
    path: PathBuf,
    /// Whether portable names were asked for.
    portable: bool,
    /// Held by a commit, and while a folder is listed: a file system may show a file that is replaced meanwhile
    /// twice, or not at all.
    writing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hold: Hold,
    /// Exchanged when another folder is in its place.
    folder: Arc<Folder>,
    /// What stands in the journal: readers see it as done.
    unfinished: Arc<Operations>,
    /// Whether the journal may be gone after a power cut.
    in_doubt: bool,
    /// How often what was committed turned out to be gone.
    losses: u64,
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
        trace: Trace,
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
        let made = make_root(path, path)?;
        // What the path leads to now counts, whatever becomes of the working directory or of a link.
        let root = path.canonicalize().map_err(|error| {
            refused(path, open_hint(&error, "the folder cannot be read"), error)
        })?;
        let folder = Folder {
            root,
            names: Names::Exact,
            #[cfg(test)]
            fault: tests::Fault::default(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                portable,
                writing: Mutex::default(),
                state: Mutex::new(State::take(path, folder, made, portable)?),
            }),
            told: AtomicU64::new(0),
        })
    }

    /// Fails once, through each handle, after what was committed turned out to be gone.
    fn tell_of_losses(&self) -> Result<(), DatastoreError> {
        let losses = self.shared.state.lock().losses;
        if self.told.swap(losses, Ordering::Relaxed) == losses {
            Ok(())
        } else {
            Err(self.shared.lost())
        }
    }

    fn apply(&self, batch: Batch) -> Result<(), DatastoreError> {
        let shared = &*self.shared;
        let _writing = shared.writing.lock();
        shared.now("commit")?;
        if shared.is_read_only() {
            let source = "it was opened to be read only";
            return Err(DatastoreError::failed("commit", shared.location(), source));
        }
        shared.look_at_the_folder()?;
        self.tell_of_losses()?;
        let written = shared.write(batch);
        written.map_err(|trouble| shared.failed("commit", trouble))?;
        // It may have gone into a folder that no path leads to any longer.
        shared.look_at_the_folder()?;
        self.tell_of_losses()
    }
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

    fn folder(&self) -> Arc<Folder> {
        self.state.lock().folder.clone()
    }

    /// Where the files are, what stands in the journal, and the losses so far, if the datastore is open.
    fn now(
        &self,
        operation: &'static str,
    ) -> Result<(Arc<Folder>, Arc<Operations>, u64), DatastoreError> {
        let state = self.state.lock();
        match state.hold {
            Hold::Owner { .. } | Hold::Reader { .. } => {
                Ok((state.folder.clone(), state.unfinished.clone(), state.losses))
            }
            Hold::Closed => Err(DatastoreError::Closed {
                operation,
                location: self.location(),
            }),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, DatastoreError> {
        let (folder, unfinished, _) = self.now("read")?;
        if let Some(value) = unfinished.get(key) {
            return Ok(value.clone());
        }
        folder
            .get(key)
            .map_err(|trouble| self.failed("read", trouble))
    }

    fn write(&self, batch: Batch) -> Result<(), Trouble> {
        let folder = self.folder();
        self.finish(&folder)?;
        let operations: Operations = batch.into_iter().collect();
        match operations.len() {
            0 => return Ok(()),
            // A rename is whole or not at all by itself.
            1 => return folder.apply(&operations),
            _ => {}
        }
        let written = folder.write_journal(&journal::encode(&operations));
        // If it was renamed and not synced, it may be there after a crash: it counts from now on.
        if written.is_ok() || folder.has_journal() {
            let mut state = self.state.lock();
            (state.unfinished, state.in_doubt) = (Arc::new(operations), written.is_err());
        }
        written?;
        self.finish(&folder)
    }

    /// Does what stands in the journal. As long as that fails nothing is added to it, or it would grow with every
    /// commit: whoever commits keeps what is unsaved.
    fn finish(&self, folder: &Folder) -> Result<(), Trouble> {
        let (unfinished, in_doubt) = {
            let state = self.state.lock();
            (state.unfinished.clone(), state.in_doubt)
        };
        if unfinished.is_empty() {
            return Ok(());
        }
        if in_doubt {
            folder.write_journal(&journal::encode(&unfinished))?;
            self.state.lock().in_doubt = false;
        }
        folder.apply(&unfinished)?;
        folder.remove_journal()?;
        self.state.lock().unfinished = Arc::default();
        Ok(())
    }

    fn close(&self) -> Result<(), DatastoreError> {
        let _writing = self.writing.lock();
        let finished = match self.now("close") {
            Ok(_) if self.is_read_only() => Ok(()),
            Ok((_, unfinished, _)) if unfinished.is_empty() => Ok(()),
            // It is not to be done to a folder of others.
            Ok(_) if !self.is_ours() => Err(self.lost()),
            Ok((folder, ..)) => {
                let finished = self.finish(&folder);
                finished.map_err(|trouble| self.failed("close", trouble))
            }
            // Closed before.
            Err(_) => return Ok(()),
        };
        self.state.lock().hold = Hold::Closed;
        finished
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
        async move { self.apply(batch) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DatastoreError>> {
        async move { self.shared.close() }.boxed()
    }

    fn location(&self) -> String {
        self.shared.location()
    }
}
