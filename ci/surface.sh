#!/usr/bin/env bash
# The public items of the library against the recorded list: a change that adds or removes one updates the list.
#
#   ci/surface.sh            compare, and count the types of each module
#   ci/surface.sh --update   record
set -euo pipefail
cd "$(dirname "$0")/.."
recorded=docs/public-items.txt
cargo doc --quiet --no-deps --features full
# An item that is shown at a second, shorter path is one item.
items=$(grep -oE '<li><a href="[^"]*(struct|enum|trait|type|fn|macro|constant|attr|derive)\.[^"]*\.html">[^<]*' \
    target/doc/nebula_memory/all.html |
    sed -E 's/.*[/"](struct|enum|trait|type|fn|macro|constant|attr|derive)\.[^>]*>(.*)/\2 \1/' |
    grep -E '^(advanced|allocator|core|integration|syscalls)::' |
    grep -vE '^core::ByteSize ' | LC_ALL=C sort -u)
if [ "${1-}" = --update ]; then
    printf '%s\n' "$items" >"$recorded"
fi
if ! diff -u "$recorded" <(printf '%s\n' "$items"); then
    echo "the public items are not those of $recorded: run ci/surface.sh --update, and say why in the commit"
    exit 1
fi
# What a user has to know: types and traits.
types=$(printf '%s\n' "$items" | grep -E ' (struct|enum|trait|type)$')
printf '%s\n' "$types" |
    sed -E 's/^(advanced::[a-z]+|[a-z]+).*/\1/' | sort | uniq -c | sed -E 's/^ *([0-9]+) (.*)/\2: \1 types/'
echo "all: $(printf '%s\n' "$types" | wc -l) types"
