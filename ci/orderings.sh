#!/usr/bin/env bash
# Weakens each memory ordering of the lock-free structures in turn, and requires that a model of loom fails.
# `ci/orderings.sh PATH…` does so for these files alone. Those that may be weaker, with the reason, are in
# ci/orderings.txt. Not part of .ci/run: it takes some 10 s for each ordering.
set -euo pipefail
cd "$(dirname "$0")/.."
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
    files=(src/advanced/pool/shelf/*.rs src/allocator/magazines/*.rs src/advanced/lockfree/*.rs src/advanced/lockfree/*/*.rs)
fi
accepted=$PWD/ci/orderings.txt
copy=target/orderings
mkdir -p "$copy/target"
# The target directory in the copy is kept, so that each build is a small one.
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory "$copy" --overwrite
cd "$copy"
export CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_PROFILE_TEST_DEBUG=0 RUST_BACKTRACE=0
export RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3
models() {
    timeout 300 cargo test --quiet --lib --target-dir target -- pool::shelf lockfree >target/last.log 2>&1
}

# Everything is built once now, so that the time limit is that of a small build and the models.
cargo test --quiet --lib --no-run --target-dir target
models || {
    cat target/last.log
    exit 1
}

tried=0 missed=0
for file in "${files[@]}"; do
    case $file in *tests.rs) continue ;; esac
    # What comes after the tests of a file is not tried.
    code=$(sed '/^mod tests/,$d' "$file")
    while IFS=: read -r line offset ordering; do
        [ -n "$line" ] || continue
        text=$(sed -n "${line}p" "$file" | sed 's/^ *//')
        tried=$((tried + 1))
        cp "$file" target/original.rs
        perl -0pi -e "substr(\$_, $offset, length('$ordering')) = 'Ordering::Relaxed'" "$file"
        if models; then
            if grep -qF "$file: $text" "$accepted"; then
                echo "accepted: $file:$line: $text"
            else
                echo "MISSED: $file:$line: $text"
                missed=$((missed + 1))
            fi
        elif ! grep -q 'test result: FAILED\|panicked' target/last.log; then
            echo "NOT BUILT: $file:$line: $text"
            missed=$((missed + 1))
        fi
        cp target/original.rs "$file"
    done < <(printf '%s\n' "$code" | grep -nboE 'Ordering::(Acquire|Release|AcqRel|SeqCst)' || true)
done
echo "$tried orderings tried, $missed missed"
[ "$missed" -eq 0 ]
