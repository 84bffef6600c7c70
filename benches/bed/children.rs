//! Measurements in a process of their own, and what the system says of a process.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use super::{Size, row::Row};

/// Runs one task in a new process of this program; returns the lines that it printed.
pub fn run(size: Size, task: &[&str]) -> Vec<String> {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    match size {
        Size::Full => command.arg("--bench"),
        Size::Quick => command.args(["--bench", "quick"]),
        Size::Smoke => &mut command,
    };
    command.arg("--child").args(task);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .expect("this program can be started");
    assert!(output.status.success(), "the measurement {task:?} failed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The same for a task that prints rows.
pub fn rows(size: Size, task: &[&str]) -> Vec<Row> {
    let lines = run(size, task);
    lines
        .iter()
        .filter_map(|line| Row::from_line(line))
        .collect()
}

/// The same for one that prints a line of numbers.
pub fn figures<const N: usize>(size: Size, task: &[&str]) -> [f64; N] {
    let lines = run(size, task);
    let line = lines.last().map_or("", String::as_str);
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers
        .try_into()
        .unwrap_or_else(|_| panic!("{task:?} said {line:?}"))
}

/// Bytes of memory that this process has now; NaN where the system does not say.
pub fn resident() -> f64 {
    status("/proc/self/status", "VmRSS:") * 1_024.0
}

/// The most that it ever had.
pub fn most_resident() -> f64 {
    status("/proc/self/status", "VmHWM:") * 1_024.0
}

/// Bytes that this process gave to the system to write into files.
pub fn written() -> f64 {
    status("/proc/self/io", "wchar:")
}

/// Bytes that really came from the disk for this process.
pub fn fetched() -> f64 {
    status("/proc/self/io", "read_bytes:")
}

fn status(file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(f64::NAN)
}
