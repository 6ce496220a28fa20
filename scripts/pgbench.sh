#!/usr/bin/env bash
# Fetches pgbench into target/tools, out of Debian's package of the PostgreSQL server but without
# installing that: a server would start on this host. Does nothing where a pgbench runs already.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${CARGO_TARGET_DIR:-target}/tools

works() { command -v "$1" >/dev/null 2>&1 && "$1" --version >/dev/null 2>&1; }
! works pgbench || exit 0
! works "$tools/pgbench" || exit 0

private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
chmod 755 "$private" # apt's unprivileged download user reads it

# The host's own package lists if they will do, else fresh ones for this once.
lists=()
fetch() {
    local package
    package=$(LC_ALL=C apt-cache ${lists[@]+"${lists[@]}"} depends postgresql 2>/dev/null |
        sed -n 's/^ *Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || return 1
    echo "pgbench: taking it out of $package"
    (cd "$private" && apt-get -q ${lists[@]+"${lists[@]}"} download "$package" >/dev/null 2>&1)
}
if ! fetch; then
    mkdir -p "$private/lists/partial" "$private/cache"
    lists=(-o "Dir::State::Lists=$private/lists" -o "Dir::Cache=$private/cache")
    apt-get -q "${lists[@]}" update >/dev/null && fetch || {
        echo "pgbench: apt has no package postgresql to take it from: install pgbench yourself" >&2
        exit 1
    }
fi
mkdir -p "$tools"
dpkg-deb --fsys-tarfile "$private"/*.deb |
    tar -xO --wildcards './usr/lib/postgresql/*/bin/pgbench' >"$private/pgbench"
chmod 755 "$private/pgbench"
mv "$private/pgbench" "$tools/pgbench"
works "$tools/pgbench" || {
    echo "pgbench: $tools/pgbench doesn't run on this host: is libpq5 installed?" >&2
    exit 1
}
