#!/usr/bin/env bash
# Runs every test of every feature. This is the README's one test command.
#
# Needs Rust and a C toolchain; installs nothing, because nothing in the crate needs a server yet. What later
# backends need (a redis-server, Python and npm peers) is installed here, pinned, and a thing that cannot be
# installed fails this script: it never skips in silence.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
    echo "tests/all.sh: cargo is missing; install Rust 1.88 or newer from your system's packages or rustup" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "tests/all.sh: a C compiler is missing (the TLS library builds C); on Debian: apt-get install gcc" >&2
    exit 1
fi

# All features together, every test binary, the examples built; then the documentation's examples.
cargo test --package arshai --all-features --tests --examples
cargo test --package arshai --all-features --doc
