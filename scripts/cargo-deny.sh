#!/usr/bin/env bash
# Checks the dependencies' licences, bans and sources against deny.toml, with cargo-deny.
# Where cargo-deny isn't installed, it is built once into target/tools. Its own profile asks for much
# optimising (one unit, fat LTO), for a run that takes a few seconds.
# Advisories are left out: they need a database from the network.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=${CARGO_TARGET_DIR:-target}/tools
PATH="$PWD/$tools/bin:$tools/bin:$PATH"

if ! command -v cargo-deny >/dev/null 2>&1; then
    echo "cargo-deny: building $version into $tools"
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --quiet --locked --version "$version" --root "$tools" cargo-deny </dev/null
fi
exec cargo-deny --workspace --all-features --log-level warn check licenses bans sources
