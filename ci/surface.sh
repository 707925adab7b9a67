#!/usr/bin/env bash
# The public items of the library against the recorded list, with their own methods, fields and variants: a change that
# adds or removes one updates the list.
#
#   ci/surface.sh            compare, and count the types of each module
#   ci/surface.sh --update   record
set -euo pipefail
cd "$(dirname "$0")/.."
recorded=docs/public-items.txt
cargo doc --quiet --no-deps --features full
pages=target/doc/nebula_memory
# Prints the page, the kind and the path of each item. An item that is shown at a second, shorter path is one item.
list() {
    grep -oE '<li><a href="[^"]*(struct|enum|trait|type|fn|macro|constant|attr|derive)\.[^"]*\.html">[^<]*' \
        "$pages/all.html" |
        sed -E 's/.*href="([^"]*(struct|enum|trait|type|fn|macro|constant|attr|derive)\.[^"]*)">(.*)/\1 \2 \3/' |
        grep -E ' (advanced|allocator|core|integration|syscalls)::' |
        grep -vE ' (core::ByteSize|advanced::budget::(Cancellation|Family|Policy|Refused|RefusedReason|Share|SharePolicy))$'
}
# Prints what an item has of its own: what comes on its page before the implementations of traits.
members() {
    grep -oE 'id="[^"]*"' "$1" |
        awk '/"(trait-implementations|deref-methods|synthetic-implementations|implementors)/ { exit } { print }' |
        grep -E '"(method|tymethod|associatedconstant|associatedtype|structfield|variant)\.[A-Za-z0-9_]+"' |
        sed -E 's/id="([a-z]*)\.(.*)"/\2 \1/; s/tymethod$/method/; s/structfield$/field/' || true
}
items=$(list | while read -r page kind path; do
    echo "$path $kind"
    members "$pages/$page" | sed "s/^/$path::/"
done | LC_ALL=C sort -u)
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
