#!/usr/bin/env bash
# The instructions of the fast paths, counted by callgrind, against the bounds in crates/instructions. The counts are
# exact for one version of the compiler and of the C library.
set -euo pipefail
cd "$(dirname "$0")/../crates/instructions"
if ! command -v valgrind >/dev/null; then
    echo "skipped: ci/instructions.sh needs valgrind"
    exit 0
fi
tools="$PWD/../../target/tools"
export PATH="$tools/bin:$PATH"
# The runner has the version of the library that the benchmark is linked with.
version=$(cargo metadata --quiet --locked --format-version 1 |
    grep -oE '"name":"gungraun","version":"[^"]+"' | grep -oE '[0-9]+\.[0-9]+\.[0-9]+')
if ! gungraun-runner --version 2>/dev/null | grep -qF "$version"; then
    cargo install --quiet gungraun-runner --version "$version" --locked --root "$tools"
fi
cargo bench --quiet --locked
