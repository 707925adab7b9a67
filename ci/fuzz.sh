#!/usr/bin/env bash
# Random operations, guided by coverage and under AddressSanitizer, on each model for a while, two at a
# time. `ci/fuzz.sh SECONDS` says how long; 15 each by default. `ci/fuzz.sh SECONDS TARGET…` runs these alone.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-15}
targets=("${@:2}")
export seconds
source ci/tool.sh
run() {
    log=target/fuzz-$1.log
    # Run by itself, so that no lock of cargo's is waited for.
    "fuzz/target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release/$1" "fuzz/corpus/$1" \
        -artifact_prefix="fuzz/artifacts/$1/" -max_total_time="$seconds" -max_len=2000 -timeout=10 \
        -rss_limit_mb=1024 -print_final_stats=1 > "$log" 2>&1 ||
        { tail -n 60 "$log"; return 255; } # at which xargs stops
    echo "$1: $(grep -m1 -oE 'number_of_executed_units: *[0-9]+' "$log") in $seconds s"
}
export -f run
if tool cargo-fuzz && cargo +nightly fuzz build --features libfuzzer; then
    echo "with cargo-fuzz, under AddressSanitizer"
    if [ ${#targets[@]} -eq 0 ]; then
        for target in fuzz/fuzz_targets/*.rs; do
            targets+=("$(basename "$target" .rs)")
        done
    fi
    for target in "${targets[@]}"; do
        mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    done
    printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} bash -c 'run {}'
else
    echo "without cargo-fuzz or nightly: pseudo-random inputs, not guided by coverage"
    cargo run --quiet --release --manifest-path fuzz/Cargo.toml --bin replay -- 3000
fi
