//! How it ends: with which exit status, and what it says when something failed.

use std::{env, error::Error, io, process::ExitCode};

use libp2p_peerstore::{DatastoreError, tool::escaped};
use serde_json::json;

use crate::{discreet::discreet, json, out::colours_of_stderr, target::Target};

/// It came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// And told of problems on the way.
    FoundProblems,
}

impl Outcome {
    pub fn code(self) -> ExitCode {
        match self {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::FoundProblems => ExitCode::from(FOUND_PROBLEMS),
        }
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const FOUND_PROBLEMS: u8 = 3;
const NO_PEER: u8 = 4;

/// Why it did not come to its end.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    what: String,
    causes: Vec<String>,
    help: Option<String>,
}

impl Failure {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            what: what.into(),
            causes: Vec::new(),
            help: None,
        }
    }

    /// As clap's own errors.
    pub fn usage(what: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            ..Self::new(what)
        }
    }

    /// No peer fits, or several do.
    pub fn no_peer(what: impl Into<String>) -> Self {
        Self {
            code: NO_PEER,
            ..Self::new(what)
        }
    }

    /// With an error and all that it says of its own causes.
    pub fn because(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors repeat their source in their own text.
            if !self
                .causes
                .last()
                .is_some_and(|above| above.contains(&text))
            {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// For commands whose work is not their output: that goes on when nobody reads any longer.
    pub fn unless_quiet(told: Result<(), Failure>) -> Result<(), Failure> {
        match told {
            Err(failure) if failure.is_quiet() => Ok(()),
            told => told,
        }
    }

    /// Whoever read the output has enough of it.
    fn is_quiet(&self) -> bool {
        self.what.is_empty()
    }

    pub fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self {
                code: 0,
                ..Self::new("")
            },
            _ => Self::new("cannot write the output")
                .because(&error)
                .help("check the disk, or where the output goes"),
        }
    }

    /// A datastore failed while something was done in it.
    pub fn of_store(what: impl Into<String>, store: &Target, error: &DatastoreError) -> Self {
        let help = match error {
            DatastoreError::Locked { .. } => {
                "a running node, or another command, has it open: stop that first. A copy made while a node runs may be torn"
            }
            DatastoreError::Open { .. } => "see the cause, and check the URL",
            _ => "see the cause; when it is mended, run the command again",
        };
        let what = what.into();
        Self::new(format!("{what} (store `{store}`)"))
            .because(error)
            .help(help)
    }

    /// Tells it on stderr.
    pub fn report(self, as_json: bool) -> ExitCode {
        if self.is_quiet() {
            return ExitCode::from(self.code);
        }
        if as_json {
            let causes = self.causes.iter().map(|cause| discreet(cause));
            let failure = json!({
                "error": discreet(&self.what),
                "causes": causes.collect::<Vec<_>>(),
                "help": self.help.map(|help| discreet(&help)),
                "status": self.code,
            });
            eprintln!("{}", json::line(&failure));
            return ExitCode::from(self.code);
        }
        let (red, plain) = match colours_of_stderr() {
            true => ("\u{1b}[1;31m", "\u{1b}[0m"),
            false => ("", ""),
        };
        eprintln!("{red}error:{plain} {}", for_people(&self.what));
        for cause in &self.causes {
            eprintln!("  cause: {}", for_people(cause));
        }
        if let Some(help) = &self.help {
            eprintln!("  help: {}", for_people(help));
        }
        ExitCode::from(self.code)
    }
}

/// What clap made of the command line: help and the version that were asked for, or what it does not understand.
pub fn misunderstood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Whoever has seen enough of it has closed the pipe.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let asked = env::args_os().take_while(|arg| arg != "--");
    if asked.into_iter().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let (what, help) = text.split_once("\n\n").unwrap_or((text, ""));
        let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = Failure::usage(in_one_line(&discreet(what)));
        return failure.help(in_one_line(&discreet(help))).report(true);
    }
    anstream::eprint!("{}", discreet(&error.render().ansi().to_string()));
    ExitCode::from(USAGE)
}

/// Paths on Windows have backslashes, which need no escape here: nothing is read back.
fn for_people(text: &str) -> String {
    escaped(&discreet(text)).replace("\\\\", "\\")
}
