#!/usr/bin/env bash
# Sourced at the root of the repository. `tool cargo-hack` finds the tool, or installs it under `target/tools`. It fails
# if the tool cannot be had. Without optimisation a tool is built in a third of the time, and is fast enough.
export PATH="$PWD/target/tools/bin:$PATH"
tool() {
    command -v "$1" >/dev/null || CARGO_PROFILE_DEV_DEBUG=0 timeout 600 cargo install --debug --quiet "$1" --locked --root target/tools
}
