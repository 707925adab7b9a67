#!/usr/bin/env bash
# The same job twice, in a kernel memory cgroup of the engine's limit and a fixed overhead: with no
# limit the kernel kills it, with one it finishes with right answers.
#
# usage: examples/oom_demo.sh [DIRECTORY...]
#
# LIMIT_MIB sets the engine's limit; by default it is what lets the group have two thirds of what the
# job takes with no limit. WORKFLOW_ENGINE names the program; by default it is built.
#
# exit: 0 shown, 1 not as promised, 77 a cgroup may not be made here (the reason is printed).
set -euo pipefail

OVERHEAD_MIB=12 # code, stacks, and what the C library's heap keeps
LEAST_MIB=6     # the directory of the default input, and a run

fail() { echo "oom_demo: $*" >&2; exit 1; }
skip() { echo "oom_demo: cannot be shown here: $*" >&2; exit 77; }

# Sets `group`, a new memory cgroup, and `limit_file`, the name of its limit.
make_group() {
    local v2=/sys/fs/cgroup v1=/sys/fs/cgroup/memory name="nebula-oom-demo-$$"
    if [ -f "$v1/memory.limit_in_bytes" ]; then
        mkdir "$v1/$name" 2>/dev/null || skip "no right to make a cgroup in $v1; try as root"
        group=$v1/$name limit_file=memory.limit_in_bytes
    elif grep -qw memory "$v2/cgroup.subtree_control" 2>/dev/null; then
        mkdir "$v2/$name" 2>/dev/null || skip "no right to make a cgroup in $v2; try as root"
        group=$v2/$name limit_file=memory.max
    else
        skip "there is no memory cgroup, of version 1 or 2"
    fi
}

clean_up() {
    rm -rf "$work"
    [ -n "$group" ] || return 0
    # The kernel takes a moment to empty a cgroup whose processes are gone.
    for _ in $(seq 50); do
        rmdir "$group" 2>/dev/null && return
        sleep 0.1
    done
    echo "oom_demo: $group could not be removed" >&2
}

# Where swap is accounted it must not hide the limit.
set_limit() {
    echo "$1" > "$group/$limit_file" || skip "$group/$limit_file cannot be set"
    case $limit_file in
        memory.max) [ ! -f "$group/memory.swap.max" ] || echo 0 > "$group/memory.swap.max" ;;
        *) [ ! -f "$group/memory.memsw.limit_in_bytes" ] ||
            echo "$1" > "$group/memory.memsw.limit_in_bytes" ;;
    esac
}

# Processes of the group that the kernel has killed.
kills() {
    cat "$group"/memory.events "$group"/memory.oom_control 2>/dev/null |
        awk '$1 == "oom_kill" { n = $2 } END { print n + 0 }'
}

# Runs the engine in the group; sets `status`.
in_group() {
    status=0
    (echo "$BASHPID" > "$group/cgroup.procs" && exec "$engine" "$@") || status=$?
}

[ "$(uname -s)" = Linux ] || skip "this is not Linux"
cd "$(dirname "$0")/.."
engine=${WORKFLOW_ENGINE:-target/release/examples/workflow_engine}
[ -n "${WORKFLOW_ENGINE:-}" ] || cargo build --release --example workflow_engine
work=$(mktemp -d) group=
trap clean_up EXIT
make_group
job=(--queries 300 --report "$work/picture.html" "$@")

free=$("$engine" --unbounded "${job[@]}" | awk '$1 == "resident" { print $2, $3 }')
free_mib=$(awk '$2 == "MiB" { print int($1) } $2 == "GiB" { print int($1 * 1024) }' <<< "$free")
limit_mib=$(((${free_mib:-0} - OVERHEAD_MIB) * 2 / 3))
[ "$limit_mib" -ge "$LEAST_MIB" ] || limit_mib=$LEAST_MIB
limit_mib=${LIMIT_MIB:-$limit_mib}
group_mib=$((limit_mib + OVERHEAD_MIB))
echo "with no limit and no cgroup the job takes $free"
[ "$group_mib" -lt "${free_mib:-0}" ] ||
    fail "that fits in $group_mib MiB, the limit and its overhead: give it more to read"
set_limit $((group_mib << 20))
echo "cgroup $group: $group_mib MiB = limit of $limit_mib MiB + $OVERHEAD_MIB MiB"

in_group --unbounded "${job[@]}" > "$work/unbounded" 2>&1
[ "$status" -eq 137 ] && [ "$(kills)" -eq 1 ] ||
    fail "the run with no limit was not killed (exit $status, $(kills) kills): $(cat "$work/unbounded")"
echo "with no limit: killed by the kernel"

in_group --limit "${limit_mib}MiB" --verify "${job[@]}" > "$work/bounded" 2>&1
grep -E '^(indexed|answered|cache|accounted|resident|answers|workflow_engine)' "$work/bounded" || true
[ "$status" -eq 0 ] && [ "$(kills)" -eq 1 ] ||
    fail "the run with a limit did not finish (exit $status, $(kills) kills): $(cat "$work/bounded")"
grep -q '^answers .* verified$' "$work/bounded" || fail "the answers were not verified"
echo "with a limit: finished, with right answers"
