#!/usr/bin/env bash
# Changes of the ledger's code, one at a time, that no test notices: by cargo-mutants, on a copy of the tree. Takes
# hours, so `.ci/run` leaves it out. `ci/mutants.sh FILE…` looks at these files alone, and SHARD=0/8 at one part.
# MUTANT_TESTS=--lib runs the library's own tests alone, in a third of the time: what survives them is to be tried
# with all.
#
# The survivors that are known are in docs/MUTANTS.md, each with a reason.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"
if ! cargo mutants --version >/dev/null 2>&1; then
    cargo install --quiet cargo-mutants --locked --root target/tools
fi
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    files=('src/advanced/budget/**/*.rs' 'src/integration/traits/context/**/*.rs')
fi
names=()
for file in "${files[@]}"; do
    names+=(--file "$file")
done
# What a person reads is not compared; of files that only tests have, nothing is changed.
skipped=(--exclude '**/tests.rs' --exclude '**/random_tests.rs' --exclude '**/loom_tests.rs' --exclude '**/shuttle_tests.rs'
    --exclude '**/validate.rs' --exclude-re 'impl fmt::Debug' --exclude-re 'impl fmt::Display')
# The tests that know the ledger and contexts; the others only take time. The order is that of the chance to notice.
read -ra tests <<< "${MUTANT_TESTS:-}"
if [ ${#tests[@]} -eq 0 ]; then
    tests=(--lib)
    for name in $(cd tests && ls budget*.rs context*.rs isolation.rs model.rs); do
        tests+=("--test=${name%.rs}")
    done
fi
# For the build too, which would make every test of the crate otherwise.
arguments=()
for test in "${tests[@]}"; do
    arguments+=("--cargo-arg=$test")
done
export PROPTEST_CASES=64 CARGO_PROFILE_DEV_DEBUG=0 RUST_BACKTRACE=0
# A mutant that waits for ever is stopped: that it did is how it was noticed.
cargo mutants --no-shuffle --timeout "${MUTANT_TIMEOUT:-120}" --output target/mutants \
    ${SHARD:+--shard "$SHARD"} "${names[@]}" "${skipped[@]}" --features full "${arguments[@]}"
