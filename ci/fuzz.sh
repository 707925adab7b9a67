#!/usr/bin/env bash
# Random operations, guided by coverage and under AddressSanitizer, on each model for a while.
# `ci/fuzz.sh SECONDS` says how long; 20 each by default.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
export PATH="$PWD/target/tools/bin:$PATH"
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    timeout 300 cargo install --quiet cargo-fuzz --locked --root target/tools >/dev/null 2>&1 || true
fi
if cargo +nightly fuzz --version >/dev/null 2>&1 && cargo +nightly fuzz build --features libfuzzer; then
    echo "with cargo-fuzz, under AddressSanitizer"
    for target in fuzz/fuzz_targets/*.rs; do
        target=$(basename "$target" .rs)
        log=target/fuzz-$target.log
        cargo +nightly fuzz run --features libfuzzer "$target" -- \
            -max_total_time="$seconds" -max_len=2000 -rss_limit_mb=1024 -print_final_stats=1 > "$log" 2>&1 ||
            { tail -n 60 "$log"; exit 1; }
        echo "$target: $(grep -m1 -oE 'number_of_executed_units: *[0-9]+' "$log") in $seconds s"
    done
else
    echo "without cargo-fuzz or nightly: pseudo-random inputs, not guided by coverage"
    cargo run --quiet --release --manifest-path fuzz/Cargo.toml --bin replay -- 3000
fi
