//! A folder that was removed or replaced while it was in use: what is in its place is taken, and the loss is told.

use std::{
    fs::{self, Metadata},
    io, mem,
};

use super::{
    DatastoreError, Hold, Lock, Shared, State,
    folder::Folder,
    name::{Names, SERVICE},
    opening::make_root,
};

/// What tells the folder that is held from one in its place, where the system can tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    /// Device and inode of the lock.
    lock: Option<(u64, u64)>,
    /// The disk that the folder is on.
    device: Option<u64>,
}

impl Trace {
    pub(super) fn of(folder: &Folder, lock: &Lock) -> io::Result<Self> {
        Ok(Self {
            lock: identity(&lock.0.metadata()?),
            device: device(&fs::metadata(&folder.root)?),
        })
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}

fn device(metadata: &Metadata) -> Option<u64> {
    identity(metadata).map(|(device, _)| device)
}

impl Shared {
    pub(super) fn lost(&self) -> DatastoreError {
        DatastoreError::Lost {
            location: self.location(),
        }
    }

    fn trace(&self) -> Option<Trace> {
        match self.state.lock().hold {
            Hold::Owner { trace, .. } => Some(trace),
            _ => None,
        }
    }

    /// Whether the lock that is held is still the one in the folder.
    pub(super) fn is_ours(&self) -> bool {
        let Some(trace) = self.trace() else {
            return true;
        };
        match fs::metadata(self.folder().service("lock")) {
            Ok(found) => identity(&found) == trace.lock,
            // What may not be looked at is not known to be another: writing to it will say what is wrong.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }

    /// Takes hold of the folder in the place of the one that was in use, if there is another, or none. As long as that
    /// fails, whatever is there is not written to.
    pub(super) fn look_at_the_folder(&self) -> Result<(), DatastoreError> {
        if self.is_ours() {
            return Ok(());
        }
        let before = self.folder();
        self.check_disk(&before)?;
        let made = make_root(&self.path, &before.root)?;
        let folder = Folder {
            names: Names::Exact,
            ..(*before).clone()
        };
        let taken = State::take(&self.path, folder, made, self.portable)?;
        tracing::debug!(path = ?self.path, "took hold of the folder in the place of the one that was in use");
        let mut state = self.state.lock();
        let losses = state.losses + 1;
        let left = mem::replace(&mut *state, State { losses, ..taken });
        drop(state);
        // Unlocks what it held.
        drop(left);
        Ok(())
    }

    /// Fails where a datastore would be made on another disk than it was on: in the folder on which that was mounted.
    fn check_disk(&self, before: &Folder) -> Result<(), DatastoreError> {
        if before.root.join(SERVICE).exists() {
            return Ok(());
        }
        let above = before.root.parent();
        let found =
            fs::metadata(&before.root).or_else(|error| above.map_or(Err(error), fs::metadata));
        // What is not there either is named by whoever tries to make it.
        match (found.ok().map(|found| device(&found)), self.trace()) {
            (Some(now), Some(trace)) if now != trace.device => Err(DatastoreError::Open {
                location: self.location(),
                hint: "the disk that it was on is not mounted; mount it again",
                source: io::Error::from(io::ErrorKind::NotFound).into(),
            }),
            _ => Ok(()),
        }
    }
}
