# The same checks as `.ci/run`, one by one. `just --list` shows them.

# What is quick: before each commit.
default: format lints documentation tests

# Everything that has to pass.
ci:
    .ci/run

# One check or several of `.ci/run`, by name.
check +names:
    .ci/run {{names}}

format:
    .ci/run format

lints:
    .ci/run lints

documentation:
    .ci/run documentation

tests:
    .ci/run install tests

# The store's threads in many orders.
threads:
    .ci/run threads

# Each fuzz target for so many seconds.
fuzz seconds="60":
    fuzz/run {{seconds}}

# Writes the list of the public API anew.
public-api:
    cargo +nightly public-api --all-features -sss --target-dir target/public-api > docs/public-api.txt

# Speed and memory, beside `libp2p-peer-store`: a quarter of an hour, or with "quick" a few minutes.
bench *args:
    cargo bench -- {{args}}

# Forty nodes that join, leave, push and lie.
soak minutes="30":
    cargo run --release --all-features --example soak -- --minutes {{minutes}}
