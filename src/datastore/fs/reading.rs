//! The folder of an [`FsDatastore`], opened so that nothing is ever written to it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;

use super::{
    FsDatastore, Hold, Lock, Shared, State,
    folder::Folder,
    journal::{self, Operations},
    name::{Names, SERVICE},
    opening::PORTABLE,
    trouble::Trouble,
};
use crate::datastore::DatastoreError;

impl FsDatastore {
    /// Opens the folder at `path` to be read only: for tools that look at the store of a node that is not running. A
    /// commit fails.
    ///
    /// Nothing is made, moved or finished in the folder, which may lie on a disk that is read-only. A commit that a crash
    /// cut short is read as done. Several such readers can have it open at a time; a node that uses this type keeps them out,
    /// and they it, if one has ever used the folder.
    ///
    /// # Errors
    ///
    /// As [`FsDatastore::open`], and when there is no such folder, or there are no peers in it.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, DatastoreError> {
        let path = path.as_ref();
        let location = path.display().to_string();
        let refused = |hint, source: io::Error| DatastoreError::Open {
            location: location.clone(),
            hint,
            source: source.into(),
        };
        let root = path.canonicalize().map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "there is no such folder; check the path",
                io::ErrorKind::PermissionDenied => "this user may not read it; check who owns it",
                _ => "it cannot be looked at",
            };
            refused(hint, error)
        })?;
        if !root.is_dir() {
            let hint = "it is no folder; name the folder of the datastore";
            return Err(refused(hint, io::ErrorKind::NotADirectory.into()));
        }
        let service = root.join(SERVICE);
        let was_used = service.is_dir();
        if !was_used && !root.join("peers").is_dir() {
            let hint = "there is no peer store in it (neither `peers` nor `.libp2p-peerstore`); check the path";
            return Err(refused(hint, io::ErrorKind::NotFound.into()));
        }
        let lock = match File::open(service.join("lock")) {
            Ok(lock) => match Lock::shared(lock) {
                Ok(lock) => Some(lock),
                Err(TryLockError::WouldBlock) => return Err(DatastoreError::Locked { location }),
                // A file system without locks: nobody who locks can have it.
                Err(TryLockError::Error(_)) => None,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let hint = "its lock cannot be opened; check who owns it";
                return Err(refused(hint, error));
            }
        };
        let names = match fs::exists(service.join(PORTABLE)) {
            Ok(true) => Names::Portable,
            _ => Names::Exact,
        };
        let folder = Folder {
            root,
            names,
            #[cfg(test)]
            fault: super::tests::Fault::default(),
        };
        let unfinished = unfinished(&folder).map_err(|trouble| DatastoreError::Open {
            location: location.clone(),
            hint: "the journal of its last commit cannot be read; the cause names the file and what to do",
            source: trouble.into(),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                portable: names == Names::Portable,
                writing: Mutex::default(),
                state: Mutex::new(State {
                    hold: Hold::Reader { _lock: lock },
                    folder: Arc::new(folder),
                    unfinished: Arc::new(unfinished),
                    in_doubt: false,
                    losses: 0,
                }),
            }),
            told: AtomicU64::new(0),
        })
    }
}

fn unfinished(folder: &Folder) -> Result<Operations, Trouble> {
    let Some(content) = folder.read_journal()? else {
        return Ok(Operations::new());
    };
    journal::decode(&content).ok_or_else(|| {
        let damaged =
            "damaged; without it the last commit may be there in part; remove it to go on";
        Trouble::of(&folder.service("journal"), damaged)
    })
}
