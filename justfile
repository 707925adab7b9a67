# The same commands as continuous integration; `just` runs them all.
default: fmt clippy doc surface features package std_allocator deny platforms test example picture loom shuttle miri asan tsan fuzz

# What takes long and rarely fails.
deep: instructions big_endian
    ci/resident.sh 15
    ci/targets.sh
    cargo run --release --manifest-path examples/sqlite_pool/Cargo.toml

fmt:
    ci/fmt.sh

clippy:
    ci/clippy.sh

doc:
    ci/doc.sh

# The public items against docs/public-items.txt; `just surface --update` records them.
surface *options:
    ci/surface.sh {{options}}

# Every pair of features.
features:
    ci/features.sh

# The package, the oldest dependencies, the oldest compiler.
package:
    ci/package.sh

# Instructions of the fast paths, by valgrind.
instructions:
    ci/instructions.sh

# The standard library's Allocator trait in place of the library's own.
std_allocator:
    ci/std_allocator.sh

# Licences, sources and known faults of the dependencies.
deny:
    ci/deny.sh

# Type-check for other operating systems.
platforms:
    ci/platforms.sh

test:
    ci/test.sh

example:
    ci/example.sh

# The example's picture, in headless Chromium.
picture:
    ci/picture.sh

loom:
    ci/loom.sh

# Schedules of each kind for each test.
shuttle schedules="3000":
    ci/shuttle.sh {{schedules}}

# Memory orderings that can be weakened and no model notices. Files, or those of the lock-free structures.
orderings *files:
    ci/orderings.sh {{files}}

# Changes of the code that no test notices; takes hours. Files, or those of the ledger.
mutants *files:
    ci/mutants.sh {{files}}

miri:
    ci/miri.sh

# Miri as a big-endian machine.
big_endian:
    ci/big_endian.sh

asan:
    ci/asan.sh

tsan:
    ci/tsan.sh

# Seconds for each target.
fuzz seconds="15":
    ci/fuzz.sh {{seconds}}
