#!/usr/bin/env bash
# usage: scripts/fuzz.sh TARGET SECONDS
# Runs one fuzz target on stable Rust (so without a sanitizer). An input that breaks it is left in
# fuzz/artifacts/TARGET, and the command that repeats it is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1 seconds=$2
if [ ! -e "fuzz/fuzz_targets/$target.rs" ]; then
    echo "fuzz: no target $target; there are: $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//' | tr '\n' ' ')" >&2
    exit 2
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz --version 0.13.2
exec cargo fuzz run -s none "$target" -- -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048
