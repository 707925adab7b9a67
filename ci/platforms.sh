#!/usr/bin/env bash
# Type-checks the library for platforms other than this one. A target that cannot be installed is
# skipped and named.
set -euo pipefail
cd "$(dirname "$0")/.."
for target in x86_64-pc-windows-gnu x86_64-apple-darwin x86_64-unknown-freebsd; do
    if ! timeout 120 rustup target add "$target" >/dev/null 2>&1; then
        echo "skipped: $target cannot be installed"
        continue
    fi
    RUSTFLAGS="-D warnings" cargo check --quiet --lib --features full --target "$target"
    echo "checked: $target"
done
