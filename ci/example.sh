#!/usr/bin/env bash
# The README's own example command, right answers at three limits, and the kernel's verdict.
set -euo pipefail
cd "$(dirname "$0")/.."
command=$(grep -m1 -xE 'cargo run --release --example workflow_engine' README.md)
echo "\$ $command"
$command
engine=target/release/examples/workflow_engine
for limit in 16MiB 64MiB 1GiB; do
    for threads in 1 8; do
        echo "-- --verify --limit $limit --threads $threads"
        "$engine" --verify --limit "$limit" --threads "$threads" --queries 300 > target/example.log ||
            { cat target/example.log; exit 1; }
        grep -E '^(accounted|resident|answers)' target/example.log
        if grep -q 'NOT KEPT' target/example.log; then exit 1; fi
    done
done
status=0
"$engine" --limit 1MiB > target/example.log 2>&1 || status=$?
[ "$status" -eq 1 ] && grep 'limit is too small' target/example.log
status=0
WORKFLOW_ENGINE=$engine examples/oom_demo.sh || status=$?
case $status in
    0) ;;
    77) echo "skipped: oom_demo, for the reason above" ;;
    *) exit "$status" ;;
esac
