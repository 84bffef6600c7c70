//! Taking hold of a folder, and putting in order what its last owner has left there.

use std::{fs::TryLockError, io, path::Path, sync::Arc};

use super::{
    Hold, Lock, State,
    folder::{Folder, Found, Listing, find, make_folder, private},
    journal::{self, Operations},
    lost::Trace,
    name::{Names, Place, SERVICE},
    trouble::Trouble,
};
use crate::datastore::DatastoreError;

/// Notes that files stand where portable names put them.
pub(super) const PORTABLE: &str = "portable";

pub(super) fn refused(path: &Path, hint: &'static str, source: io::Error) -> DatastoreError {
    DatastoreError::Open {
        location: path.display().to_string(),
        hint,
        source: source.into(),
    }
}

/// Makes the folder of a datastore, in a folder that exists. Whether it was not there.
pub(super) fn make_root(path: &Path, root: &Path) -> Result<bool, DatastoreError> {
    match make_folder(root) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let hint = open_hint(&error, "the folder cannot be made");
            Err(refused(path, hint, error))
        }
    }
}

impl State {
    /// Takes hold of a folder and puts it in order; `path` is how the user spelt it, `made` whether it is new.
    pub(super) fn take(
        path: &Path,
        mut folder: Folder,
        made: bool,
        portable: bool,
    ) -> Result<Self, DatastoreError> {
        let refused = |hint, source| refused(path, hint, source);
        match make_folder(&folder.root.join(SERVICE)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused(
                    open_hint(&error, "the folder cannot be written"),
                    error,
                ));
            }
            _ => {}
        }
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
        let trace = Trace::of(&folder, &lock)
            .map_err(|error| refused(open_hint(&error, "its lock cannot be looked at"), error))?;
        let unfinished = prepare(&mut folder, made, portable).map_err(|trouble| DatastoreError::Open {
            location: path.display().to_string(),
            hint: "what was left in it cannot be put in order; the cause names the file and what to do",
            source: trouble.into(),
        })?;
        Ok(Self {
            hold: Hold::Owner { _lock: lock, trace },
            folder: Arc::new(folder),
            unfinished: Arc::new(unfinished),
            in_doubt: false,
            losses: 0,
        })
    }
}

pub(super) fn open_hint(error: &io::Error, other: &'static str) -> &'static str {
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
        // Whoever wrote it may not have come to that.
        folder.sync_folder(&service)?;
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
pub(super) fn move_all(folder: &Folder) -> Result<(), Trouble> {
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
