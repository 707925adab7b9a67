#!/usr/bin/env bash
# The public items of the library against the recorded list: a change of the public interface updates the list. It has
# the declaration of each item, the signatures of its methods, the headers of its implementations with the number of
# items in each, and the traits that it implements. It also counts the types; two modules have a greatest number.
#
#   ci/surface.sh            compare, and count the types of each module
#   ci/surface.sh --update   record
set -euo pipefail
cd "$(dirname "$0")/.."
recorded=docs/public-items.txt
cargo doc --quiet --no-deps --features full
# Reads the pages, because the JSON of rustdoc needs nightly.
items=$(python3 - "${CARGO_TARGET_DIR:-target}/doc/nebula_memory" <<'PYTHON'
import html, pathlib, re, sys

pages = pathlib.Path(sys.argv[1])
LISTED = re.compile(
    r'<li><a href="([^"]*\b(struct|enum|trait|type|fn|macro|constant|attr|derive)\.[^"]*\.html)">'
    r"((?:advanced|allocator|core|integration|syscalls)::[^<]*)"
)
# An item that is shown at a second, shorter path is one item.
TWICE = re.compile(
    "core::ByteSize"
    "|advanced::budget::(Cancellation|Family|Policy|Refused|RefusedReason|Share|SharePolicy)"
)
# What an item has of its own comes on its page before these sections.
REST = re.compile('id="(trait-impl|deref-methods|synthetic-impl|blanket-impl|foreign-impls|implementors)')
HEADER = r'<h3 class="code-header">((?:unsafe )?impl.*?)</h3>'
# The header of an implementation; a method, constant or type with its code; a field or a variant.
MEMBER = re.compile(
    HEADER + r'|<section id="(?:ty)?(method|associatedconstant|associatedtype)\.(\w+)[^"]*"'
    r'.*?<h4 class="code-header">(.*?)</h4>|id="(?:struct)?(field|variant)\.(\w+)"',
    re.S,
)
# Traits of the compiler's own, and those that no user relies on.
UNNAMED = re.compile(r"\b(Freeze|UnsafeUnpin|RefUnwindSafe|UnwindSafe|StructuralPartialEq) for ")


def text(code):
    """Removes the markup. The result does not depend on where rustdoc breaks lines."""
    code = re.sub(r"<summary.*?</summary>|</?(div|br)\b[^>]*>", " ", code, flags=re.S)
    code = " ".join(html.unescape(re.sub(r"<[^>]*>", "", code)).split())
    return re.sub(r",? ([)\]>])", r"\1", re.sub(r"([(<\[]) ", r"\1", code)).rstrip(",")


def implemented(page):
    """Returns the traits that are implemented, with their types, apart from those of all types."""
    found = []
    for name in ("trait-implementations", "synthetic-implementations", "foreign-impls"):
        section = page.partition(f'<h2 id="{name}"')[2].partition("<h2 id=")[0]
        for header, associated in re.findall(
            HEADER + '|<h4 class="code-header">(type .*?)</h4>', section, re.S
        ):
            if header:
                found.append(text(header))
            else:
                found[-1] += f" {{ {text(associated)} }}"
    return found


items = set()
for address, kind, path in LISTED.findall((pages / "all.html").read_text()):
    if TWICE.fullmatch(path):
        continue
    page = (pages / address).read_text()
    declared = text(re.search(r'item-decl"><code>(.*?)</code></pre>', page, re.S)[1])
    # Some versions of rustdoc leave out the representation of a type with private fields.
    declared = re.sub(r"#\[repr\([^]]*\] ", "", declared)
    # The methods of a trait have lines of their own.
    items.add(f"{path} {kind}: {declared.partition(' {')[0] if kind == 'trait' else declared}")
    implementation, counts = "", {}
    for header, member, name, code, part, of in MEMBER.findall(REST.split(page)[0]):
        if header:
            implementation = text(header)
        elif member:
            # Some versions of rustdoc leave out the value of a constant. It may depend on the target, too.
            code = text(code).partition(" = ")[0] if member == "associatedconstant" else text(code)
            items.add(f"{path}::{name} {member}: {code}")
            counts[implementation] = counts.get(implementation, 0) + 1
        else:
            items.add(f"{path}::{of} {part}")
    items.update(f"{path} impl: {header} {{ {count} }}" for header, count in counts.items() if header)
    items.update(f"{path} impl: {header}" for header in implemented(page) if not UNNAMED.search(header))
print("\n".join(sorted(items)))
PYTHON
)
if [ "${1-}" = --update ]; then
    printf '%s\n' "$items" >"$recorded"
fi
if ! diff -u "$recorded" <(printf '%s\n' "$items"); then
    echo "the public items are not those of $recorded: run ci/surface.sh --update, and say why in the commit"
    exit 1
fi
# What a user has to know: types and traits.
types=$(grep -E '^[^ ]+ (struct|enum|trait|type):' <<<"$items" | sed -E 's/^(advanced::[a-z]+|[a-z]+).*/\1/')
sort <<<"$types" | uniq -c | sed -E 's/^ *([0-9]+) (.*)/\2: \1 types/'
echo "all: $(wc -l <<<"$types") types"
# A user of these modules chooses among all their types.
for bound in "allocator 30" "advanced::arena 14"; do
    read -r module most <<<"$bound"
    if [ "$(grep -cxF "$module" <<<"$types")" -gt "$most" ]; then
        echo "$module has more than $most types: make one private, or merge two"
        exit 1
    fi
done
