//! What the measurements have in common: how large they are, what they print, the two stores, and the time.

// Each of the measurements uses only a part of all this.
#![allow(dead_code)]

pub mod children;
pub mod datastore;
pub mod node;
#[path = "../peers/mod.rs"]
pub mod peers;
pub mod row;
pub mod time;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A million peers, as the targets say.
    Full,
    /// `quick`: a tenth of them, and fewer rounds.
    Quick,
    /// Without `--bench`, as from `cargo test --benches`: only to show that each measurement works.
    Smoke,
}

impl Size {
    /// Peers in the large store.
    pub fn peers(self) -> usize {
        match self {
            Size::Full => 1_000_000,
            Size::Quick => 100_000,
            Size::Smoke => 2_000,
        }
    }

    /// Peers in the small one, beside which growth is measured.
    pub fn few(self) -> usize {
        match self {
            Size::Full | Size::Quick => 10_000,
            Size::Smoke => 1_000,
        }
    }

    /// So many rounds in full, fewer otherwise.
    pub fn rounds(self, full: usize) -> usize {
        match self {
            Size::Full => full,
            Size::Quick => full.div_ceil(3),
            Size::Smoke => 1,
        }
    }
}

/// What the command line asks for.
pub struct Options {
    pub size: Size,
    /// Parts whose name contains one of these are measured; all when there is none.
    parts: Vec<String>,
    /// Where the plot goes: `--svg <path>`.
    pub svg: Option<PathBuf>,
    /// What a process that was started for one measurement does: `--child <task> <arguments>`.
    pub child: Option<Vec<String>>,
}

impl Options {
    pub fn parse() -> Self {
        let mut parsed = Self {
            size: Size::Smoke,
            parts: Vec::new(),
            svg: None,
            child: None,
        };
        let mut quick = false;
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => parsed.size = Size::Full,
                "quick" => quick = true,
                "--svg" => parsed.svg = arguments.next().map(PathBuf::from),
                "--child" => parsed.child = Some(arguments.by_ref().collect()),
                flag if flag.starts_with('-') => {}
                part => parsed.parts.push(part.to_owned()),
            }
        }
        if quick && parsed.size == Size::Full {
            parsed.size = Size::Quick;
        }
        parsed
    }

    pub fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| part.contains(wanted))
    }

    pub fn wants_all(&self) -> bool {
        self.parts.is_empty()
    }
}

/// Files of this run: `cargo bench` starts one program after another, and they have it as their parent.
pub fn folder() -> PathBuf {
    #[cfg(unix)]
    let run = std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    let run = 0;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peerstore-bench-{run}"));
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}
