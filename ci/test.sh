#!/usr/bin/env bash
# The README's own test command, then everything with all features.
set -euo pipefail
cd "$(dirname "$0")/.."
command=$(grep -m1 -xE 'cargo test' README.md)
echo "\$ $command"
$command
ARBITRATION_SEEDS=24 cargo test --features full
