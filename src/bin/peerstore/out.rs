//! Standard output: a terminal, a file or a pipe.

use std::{
    env,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use serde_json::{Value, json};

use crate::{failure::Failure, json as shapes};

pub struct Out {
    writer: BufWriter<Stdout>,
    /// Whether answers are in JSON.
    pub json: bool,
    pub is_terminal: bool,
    /// Columns of the terminal; `None` where nothing is to be cut, since it is none.
    pub width: Option<usize>,
    colours: bool,
}

impl Out {
    pub fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let columns = env::var("COLUMNS").ok();
        let columns = columns.and_then(|columns| columns.parse().ok());
        let columns = columns.filter(|columns| *columns > 0);
        let width = columns.or_else(|| {
            let known = terminal_size::terminal_size();
            known.map(|(width, _)| usize::from(width.0))
        });
        Self {
            json,
            is_terminal,
            // One that does not know its size is as wide as they used to be.
            width: is_terminal.then(|| width.unwrap_or(80)),
            colours: AutoStream::choice(&stdout) != ColorChoice::Never,
            writer: BufWriter::new(stdout),
        }
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.writer, "{text}").map_err(Failure::of_output)
    }

    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&shapes::line(value))
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(Failure::of_output)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(Failure::of_output)
    }

    /// A text in a style, if there is to be one.
    pub fn styled(&self, style: Style, text: &str) -> String {
        match self.colours {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }

    /// A remark that is not part of the answer.
    pub fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.flush()?;
        match self.json {
            true => eprintln!("{}", shapes::line(&json!({ "note": text }))),
            false => eprintln!("{text}"),
        }
        Ok(())
    }
}

pub fn colours_of_stderr() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();

/// By how good something is, from 0 to 1.
pub fn by_confidence(confidence: f64) -> Style {
    use anstyle::AnsiColor::{Green, Red, Yellow};
    let colour = match confidence {
        c if c >= 0.6 => Green,
        c if c >= 0.3 => Yellow,
        _ => Red,
    };
    Style::new().fg_color(Some(colour.into()))
}
