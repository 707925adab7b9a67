#!/usr/bin/env bash
# Sourced at the root of the repository. `tool cargo-hack` finds the tool, or installs it under `target/tools`. It fails
# if the tool cannot be had.
export PATH="$PWD/target/tools/bin:$PATH"
tool() {
    command -v "$1" >/dev/null || timeout 600 cargo install --quiet "$1" --locked --root target/tools
}
