#!/usr/bin/env bash
# scripts/stage.sh NAME SECONDS COMMAND...
# Runs one named stage: says when it starts and how long it took, and ends it after SECONDS.
set -uo pipefail
name=$1 limit_s=$2
shift 2

# timeout(1) gives its command a process group of its own and ends that whole group, children too.
# At a terminal that would take Ctrl-C away from the command, so there only the command is ended.
foreground=()
[ -t 0 ] && foreground=(--foreground)

echo "==> $name"
timeout ${foreground[@]+"${foreground[@]}"} --kill-after=10 "$limit_s" "$@"
status=$?
case $status in
0) echo "==> $name: done in $SECONDS s" ;;
124 | 137) echo "==> $name: ended after $SECONDS s (its limit is $limit_s s)" >&2 ;;
*) echo "==> $name: failed with status $status after $SECONDS s" >&2 ;;
esac
exit "$status"
