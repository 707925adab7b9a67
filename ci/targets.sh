#!/usr/bin/env bash
# The figures that the project sets itself, on a machine that does nothing else: the public types of a module, the
# README's first command and its test command from an empty target directory, and the tests beside busy threads.
#
#   ci/targets.sh [RUNS]    RUNS of the tests beside eight busy threads; 20 if not given, 0 for none
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1-20}
missed=0
# Prints a figure beside its target, and counts it if it is missed.
report() {
    local name=$1 figure=$2 target=$3 verdict=met
    if [ "$figure" -gt "$target" ]; then
        verdict=missed
        missed=$((missed + 1))
    fi
    echo "$name: $figure, target $target: $verdict"
}
types=$(bash ci/surface.sh)
of() {
    grep -oP "^$1: \K[0-9]+(?= types)" <<<"$types"
}
report "public types of allocator" "$(of allocator)" 30
report "public types of arena" "$(of advanced::arena)" 14
report "public types without lockfree and pool" "$(($(of all) - $(of advanced::lockfree) - $(of advanced::pool)))" 120
# Runs a command of the README from an empty target directory; the registry is filled before.
from_nothing() {
    local command directory
    command=$(grep -m1 -xE "$1" README.md)
    directory=$(mktemp -d target/targets.XXXXXX)
    SECONDS=0
    CARGO_TARGET_DIR=$directory $command >"$directory.log" 2>&1 || { tail -40 "$directory.log"; exit 1; }
    report "seconds of \`$command\`" "$SECONDS" "$2"
    rm -rf "$directory" "$directory.log"
}
cargo fetch --quiet
mkdir -p target
from_nothing 'cargo run --release --example workflow_engine' 45
from_nothing 'cargo test' 120
if [ "$runs" -gt 0 ]; then
    busy=()
    for _ in 1 2 3 4 5 6 7 8; do
        while :; do :; done &
        busy+=($!)
    done
    trap 'kill "${busy[@]}"' EXIT
    failed=0
    for _ in $(seq "$runs"); do
        cargo test --quiet >target/loaded.log 2>&1 || { failed=$((failed + 1)); tail -40 target/loaded.log; }
    done
    report "failed runs of the tests beside eight busy threads, of $runs" "$failed" 0
fi
[ "$missed" -eq 0 ] || echo "$missed targets are missed"
