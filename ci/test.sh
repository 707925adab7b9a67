#!/usr/bin/env bash
# The README's own test command, then everything with all features and more random cases.
set -euo pipefail
cd "$(dirname "$0")/.."
command=$(grep -m1 -xE 'cargo test' README.md)
echo "\$ $command"
$command
PROPTEST_CASES=256 ARBITRATION_SEEDS=24 cargo test --features full
