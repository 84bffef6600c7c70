//! What `docs/format.md` says, taken out of it: tests compare that with what is really written.

// Every test file uses its own part of this.
#![allow(dead_code)]

use libp2p::Multiaddr;

pub const DOCUMENT: &str = include_str!("../../docs/format.md");

/// The lines of the fenced block whose first line is the fence and this name.
#[track_caller]
pub fn block(name: &str) -> Vec<&'static str> {
    let fence = format!("```{name}");
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != fence);
    assert!(
        lines.next().is_some(),
        "docs/format.md has no block {fence}"
    );
    lines.take_while(|line| *line != "```").collect()
}

/// The bytes of a block, in hexadecimal, with a remark behind `|`.
#[track_caller]
pub fn bytes(name: &str) -> Vec<u8> {
    let hex: String = block(name)
        .iter()
        .flat_map(|line| line.split('|').next())
        .flat_map(str::split_whitespace)
        .collect();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

/// The addresses of a block, one per line.
#[track_caller]
pub fn addresses(name: &str) -> Vec<Multiaddr> {
    let lines = block(name).into_iter();
    lines.map(|line| line.parse().unwrap()).collect()
}
