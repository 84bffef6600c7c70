//! A line on the terminal for what takes longer than a second.

use std::{
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Progress {
    bar: ProgressBar,
    /// Dropping it ends the thread that waits to show the bar.
    _shown: mpsc::Sender<()>,
}

impl Progress {
    /// A count that goes up: `what` is what is done, `unit` what is counted.
    pub fn counting(what: &'static str, unit: &'static str) -> Self {
        Self::new(
            None,
            &format!("{{spinner}} {what}: {{pos}} {unit} ({{elapsed}})"),
        )
    }

    /// A bar over so many bytes.
    pub fn bytes(what: &'static str, len: u64) -> Self {
        let template = format!("{what} {{wide_bar}} {{bytes}} of {{total_bytes}} ({{eta}})");
        Self::new(Some(len), &template)
    }

    fn new(len: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let (shown, ended) = mpsc::channel();
        if io::stderr().is_terminal() {
            let bar = bar.clone();
            thread::spawn(move || {
                let waited = ended.recv_timeout(PATIENCE);
                if waited == Err(mpsc::RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(100));
                }
            });
        }
        Self { bar, _shown: shown }
    }

    /// Shared with what does the work.
    pub fn handle(&self) -> ProgressBar {
        self.bar.clone()
    }

    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Shows a message without disturbing the line.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
