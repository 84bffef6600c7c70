//! What a file system says, in words that help.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// What is wrong with which file, and what to do about it.
#[derive(Debug)]
pub(super) struct Trouble {
    path: PathBuf,
    hint: &'static str,
    source: Option<io::Error>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.hint)
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl Trouble {
    pub(super) fn of(path: &Path, hint: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            hint,
            source: None,
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "there is no space left; make some"
            }
            io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only",
            io::ErrorKind::PermissionDenied => "this user may not do that; check who owns it",
            io::ErrorKind::NotADirectory => "a file is where a folder should be; move it away",
            io::ErrorKind::InvalidFilename => {
                "the path is too long, or has a character that this file system does not take"
            }
            io::ErrorKind::CrossesDevices => {
                "another file system is mounted below the folder; mount it at the folder itself"
            }
            io::ErrorKind::FileTooLarge => "the file is larger than this process may write",
            _ => "the file system refused",
        };
        Self {
            path: path.to_owned(),
            hint,
            source: Some(source),
        }
    }

    pub(super) fn link(path: &Path) -> Self {
        Self::of(
            path,
            "a symbolic link, which is not followed; replace it by what it leads to",
        )
    }
}
