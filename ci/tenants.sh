#!/usr/bin/env bash
# Eight tenants, one of them hostile, in a memory cgroup of a third of what the work takes: with the
# ledger's limit the work survives, with right answers; without it the kernel kills it.
#
# usage: ci/tenants.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
OVERHEAD_MIB=16 # code, stacks, what the C library's heap keeps, and pages of the file with what is spilled

fail() { echo "tenants: $*" >&2; exit 1; }

engine=${WORKFLOW_ENGINE:-target/release/examples/workflow_engine}
[ -n "${WORKFLOW_ENGINE:-}" ] || cargo build --quiet --release --features full --example workflow_engine
work=$(mktemp -d) group=
# The kernel takes a moment to empty a cgroup whose processes are gone.
clean_up() {
    rm -rf "$work"
    for _ in $(seq 50); do [ -n "$group" ] && ! rmdir "$group" 2>/dev/null || return 0; sleep 0.1; done
    echo "tenants: $group could not be removed" >&2
}
trap clean_up EXIT

# The sources that this crate is built from, three times over: a third of their lists is more than a run takes.
# Without the import libraries of Windows: these are binaries of 12 MB.
mapfile -t input < <(cargo metadata --format-version 1 --all-features |
    grep -o '"manifest_path":"[^"]*/registry/src/[^"]*"' | sed 's/^.*:"//; s/\/Cargo.toml"$//' | grep -v '/windows_[^/]*$' | sort -u)
input=("${input[@]}" "${input[@]}" "${input[@]}")
job=(--report "$work/picture.html" --tenants 8 "${input[@]}")

free_mib=$("$engine" --unbounded "${job[@]}" |
    awk '$1 == "resident" { print int($3 == "GiB" ? $2 * 1024 : $2) }')
group_mib=$((free_mib / 3))
limit_mib=$((group_mib - OVERHEAD_MIB))
[ "$limit_mib" -gt 0 ] || fail "the work takes no more than $free_mib MiB"

# Sets `group` and its limit, where it may be made. Where swap is accounted it must not hide the limit.
make_group() {
    local v1=/sys/fs/cgroup/memory v2=/sys/fs/cgroup name=nebula-tenants-$$ bytes=$((group_mib << 20))
    if [ -f "$v1/memory.limit_in_bytes" ]; then
        mkdir "$v1/$name" 2>/dev/null || return
        group=$v1/$name
        echo "$bytes" > "$group/memory.limit_in_bytes" || return
        [ ! -f "$group/memory.memsw.limit_in_bytes" ] || echo "$bytes" > "$group/memory.memsw.limit_in_bytes"
    elif grep -qw memory "$v2/cgroup.subtree_control" 2>/dev/null; then
        mkdir "$v2/$name" 2>/dev/null || return
        group=$v2/$name
        echo "$bytes" > "$group/memory.max" || return
        [ ! -f "$group/memory.swap.max" ] || echo 0 > "$group/memory.swap.max"
    else
        return 1
    fi
}

# Runs the engine, in the group if there is one; sets `status`. The shell says who was killed, too.
run() {
    status=0
    {
        ([ -z "$group" ] || echo "$BASHPID" > "$group/cgroup.procs"; exec "$engine" "$@") \
            > "$work/out" 2>&1 || status=$?
    } 2> /dev/null
}

where="in $group_mib MiB"
make_group || { echo "skipped: no memory cgroup may be made here; without one"; where="with no cgroup"; }
run --hostile --verify --seconds "$seconds" --limit "${limit_mib}MiB" "${job[@]}"
[ "$status" -eq 0 ] || fail "the hostile tenant won (exit $status): $(tail -n 20 "$work/out")"
grep -q '^answers .* verified$' "$work/out" || fail "the answers were not verified"
refused=$(awk '/, hostile / { print $(NF - 1) }' "$work/out")
peak=$(awk '$1 == "accounted" { print $2, $3 }' "$work/out")
queries=$(awk '$1 == "answered" { print $2 }' "$work/out")
result="$where of the $free_mib MiB that the work takes: $queries queries, right answers, $peak accounted, hostile one refused $refused times"
if [ -n "$group" ]; then
    run --unbounded "${job[@]}"
    [ "$status" -eq 137 ] || fail "without a limit it was not killed (exit $status)"
    result+="; killed without the ledger's limit"
fi
echo "tenants: $result"
