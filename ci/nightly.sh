#!/usr/bin/env bash
# Sourced: leaves the script, saying so in one line, where nightly lacks the components named.
nightly_with() {
    local component
    for component in "$@"; do
        if ! rustup component add "$component" --toolchain nightly >/dev/null 2>&1; then
            echo "skipped: $(basename "$0") needs nightly with $component, which cannot be had here"
            exit 0
        fi
    done
}
