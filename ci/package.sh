#!/usr/bin/env bash
# The package: what it names is in it, and nothing that a user does not need; it builds by itself; with the oldest
# versions of the dependencies that the manifest allows, and with the oldest compiler that it names.
set -euo pipefail
cd "$(dirname "$0")/.."
files=$(cargo package --quiet --allow-dirty --list)
# The manifest names the README, and the README names documents and examples.
for named in $(grep -oE '^(readme|license-file) = "[^"]+"' Cargo.toml | cut -d'"' -f2) LICENSE-MIT LICENSE-APACHE \
    $(grep -oE '`(docs|examples)/[^`]+`' README.md | tr -d '`' | sort -u); do
    grep -qxF "$named" <<<"$files" || { echo "$named is not in the package"; exit 1; }
done
unexpected=$(grep -vxE 'src/([a-z0-9_]+/)*[a-z0-9_]+\.rs|docs/[A-Z]+\.md|examples/([a-z_]+/[a-z_]+\.rs|[a-z_]+\.sh)|'\
'(README|CHANGELOG)\.md|LICENSE-(MIT|APACHE)|Cargo\.(toml|toml\.orig|lock)|\.cargo_vcs_info\.json' <<<"$files" || true)
if [ -n "$unexpected" ]; then
    printf 'the package has files that no user needs:\n%s\n' "$unexpected"
    exit 1
fi
CARGO_TARGET_DIR=target/package cargo package --quiet --allow-dirty
oldest=$(grep -m1 '^rust-version' Cargo.toml | cut -d'"' -f2)
if ! rustup toolchain install "$oldest" --profile minimal >/dev/null 2>&1; then
    echo "skipped: Rust $oldest cannot be had here"
    oldest=stable
fi
copy=target/package/oldest
rm -rf "$copy"
mkdir -p "$copy"
cp -r src README.md "$copy"
# What only tests need has minimal versions of its own.
awk '/^\[/ { skipped = /dev-dependencies|cfg\((loom|shuttle)\)|^\[\[example/ } !skipped' Cargo.toml >"$copy/Cargo.toml"
cd "$copy"
if ! rustup run nightly cargo --version >/dev/null 2>&1; then
    echo "skipped: the oldest versions of the dependencies need cargo nightly, which cannot be had here"
    exit 0
fi
cargo +nightly generate-lockfile --quiet -Z direct-minimal-versions
cargo +"$oldest" check --quiet --locked --lib --features full
cargo +"$oldest" check --quiet --locked --lib --no-default-features --features alloc
echo "builds with Rust $oldest and the oldest versions of its dependencies"
