#!/usr/bin/env bash
# The dependencies: licences, sources, two versions of one crate, and known faults.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/tool.sh
if ! tool cargo-deny; then
    echo "skipped: ci/deny.sh needs cargo-deny, which cannot be had here"
    exit 0
fi
cargo deny --log-level error check bans licenses sources
# The list of known faults is a repository of its own.
if cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check advisories
else
    echo "skipped: known faults of dependencies, as their list cannot be fetched here"
fi
