#!/usr/bin/env bash
# Changes of the ledger's code, one at a time, that no test notices: by cargo-mutants, on copies of the tree. Takes
# hours, so `.ci/run` leaves it out.
#
# The first pass runs the library's own tests, which take a second. What these do not notice is tried once more with
# the integration tests of the ledger and of contexts. A run that was interrupted goes on where it was.
#
#   ci/mutants.sh             all of the ledger and of contexts
#   ci/mutants.sh FILE…       these files
#   SHARD=0/8 ci/mutants.sh   one part of eight
#   JOBS=4 ci/mutants.sh      as many mutants at once
#
# The survivors that are known are in docs/MUTANTS.md, each with a reason.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/tool.sh
tool cargo-mutants
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    files=('src/advanced/budget/**/*.rs' 'src/integration/traits/context/**/*.rs')
fi
names=()
for file in "${files[@]}"; do
    names+=(--file "$file")
done
# What a person reads is not compared; of files that only tests have, nothing is changed.
skipped=(--exclude '**/tests.rs' --exclude '**/tests/*.rs' --exclude '**/*_tests.rs' --exclude '**/validate.rs'
    --exclude-re 'tests::' --exclude-re 'impl fmt::Debug' --exclude-re 'impl fmt::Display')
integration=()
for name in $(cd tests && ls budget*.rs config.rs context*.rs isolation.rs model.rs); do
    integration+=("--cargo-arg=--test=${name%.rs}")
done
export PROPTEST_CASES=64 CARGO_PROFILE_DEV_DEBUG=0 RUST_BACKTRACE=0
# A mutant that waits for ever is stopped: that it did is how it was noticed.
mutants() {
    local status=0
    cargo mutants --no-shuffle --iterate --output target/mutants --jobs "${JOBS:-1}" ${SHARD:+--shard "$SHARD"} \
        "${names[@]}" "${skipped[@]}" --features full "$@" || status=$?
    # 2 and 3: some were missed, or took too long.
    [ "$status" -eq 0 ] || [ "$status" -eq 2 ] || [ "$status" -eq 3 ] || exit "$status"
    return "$status"
}
mutants --timeout 40 --cargo-arg=--lib -- -- budget context || mutants --timeout 120 "${integration[@]}"
