#!/usr/bin/env bash
# Compares the processor with the reference simulator on random programs:
#
#   scripts/differential.sh [--seed N] [--instructions N] [--keep-going N]
#
# Programs of consecutive seeds, from N on, until so many instructions were equal; it ends at the
# first program that differs, or after as many as --keep-going allows. docs/ISA.md says what is compared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

while [ $# -gt 0 ]; do
    case $1 in
    --seed | --instructions | --keep-going)
        name=${1#--}
        [[ ${2:-} =~ ^[0-9]+$ ]] || {
            echo "differential: $1 takes a number, not '${2:-}'" >&2
            exit 2
        }
        name=${name^^}
        export "TWINVM_${name//-/_}=$2"
        shift 2
        ;;
    *)
        echo "differential: unknown argument '$1': expected --seed N, --instructions N or --keep-going N" >&2
        exit 2
        ;;
    esac
done
exec cargo test --release --package twinvm-jit --test differential -- --nocapture
