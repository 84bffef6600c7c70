//! A disk in memory below redb, with room for one database and its successor: it remembers what was written between
//! syncs, fails when told to, and loses power.

// Every test file uses its own part of this.
#![allow(dead_code)]

use std::{collections::HashMap, io, sync::Arc};

use libp2p_peerstore::{DatastoreError, RedbDatastore, RedbStorage};
use parking_lot::Mutex;
use redb::StorageBackend;

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: HashMap<usize, File>,
    /// The file that has the name.
    current: Option<usize>,
    /// The file that has the name after a power cut, for certain.
    named: Option<usize>,
    /// The file that is to have it when the folder is synced.
    renamed: Option<usize>,
    /// The file that is to get it.
    new: Option<usize>,
    installs: usize,
    noted: (usize, usize),
    history: Option<Vec<Moment>>,
    /// Counts writes, changes of the length, and syncs.
    count: usize,
    syncs: usize,
    failing: Failing,
    limit: Option<u64>,
}

#[derive(Debug, Default, Clone)]
struct File {
    /// What a read yields: the page cache.
    image: Vec<u8>,
    /// What is there after a power cut, for certain.
    durable: Arc<Vec<u8>>,
    /// What was done since the last sync that worked.
    unsynced: Vec<Write>,
}

#[derive(Debug, Clone)]
pub enum Write {
    Bytes(u64, Vec<u8>),
    Len(u64),
}

/// What a file that had the name, or may have it after a power cut, was when something was synced.
#[derive(Debug, Clone)]
pub struct Moment {
    pub durable: Arc<Vec<u8>>,
    pub unsynced: Vec<Write>,
    /// What [`Disk::note`] was told last.
    pub noted: (usize, usize),
}

/// Which operations fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failing {
    #[default]
    None,
    /// The nth from now on; then it works again.
    Once(usize),
    /// The nth from now on, and all after it.
    From(usize),
    /// The nth sync from now on, of a file or of the folder, and perhaps the mth behind that one; then it works again.
    Sync(usize, Option<usize>),
    /// All, as the disk is read-only.
    ReadOnly,
}

impl Disk {
    /// A disk with this database on it.
    pub fn with(content: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.0.lock();
            let file = File {
                durable: Arc::new(content.clone()),
                image: content,
                unsynced: Vec::new(),
            };
            state.files.insert(0, file);
            (state.current, state.named) = (Some(0), Some(0));
        }
        disk
    }

    /// Remembers the moment of every sync from now on.
    pub fn record(&self) {
        self.0.lock().history = Some(Vec::new());
    }

    /// The moments of all syncs since, and this one.
    pub fn take_history(&self) -> Vec<Moment> {
        let mut state = self.0.lock();
        state.remember();
        state.history.take().unwrap()
    }

    /// Whether a failure that was told has not come yet.
    pub fn is_to_fail(&self) -> bool {
        self.0.lock().failing != Failing::None
    }

    pub fn open(&self) -> Result<RedbDatastore, DatastoreError> {
        RedbDatastore::open_storage("disk", self.clone())
    }

    pub fn fail(&self, failing: Failing) {
        let mut state = self.0.lock();
        let now = state.count;
        state.failing = match failing {
            Failing::Once(n) => Failing::Once(now + n),
            Failing::From(n) => Failing::From(now + n),
            Failing::Sync(n, then) => Failing::Sync(state.syncs + n, then),
            other => other,
        };
    }

    /// It has room for no more bytes than this.
    pub fn limit(&self, bytes: Option<u64>) {
        self.0.lock().limit = bytes;
    }

    /// How long the database is.
    pub fn len(&self) -> u64 {
        let state = self.0.lock();
        state.files[&state.current.unwrap()].image.len() as u64
    }

    /// Writes, changes of the length and syncs so far.
    pub fn count(&self) -> usize {
        self.0.lock().count
    }

    /// How often a new database took the place of the one before.
    pub fn installs(&self) -> usize {
        self.0.lock().installs
    }

    /// Notes how many operations are promised, and how many were performed.
    pub fn note(&self, promised: usize, performed: usize) {
        self.0.lock().noted = (promised, performed);
    }

    /// What survives a power cut now, if nothing does that was not synced.
    pub fn durable(&self) -> Vec<u8> {
        let state = self.0.lock();
        let named = state.named.map(|named| &state.files[&named]);
        named.map_or_else(Vec::new, |file| file.durable.to_vec())
    }
}

impl State {
    /// Whichever file has the name after a power cut: a rename that was not synced may be on the disk.
    fn remember(&mut self) {
        let mut files = vec![self.named, self.current];
        files.dedup();
        let moments = files.into_iter().flatten().map(|file| Moment {
            durable: self.files[&file].durable.clone(),
            unsynced: self.files[&file].unsynced.clone(),
            noted: self.noted,
        });
        if let Some(history) = &mut self.history {
            history.extend(moments);
        }
    }

    /// Counts a sync; fails if it is its turn.
    fn sync(&mut self) -> io::Result<()> {
        self.remember();
        self.turn()?;
        let n = self.syncs;
        self.syncs += 1;
        match self.failing {
            Failing::Sync(at, then) if n == at => {
                self.failing = then.map_or(Failing::None, |then| Failing::Sync(n + 1 + then, None));
                Err(io::Error::other("the disk failed to sync"))
            }
            _ => Ok(()),
        }
    }

    /// Counts an operation; fails if it is its turn.
    fn turn(&mut self) -> io::Result<()> {
        let n = self.count;
        self.count += 1;
        match self.failing {
            Failing::Once(at) if n == at => {
                self.failing = Failing::None;
                Err(io::Error::other("the disk failed"))
            }
            Failing::From(at) if n >= at => Err(io::Error::other("the disk fails")),
            Failing::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            _ => Ok(()),
        }
    }
}

impl File {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.image);
        self.unsynced.push(write);
    }
}

impl Write {
    pub fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Write::Len(len) => image.resize(*len as usize, 0),
            Write::Bytes(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[start..end].copy_from_slice(bytes);
            }
        }
    }
}

/// What a disk holds after a power cut: of what was not synced, some writes came first, some never, some in part.
pub fn torn(moment: &Moment, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut image = moment.durable.to_vec();
    let mut writes: Vec<&Write> = moment.unsynced.iter().collect();
    random.shuffle(&mut writes);
    let share = random.u8(1..10);
    for write in writes {
        if random.u8(..10) >= share {
            continue;
        }
        match write {
            Write::Bytes(offset, bytes) if random.bool() => {
                // Any stretch of it, or some of its sectors.
                let (from, to) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
                let stretch = from.min(to)..from.max(to);
                if random.bool() {
                    let start = offset + stretch.start as u64;
                    Write::Bytes(start, bytes[stretch].to_vec()).apply(&mut image);
                } else {
                    for (n, sector) in bytes.chunks(512).enumerate().filter(|_| random.bool()) {
                        let start = offset + 512 * n as u64;
                        Write::Bytes(start, sector.to_vec()).apply(&mut image);
                    }
                }
            }
            write => write.apply(&mut image),
        }
    }
    image
}

/// What is there after all that was not synced was written, too.
pub fn complete(moment: &Moment) -> Vec<u8> {
    let mut image = moment.durable.to_vec();
    moment
        .unsynced
        .iter()
        .for_each(|write| write.apply(&mut image));
    image
}

/// An open file.
#[derive(Debug)]
pub struct Handle {
    disk: Disk,
    file: usize,
}

impl RedbStorage for Disk {
    type Backend = Handle;

    fn open(&self) -> io::Result<Handle> {
        let file = self.0.lock().current.ok_or(io::ErrorKind::NotFound)?;
        let disk = self.clone();
        Ok(Handle { disk, file })
    }

    fn create(&self) -> io::Result<Handle> {
        let mut state = self.0.lock();
        state.turn()?;
        let file = state.files.len();
        state.files.insert(file, File::default());
        state.new = Some(file);
        let disk = self.clone();
        Ok(Handle { disk, file })
    }

    fn copy(&self) -> io::Result<Handle> {
        let copy = self.create()?;
        let image = {
            let state = self.0.lock();
            let current = state.current.ok_or(io::ErrorKind::NotFound)?;
            state.files[&current].image.clone()
        };
        copy.write(0, &image)?;
        Ok(copy)
    }

    fn install(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.turn()?;
        state.current = state.new.take();
        state.renamed = state.current;
        state.installs += 1;
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let synced = state.sync();
        // As with the content of a file.
        let renamed = state.renamed.take();
        synced?;
        state.named = renamed.or(state.named);
        Ok(())
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[&self.file].image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.0.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len());
        let bytes = end.and_then(|end| state.files[&self.file].image.get(start..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.turn()?;
        if state.limit.is_some_and(|limit| len > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state
            .files
            .get_mut(&self.file)
            .unwrap()
            .write(Write::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let synced = state.sync();
        let file = state.files.get_mut(&self.file).unwrap();
        // Linux takes for written what it could not write: reads still see it, and the next sync says nothing of it.
        let unsynced = std::mem::take(&mut file.unsynced);
        synced?;
        let durable = Arc::make_mut(&mut file.durable);
        unsynced.iter().for_each(|write| write.apply(durable));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let turn = state.turn();
        // One that fails may have written a part.
        let data = if turn.is_err() {
            &data[..data.len() / 3]
        } else {
            data
        };
        let file = state.files.get_mut(&self.file).unwrap();
        file.write(Write::Bytes(offset, data.to_vec()));
        turn
    }
}
