#!/usr/bin/env bash
# usage: scripts/fuzz.sh TARGET SECONDS
# Runs one fuzz target on stable Rust (so without a sanitizer), from where its last run ended: inputs
# that reach something new are kept in fuzz/corpus/TARGET. An input that breaks it is left in
# fuzz/artifacts/TARGET, and the command that repeats it is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1 seconds=$2
if [ ! -e "fuzz/fuzz_targets/$target.rs" ]; then
    echo "fuzz: no target $target; there are: $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//' | tr '\n' ' ')" >&2
    exit 2
fi
build=(-s none)
case $target in
virtqueues | snapshot)
    # Their bytes are choices, so what they are compared with is no help, and noting it would take
    # half of the time. Other flags make other artefacts: in a folder of their own.
    build+=(--no-trace-compares --target-dir fuzz/target/choices)
    ;;
esac
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz --version 0.13.2
cargo fuzz build "${build[@]}" "$target"
echo "==> fuzz $target for $seconds s: inputs in fuzz/corpus/$target, what breaks it in fuzz/artifacts/$target"
exec cargo fuzz run "${build[@]}" "$target" -- -max_total_time="$seconds" -max_len=4096 -timeout=20 \
    -rss_limit_mb=2048 -print_funcs=0
