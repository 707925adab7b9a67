#!/usr/bin/env bash
# A service over HTTP on loopback, under a process limit of 64 MiB, with three allocators and two loads:
# resident memory stays within 1.05 of the limit over the whole run, and the monitor takes 1 % of a core
# at rest at most. Memory sizes in the table are MiB, and the monitor's time a percentage of a core.
#
# usage: ci/resident.sh [SECONDS [off]]    seconds of each load; `off` also runs without the process limit
set -euo pipefail
cd "$(dirname "$0")/../crates/resident"
seconds=${1:-15} off=${2:-}
target=${CARGO_TARGET_DIR:-target}

if [ "$(uname -s)" != Linux ]; then
    echo "skipped: resident.sh reads Linux's /proc"
    exit 0
fi
# Huge pages that mimalloc keeps would count as resident.
export MIMALLOC_ALLOW_THP=0
mkdir -p "$target"
failed=0
printf '%-9s %-6s %-4s %7s %9s %8s %8s\n' allocator load keep peak 'req/s' refused monitor
for allocator in '' jemalloc mimalloc; do
    cargo test --quiet --release --features "$allocator" > "$target/resident.log" 2>&1 ||
        { cat "$target/resident.log"; exit 1; }
    cargo build --quiet --release --features "$allocator"
    for load in small large; do
        [ -z "$off" ] || "$target/release/resident" run "$load" "$seconds" off
        "$target/release/resident" run "$load" "$seconds" || failed=1
    done
    "$target/release/resident" rest "$seconds" || failed=1
done
exit "$failed"
