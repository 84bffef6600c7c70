# The same checks as `.ci/run`, one by one. `just --list` shows them.

# What is quick: before each commit.
default: format lints documentation tests

# Everything that has to pass.
ci:
    .ci/run

# One check or several of `.ci/run`, by name.
check +names:
    .ci/run {{names}}

# What the other checks need, where it can be had.
install:
    .ci/run install

# The README's commands, the versions in the documents, and the recipes here.
readme:
    .ci/run readme

format:
    .ci/run format

# Clippy with all features, none, and each alone; the oldest Rust.
lints:
    .ci/run lints

documentation:
    .ci/run documentation

# Lock files, and crates in two versions.
dependencies:
    .ci/run dependencies

# deny.toml.
licences:
    .ci/run licences

tests:
    .ci/run install tests

quickstart:
    .ci/run quickstart

# The store's threads in many orders.
threads:
    .ci/run threads

# Compares the public API with docs/public-api.txt.
public_api:
    .ci/run public_api

# Each fuzz target for a short time, with the same inputs each time.
fuzzing:
    .ci/run fuzzing

# What would be published.
package:
    .ci/run package

# Each fuzz target for so many seconds.
fuzz seconds="60":
    fuzz/run {{seconds}}

# Writes docs/public-api.txt anew.
write-public-api:
    cargo +nightly public-api --all-features -sss --target-dir target/public-api > docs/public-api.txt

# Speed and memory, beside `libp2p-peer-store`: nine minutes once it is built, or with "quick" one.
bench *args:
    cargo bench -- {{args}}

# Forty nodes that join, leave, push and lie.
soak minutes="30":
    cargo run --release --all-features --example soak -- --minutes {{minutes}}
