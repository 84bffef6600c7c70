//! One line of the table, and the table.

use std::fmt;

/// What was measured, and how it compares.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    pub target: String,
    pub reached: String,
    pub theirs: String,
    pub ratio: Option<f64>,
    /// `None` where there is no target.
    pub met: Option<bool>,
    /// How much it is of what the target allows, where that is a number.
    pub part: Option<f64>,
}

impl Row {
    /// A figure that is only reported.
    pub fn new(what: impl Into<String>, reached: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            target: "report".into(),
            reached: reached.into(),
            theirs: String::new(),
            ratio: None,
            met: None,
            part: None,
        }
    }

    /// A target that is a number: the figure is such a part of what it allows.
    #[must_use]
    pub fn within(mut self, target: impl Into<String>, part: f64) -> Self {
        self.part = Some(part);
        self.target(target, part <= 1.0)
    }

    #[must_use]
    pub fn target(mut self, target: impl Into<String>, met: bool) -> Self {
        self.target = target.into();
        self.met = Some(met);
        self
    }

    /// What the other store reached, and how much of that ours is.
    #[must_use]
    pub fn theirs(mut self, theirs: impl Into<String>, ratio: f64) -> Self {
        self.theirs = theirs.into();
        self.ratio = Some(ratio);
        self
    }

    fn fields(&self) -> [String; 6] {
        [
            self.what.clone(),
            self.target.clone(),
            self.reached.clone(),
            self.theirs.clone(),
            self.ratio
                .map_or(String::new(), |ratio| format!("{ratio:.2}")),
            match self.met {
                None => String::new(),
                Some(true) => "ok".into(),
                Some(false) => "MISSED".into(),
            },
        ]
    }

    /// The row as one line, from one process to another.
    pub fn to_line(&self) -> String {
        let part = self.part.map_or(String::new(), |part| part.to_string());
        format!("{}\t{part}", self.fields().join("\t"))
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next();
        Some(Self {
            what: next()?,
            target: next()?,
            reached: next()?,
            theirs: next()?,
            ratio: next()?.parse().ok(),
            met: match next()?.as_str() {
                "ok" => Some(true),
                "MISSED" => Some(false),
                _ => None,
            },
            part: next()?.parse().ok(),
        })
    }
}

/// All rows, as Markdown whose columns also stand in line on a terminal.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["what", "target", "reached", "theirs", "ratio", ""].map(str::to_owned);
        let rows: Vec<_> = self.0.iter().map(Row::fields).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]);
            cells
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut line = |cells: &[String]| {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")
        };
        line(&head)?;
        line(
            &widths
                .iter()
                .map(|width| "-".repeat((*width).max(3)))
                .collect::<Vec<_>>(),
        )?;
        rows.iter().try_for_each(|row| line(row))
    }
}

/// A time, in the unit in which it reads best.
pub fn nanos(ns: f64) -> String {
    match ns {
        ns if ns.abs() < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 99.5e3 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 999.5e3 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 999.5e6 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// A number of bytes, in the unit in which it reads best.
pub fn bytes(count: f64) -> String {
    match count {
        count if count.abs() < 9_999.5 => format!("{count:.0} B"),
        count if count.abs() < 9_999.5e3 => format!("{:.0} kB", count / 1e3),
        count => format!("{:.0} MB", count / 1e6),
    }
}
