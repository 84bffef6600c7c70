//! `peerstore import`: takes in what `export` wrote.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use libp2p_peerstore::{
    Batch, Datastore,
    tool::{self, Book, Line},
};
use serde_json::json;

use crate::{
    args::Import,
    entries,
    failure::{Failure, Outcome},
    json as shapes,
    out::Out,
    progress::Progress,
    target::{Missing, Target},
};

/// Bytes of the longest line: what a peer can have in a store is far below.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Entries in one commit, and bytes of them.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    peers: u64,
    written: u64,
    unchanged: u64,
    bad: u64,
}

pub async fn run(args: Import, out: &mut Out) -> Result<Outcome, Failure> {
    let store = Target::named(&args.store)?;
    // What cannot be read makes no store.
    let (reader, len) = open(&args.file)?;
    let datastore = store.open_to_write(Missing::IsMade).await?;
    let progress = match len {
        Some(len) => Progress::bytes("importing", len),
        None => Progress::counting("importing", "bytes"),
    };
    let mut importing = Importing {
        datastore: &*datastore,
        target: &store,
        keep_going: args.keep_going,
        json: out.json,
        progress,
        counts: Counts::default(),
        batch: Batch::default(),
        bytes: 0,
    };
    let read = importing.all(reader).await;
    // What was good before a bad line is taken in.
    let committed = importing.commit().await;
    let counts = importing.counts;
    drop(importing.progress);
    let closed = datastore.close().await;
    if read.is_ok() && committed.is_ok() {
        tell(&counts, out)?;
    }
    read?;
    committed?;
    closed.map_err(|error| Failure::of_store("cannot close the store", &store, &error))?;
    Ok(match counts.bad {
        0 => Outcome::Done,
        _ => Outcome::FoundProblems,
    })
}

fn open(file: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let failed = |error: io::Error| {
        Failure::new(format!("cannot read `{}`", file.display()))
            .because(&error)
            .help("name a file that `peerstore export` wrote, or - for standard input")
    };
    let opened = File::open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let len = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::new(opened)), len))
}

fn tell(counts: &Counts, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.json(&json!({
            "lines": counts.lines,
            "peers": counts.peers,
            "written": counts.written,
            "unchanged": counts.unchanged,
            "bad": counts.bad,
        }));
    }
    let Counts {
        peers,
        written,
        unchanged,
        bad,
        ..
    } = counts;
    out.line(&format!(
        "{peers} peers: {written} entries written, {unchanged} were there already; {bad} bad lines"
    ))
}

struct Importing<'a> {
    datastore: &'a dyn Datastore,
    target: &'a Target,
    keep_going: bool,
    json: bool,
    progress: Progress,
    counts: Counts,
    batch: Batch,
    bytes: usize,
}

impl Importing<'_> {
    async fn all(&mut self, mut reader: Box<dyn BufRead>) -> Result<(), Failure> {
        let mut number: u64 = 0;
        let mut done: u64 = 0;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            number += 1;
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
            let read = read.map_err(|error| {
                Failure::new(format!("cannot read line {number}"))
                    .because(&error)
                    .help("what came before it is in the store; run the import again")
            })?;
            if read == 0 {
                return Ok(());
            }
            done += read as u64;
            self.progress.set(done);
            let is_cut = bytes.last() != Some(&b'\n') && read as u64 == MAX_LINE;
            if is_cut {
                done += skip_line(&mut reader)?;
                let reason = format!("it has more than {MAX_LINE} bytes");
                self.bad(number, &reason)?;
                continue;
            }
            let line = bytes.trim_ascii();
            if line.is_empty() {
                continue;
            }
            self.counts.lines += 1;
            match parse(line) {
                Ok(found) => self.take(found).await?,
                Err(reason) => self.bad(number, &reason)?,
            }
        }
    }

    /// Notes the entries of a peer that are not there yet. All of them go into one commit.
    async fn take(&mut self, found: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        self.counts.peers += 1;
        for (key, value) in found {
            let known = entries::get(self.datastore, self.target, &key).await?;
            if known.as_ref() == Some(&value) {
                self.counts.unchanged += 1;
                // An earlier line of the same peer may be about to change it.
                self.batch_put_if_there(key, value);
                continue;
            }
            self.counts.written += 1;
            self.bytes += key.len() + value.len();
            self.batch.put(key, value);
        }
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.commit().await?;
        }
        Ok(())
    }

    fn batch_put_if_there(&mut self, key: String, value: Vec<u8>) {
        if self.batch.iter().any(|(other, _)| other == key) {
            self.batch.put(key, value);
        }
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let Some(first) = batch.iter().next().map(|(key, _)| key.to_owned()) else {
            return Ok(());
        };
        let (entries, first) = (batch.len(), tool::escaped(&first));
        let committed = self.datastore.commit(batch).await;
        committed.map_err(|error| {
            let what = format!("cannot write {entries} entries, from `{first}` on");
            Failure::of_store(what, self.target, &error)
        })
    }

    fn bad(&mut self, number: u64, reason: &str) -> Result<(), Failure> {
        self.counts.bad += 1;
        if !self.keep_going {
            let what = format!("line {number} cannot be taken: {}", tool::escaped(reason));
            return Err(Failure::new(format!("{what} (store `{}`)", self.target)).help(
                "what came before it is in the store; mend the line, or skip such lines with --keep-going",
            ));
        }
        let text = match self.json {
            true => shapes::line(&json!({ "line": number, "reason": reason })),
            false => format!("line {number}: {}", tool::escaped(reason)),
        };
        self.progress.say(&text);
        Ok(())
    }
}

/// Reads to the end of a line without keeping it.
fn skip_line(reader: &mut Box<dyn BufRead>) -> Result<u64, Failure> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf().map_err(|error| {
            Failure::new("cannot read on")
                .because(&error)
                .help("what came before is in the store; run the import again")
        })?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(len);
        skipped += len as u64;
        if end.is_some() || len == 0 {
            return Ok(skipped);
        }
    }
}

/// The entries of a line, or why it is none.
fn parse(line: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let (peer, values) = line.values().map_err(|error| error.to_string())?;
    let found = entries::entries(&peer, values);
    for (key, value) in &found {
        let Some((peer, book)) = tool::parse_key(key) else {
            return Err(format!("`{key}` is no key of a peer store"));
        };
        // What stands in `raw` is meant as it is: an export does not mend.
        let is_raw = match book {
            Book::Addresses => line.raw.addrs.is_some(),
            Book::Protocols => line.raw.protos.is_some(),
            Book::PublicKey => line.raw.keys.is_some(),
            Book::Metadata(_) => true,
        };
        if let Some(reason) = tool::inspect(&peer, &book, value).undecodable
            && !is_raw
        {
            return Err(format!("a node could not read `{key}`: {reason}"));
        }
    }
    Ok(found)
}
