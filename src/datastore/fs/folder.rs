//! The files below the root: reading, writing, listing, syncing. Symbolic links are never followed, and no file that
//! others see is ever written to: a new one takes its place.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    journal::Operations,
    name::{self, Kind, Names, Place, SERVICE},
    trouble::Trouble,
};

/// Commits of more files sync the whole file system twice (on Linux, which offers that) instead of each file.
#[cfg(target_os = "linux")]
const SYNC_EACH: usize = 32;

const TEMPORARY: &str = "tmp-";
const JOURNAL: &str = "journal";

#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) names: Names,
    #[cfg(test)]
    pub(super) fault: super::tests::Fault,
}

/// The names in one folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) folders: Vec<String>,
    pub(super) files: Vec<String>,
}

/// What stands at a path.
pub(super) enum Found {
    Nothing,
    File,
    Folder,
    /// A pipe, a socket, a device.
    Other,
}

pub(super) fn find(path: &Path) -> Result<Found, Trouble> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(Trouble::link(path)),
        Ok(found) if found.is_dir() => Ok(Found::Folder),
        Ok(found) if found.is_file() => Ok(Found::File),
        Ok(_) => Ok(Found::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(Trouble::io(path, error)),
    }
}

/// Makes a folder that its owner alone can enter.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens a file for writing that its owner alone can read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

impl Folder {
    /// A mutation is about to happen; tests let it fail, and see in which order they come.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn step(&self, _what: &'static str, _path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.fault.step(_what, _path)?;
        Ok(())
    }

    pub(super) fn service(&self, file: &str) -> PathBuf {
        self.root.join(SERVICE).join(file)
    }

    /// The path of a folder below the root, if it is there and real.
    fn real(&self, folder: &str) -> Result<Option<PathBuf>, Trouble> {
        let mut path = self.root.clone();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            let Found::Folder = find(&path)? else {
                return Ok(None);
            };
        }
        Ok(Some(path))
    }

    // --- reading -------------------------------------------------------------------------------------------

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let place = self.names.place(key);
        let Some((path, content)) = self.read(&place)? else {
            return Ok(None);
        };
        if !place.keyed {
            return Ok(Some(content));
        }
        match name::split(&content) {
            Some((found, value)) if found == key => Ok(Some(value.to_vec())),
            _ => Err(Trouble::of(
                &path,
                "damaged: it does not begin with its key; remove it",
            )),
        }
    }

    fn read(&self, place: &Place) -> Result<Option<(PathBuf, Vec<u8>)>, Trouble> {
        let Some(folder) = self.real(&place.folder)? else {
            return Ok(None);
        };
        let path = folder.join(&place.file);
        // Opening a pipe would wait for somebody to write into it.
        let Found::File = find(&path)? else {
            return Ok(None);
        };
        match fs::read(&path) {
            Ok(content) => Ok(Some((path, content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Trouble::io(&path, error)),
        }
    }

    /// The key and the value in a file that a listing named; `None` when it is gone, or is not of a key. Whether it
    /// stands where the key belongs is for the caller to say.
    pub(super) fn entry(&self, place: &Place) -> Result<Option<(String, Vec<u8>)>, Trouble> {
        let key = match name::kind(&place.file) {
            Kind::Value(part) => format!("{}/{part}", place.folder),
            Kind::Keyed => String::new(),
            Kind::Foreign => return Ok(None),
        };
        let Some((path, content)) = self.read(place)? else {
            return Ok(None);
        };
        if !place.keyed {
            return Ok(Some((key, content)));
        }
        let entry = name::split(&content).map(|(key, value)| (key.to_owned(), value.to_vec()));
        if entry.is_none() {
            tracing::debug!(?path, "skipped a file that does not begin with its key");
        }
        Ok(entry)
    }

    /// The names in a folder, of files and folders that can be of keys.
    pub(super) fn list(&self, names: Names, folder: &str) -> Result<Listing, Trouble> {
        let mut listing = Listing::default();
        let Some(path) = self.real(folder)? else {
            return Ok(listing);
        };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(Trouble::io(&path, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Trouble::io(&path, error))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let found = match entry.file_type() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Trouble::io(&entry.path(), error)),
            };
            let is_ours = name::kind(&name) != Kind::Foreign;
            if found.is_symlink() {
                // Others may lie about; what is behind these would be missed.
                if is_ours || entry.path().is_dir() {
                    return Err(Trouble::link(&entry.path()));
                }
            } else if found.is_dir() {
                if names.is_folder(&name, folder.is_empty()) {
                    listing.folders.push(name);
                }
            } else if found.is_file() && is_ours {
                listing.files.push(name);
            }
        }
        Ok(listing)
    }

    // --- writing -------------------------------------------------------------------------------------------

    /// Makes every key what the operations say, durably. Each file changes at once; all of them do not.
    pub(super) fn apply(&self, operations: &Operations) -> Result<(), Trouble> {
        let mut temporary = Temporary {
            folder: self,
            files: Vec::new(),
        };
        let all = self.whole(operations.len())?;
        let sync_each = all.is_none();
        let mut touched = BTreeSet::new();
        // What goes makes room for what comes.
        for (key, _) in operations.iter().filter(|(_, value)| value.is_none()) {
            self.remove(&self.names.place(key), &mut touched)?;
        }
        for (key, value) in operations {
            if let Some(value) = value {
                let place = self.names.place(key);
                let header = match place.keyed {
                    true => name::header(key),
                    false => Vec::new(),
                };
                temporary.write(place, &[&header, value], sync_each)?;
            }
        }
        all.as_ref().map_or(Ok(()), |all| self.sync_all(all))?;
        temporary.put_in_place(&mut touched)?;
        match all {
            Some(all) => self.sync_all(&all),
            None => touched.iter().try_for_each(|path| self.sync_folder(path)),
        }
    }

    /// Writes the journal, durably; what it held before is gone.
    pub(super) fn write_journal(&self, content: &[u8]) -> Result<(), Trouble> {
        let path = self.service(&format!("{TEMPORARY}{JOURNAL}"));
        let journal = self.service(JOURNAL);
        self.write(&path, &[content], true)?;
        self.step("rename", &journal)
            .and_then(|()| fs::rename(&path, &journal))
            .map_err(|error| Trouble::io(&journal, error))?;
        self.sync_folder(&self.root.join(SERVICE))
    }

    pub(super) fn has_journal(&self) -> bool {
        // What cannot be looked at may be there.
        self.service(JOURNAL).try_exists().unwrap_or(true)
    }

    pub(super) fn read_journal(&self) -> Result<Option<Vec<u8>>, Trouble> {
        let journal = self.service(JOURNAL);
        match fs::read(&journal) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Trouble::io(&journal, error)),
        }
    }

    /// Synced too: a journal that came back after a power cut would undo what was written since.
    pub(super) fn remove_journal(&self) -> Result<(), Trouble> {
        let journal = self.service(JOURNAL);
        self.remove_file(&journal)?;
        self.sync_folder(&self.root.join(SERVICE))
    }

    /// Removes what a crash left of files that were being written.
    pub(super) fn remove_temporary(&self) -> Result<(), Trouble> {
        let service = self.root.join(SERVICE);
        let entries = fs::read_dir(&service).map_err(|error| Trouble::io(&service, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Trouble::io(&service, error))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes())
            {
                self.remove_file(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the file of a key anew where it belongs, and removes the one in which it was found.
    pub(super) fn move_entry(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        from: &Place,
    ) -> Result<(), Trouble> {
        if value.is_some() {
            self.apply(&Operations::from([(key.to_owned(), value)]))?;
        }
        let mut touched = BTreeSet::new();
        self.remove(from, &mut touched)?;
        touched.iter().try_for_each(|path| self.sync_folder(path))
    }

    /// Removes a file, and the folders that are empty then. `touched` are the folders to sync.
    fn remove(&self, place: &Place, touched: &mut BTreeSet<PathBuf>) -> Result<(), Trouble> {
        let Some(mut folder) = self.real(&place.folder)? else {
            return Ok(());
        };
        let path = folder.join(&place.file);
        match find(&path)? {
            Found::Nothing => {}
            Found::File => self.remove_file(&path)?,
            _ => return Err(Trouble::of(&path, "not a file; move it away")),
        }
        // A folder that others use is not empty, and one that does not go may stay.
        while folder != self.root
            && self
                .step("remove folder", &folder)
                .and_then(|()| fs::remove_dir(&folder))
                .is_ok()
        {
            touched.remove(&folder);
            folder.pop();
        }
        touched.insert(folder);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), Trouble> {
        match self
            .step("remove", path)
            .and_then(|()| fs::remove_file(path))
        {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Trouble::io(path, error)),
            _ => Ok(()),
        }
    }

    /// Makes the folders of a key.
    fn make_real(&self, folder: &str, touched: &mut BTreeSet<PathBuf>) -> Result<PathBuf, Trouble> {
        let mut path = self.root.clone();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let above = path.clone();
            path.push(part);
            match find(&path)? {
                Found::Folder => {}
                Found::Nothing => {
                    self.step("make folder", &path)
                        .and_then(|()| make_folder(&path))
                        .map_err(|error| Trouble::io(&path, error))?;
                    touched.insert(above);
                }
                _ => return Err(Trouble::of(&path, "not a folder; move it away")),
            }
        }
        Ok(path)
    }

    fn write(&self, path: &Path, parts: &[&[u8]], sync: bool) -> Result<(), Trouble> {
        let write = || {
            self.step("make", path)?;
            let mut file = private().truncate(true).open(path)?;
            for part in parts {
                self.step("write", path)?;
                file.write_all(part)?;
            }
            if sync {
                self.step("sync", path)?;
                file.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| Trouble::io(path, error))
    }

    #[cfg(unix)]
    pub(super) fn sync_folder(&self, path: &Path) -> Result<(), Trouble> {
        let sync = || {
            self.step("sync folder", path)?;
            match File::open(path)?.sync_all() {
                // Some file systems cannot, and do not need to.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                synced => synced,
            }
        };
        match sync() {
            // Gone since, with all that was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced.map_err(|error| Trouble::io(path, error)),
        }
    }

    /// Windows keeps the order of renames by itself, and lets nobody sync a folder.
    #[cfg(not(unix))]
    pub(super) fn sync_folder(&self, _path: &Path) -> Result<(), Trouble> {
        Ok(())
    }

    /// What to sync in place of so many files. It is opened before they are written, so that it hears of every
    /// failure to write back.
    #[cfg(target_os = "linux")]
    fn whole(&self, files: usize) -> Result<Option<File>, Trouble> {
        if files <= SYNC_EACH {
            return Ok(None);
        }
        let root = File::open(&self.root);
        root.map(Some)
            .map_err(|error| Trouble::io(&self.root, error))
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self, root: &File) -> Result<(), Trouble> {
        self.step("sync all", &self.root)
            .and_then(|()| Ok(rustix::fs::syncfs(root)?))
            .map_err(|error| Trouble::io(&self.root, error))
    }

    #[cfg(not(target_os = "linux"))]
    fn whole(&self, _files: usize) -> Result<Option<File>, Trouble> {
        Ok(None)
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self, _root: &File) -> Result<(), Trouble> {
        Ok(())
    }

    /// Whether this file system keeps all names apart.
    pub(super) fn probe(&self) -> Names {
        if cfg!(windows) {
            return Names::Portable;
        }
        let probe = |name: &str| self.service(&format!("{TEMPORARY}{name}"));
        let [mine, case, form] = ["Probe-\u{e9}", "probe-\u{e9}", "Probe-e\u{301}"].map(probe);
        let written = self.write(&mine, &[], false);
        let others = [&case, &form].iter().any(|path| path.exists());
        // Left behind, it goes with the temporary files.
        let _ = fs::remove_file(&mine);
        match written {
            Ok(()) if !others => Names::Exact,
            _ => Names::Portable,
        }
    }
}

/// Files that are not in their places yet; they go if they never get there.
struct Temporary<'a> {
    folder: &'a Folder,
    files: Vec<(PathBuf, Place)>,
}

impl Temporary<'_> {
    fn write(&mut self, place: Place, parts: &[&[u8]], sync: bool) -> Result<(), Trouble> {
        let path = self
            .folder
            .service(&format!("{TEMPORARY}{}", self.files.len()));
        self.files.push((path.clone(), place));
        self.folder.write(&path, parts, sync)
    }

    fn put_in_place(mut self, touched: &mut BTreeSet<PathBuf>) -> Result<(), Trouble> {
        while let Some((temporary, place)) = self.files.last() {
            let folder = self.folder.make_real(&place.folder, touched)?;
            let path = folder.join(&place.file);
            if !matches!(find(&path)?, Found::Nothing | Found::File) {
                return Err(Trouble::of(&path, "not a file; move it away"));
            }
            self.folder
                .step("rename", &path)
                .and_then(|()| fs::rename(temporary, &path))
                .map_err(|error| Trouble::io(&path, error))?;
            touched.insert(folder);
            self.files.pop();
        }
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        for (path, _) in &self.files {
            let _ = fs::remove_file(path);
        }
    }
}
