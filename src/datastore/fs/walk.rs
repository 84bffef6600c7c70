//! A query: folder by folder, one file at a time.

use std::{ops::Bound, sync::Arc};

use super::{
    DatastoreError, KeyValue, Shared,
    folder::{Folder, Listing},
    journal::Operations,
    name::{self, Kind, Place},
    trouble::Trouble,
};

/// A query under way.
pub(super) struct Walk<'a> {
    shared: &'a Shared,
    at: Arc<Folder>,
    /// How much was lost when it began: half of one folder and half of another are not an answer.
    losses: u64,
    prefix: &'a str,
    /// What stood in the journal when the query began; its values go first.
    unfinished: Option<Arc<Operations>>,
    /// The last key of those that was answered.
    after: Option<String>,
    /// Folders to list.
    folders: Vec<String>,
    /// The folder that is being read, and the files in it that are left.
    folder: String,
    files: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shared: &'a Shared, prefix: &'a str) -> Self {
        let (at, losses) = {
            let state = shared.state.lock();
            (state.folder.clone(), state.losses)
        };
        let (folder, _) = at.names.folders(prefix);
        let folders = vec![folder.to_owned()];
        Self {
            shared,
            at,
            losses,
            prefix,
            unfinished: None,
            after: None,
            folders,
            folder: String::new(),
            files: Vec::new(),
        }
    }

    /// The next entry; reads one file at most.
    pub(super) fn next(&mut self) -> Result<Option<KeyValue>, DatastoreError> {
        let (_, now, losses) = self.shared.now("read")?;
        if losses != self.losses {
            return Err(self.shared.lost());
        }
        let unfinished = self.unfinished.get_or_insert(now).clone();
        if let Some(entry) = self.next_unfinished(&unfinished) {
            return Ok(Some(entry));
        }
        self.next_file(&unfinished)
            .map_err(|trouble| self.shared.failed("read", trouble))
    }

    fn next_unfinished(&mut self, unfinished: &Operations) -> Option<KeyValue> {
        let start = match &self.after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(self.prefix),
        };
        let (key, value) = unfinished
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(self.prefix))
            .find_map(|(key, value)| Some((key, value.as_ref()?)))?;
        self.after = Some(key.clone());
        Some((key.clone(), value.clone()))
    }

    fn next_file(&mut self, unfinished: &Operations) -> Result<Option<KeyValue>, Trouble> {
        let folder = &self.at;
        loop {
            while let Some(file) = self.files.pop() {
                if let Kind::Value(part) = name::kind(&file)
                    && !format!("{}/{part}", self.folder).starts_with(self.prefix)
                {
                    continue;
                }
                let place = Place::found(&self.folder, file);
                let Some((key, value)) = folder.entry(&place)? else {
                    continue;
                };
                if folder.names.place(&key) != place {
                    tracing::debug!(?place, "skipped a file that is not where its key belongs");
                } else if key.starts_with(self.prefix) && !unfinished.contains_key(&key) {
                    return Ok(Some((key, value)));
                }
            }
            let Some(path) = self.folders.pop() else {
                return Ok(None);
            };
            let Listing { folders, files } = {
                let _writing = self.shared.writing.lock();
                folder.list(folder.names, &path)?
            };
            let below = folders.into_iter().map(|name| format!("{path}/{name}"));
            self.folders
                .extend(below.filter(|path| format!("{path}/").starts_with(self.prefix)));
            (self.folder, self.files) = (path, files);
        }
    }
}
