#!/usr/bin/env bash
# The README's own example command, right answers at three limits, the kernel's verdict, and that with a
# hostile tenant.
set -euo pipefail
cd "$(dirname "$0")/.."

writable_memory_cgroup() {
    [ -w /sys/fs/cgroup/memory/memory.limit_in_bytes ] || {
        grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null &&
            [ -w /sys/fs/cgroup/cgroup.procs ]
    }
}

command=$(grep -m1 -xE 'cargo run --release --example workflow_engine' README.md)
echo "\$ $command"
$command | tee target/example.log
# By default it reads every crate that this machine has the source of: few or many.
grep -qE '^accounted .*\((a quarter of the input|the most by default)\): kept$' target/example.log || {
    echo "the default limit was not kept"
    exit 1
}
if grep -q '^cache .* 0 given up$' target/example.log; then
    echo "a limit that makes nothing give way shows nothing"
    exit 1
fi
engine=target/release/examples/workflow_engine
# Only the crates that this one is built from, without import libraries of Windows: these are binaries of 12 MB, and
# the limits are promised for sources.
mapfile -t input < <(cargo metadata --format-version 1 --all-features |
    grep -o '"manifest_path":"[^"]*/registry/src/[^"]*"' | sed 's/^.*:"//; s/\/Cargo.toml"$//' | grep -v '/windows_[^/]*$' | sort -u)
[ "${#input[@]}" -gt 0 ]
for limit in 16MiB 64MiB 1GiB; do
    for threads in 1 8; do
        echo "-- --verify --limit $limit --threads $threads"
        "$engine" --verify --limit "$limit" --threads "$threads" "${input[@]}" > target/example.log ||
            { cat target/example.log; exit 1; }
        grep -E '^(accounted|resident|answers)' target/example.log
    done
done
echo "-- --verify --limit 24MiB --process-limit"
"$engine" --verify --limit 24MiB --process-limit "${input[@]}" > target/example.log ||
    { cat target/example.log; exit 1; }
grep -E '^(accounted|resident|answers)' target/example.log
status=0
"$engine" --limit 1MiB > target/example.log 2>&1 || status=$?
[ "$status" -eq 1 ] && grep 'limit is too small' target/example.log
status=0
WORKFLOW_ENGINE=$engine examples/oom_demo.sh "${input[@]}" || status=$?
case $status in
    0) ;;
    77)
        if [ "$(id -u)" -eq 0 ] && writable_memory_cgroup; then exit 1; fi
        echo "skipped: oom_demo, for the reason above"
        ;;
    *) exit "$status" ;;
esac
WORKFLOW_ENGINE=$engine ci/tenants.sh 10
