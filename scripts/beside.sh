#!/usr/bin/env bash
# scripts/beside.sh LOG TARGET COMMAND...
# Runs COMMAND, and beside it, with what processor time that leaves, `make TARGET`, whose output goes
# to the file LOG and is shown when both have ended. Fails if either does.
set -uo pipefail
log=$1 target=$2
shift 2

# timeout(1), as stage.sh uses it, gives each stage a process group of its own: so by parents.
end_tree() {
    local child
    for child in $(pgrep -P "$1" 2>/dev/null); do
        end_tree "$child"
    done
    kill "$1" 2>/dev/null
}

mkdir -p "$(dirname "$log")"
nice -n 19 "${MAKE:-make}" --no-print-directory "$target" >"$log" 2>&1 </dev/null &
beside=$!
trap 'end_tree "$beside"; exit 130' INT TERM
"$@"
status=$?
wait "$beside"
beside_status=$?
cat "$log"
if [ "$beside_status" -ne 0 ]; then
    echo "make $target, which ran beside this: failed with status $beside_status" >&2
    [ "$status" -ne 0 ] || status=$beside_status
fi
exit "$status"
