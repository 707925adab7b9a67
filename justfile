# The same commands as continuous integration; `just` runs them all.
default: fmt clippy doc no_std platforms test example loom miri asan tsan fuzz

fmt:
    ci/fmt.sh

clippy:
    ci/clippy.sh

doc:
    ci/doc.sh

no_std:
    ci/no_std.sh

# Type-check for other operating systems.
platforms:
    ci/platforms.sh

test:
    ci/test.sh

example:
    ci/example.sh

loom:
    ci/loom.sh

miri:
    ci/miri.sh

asan:
    ci/asan.sh

tsan:
    ci/tsan.sh

# Seconds for each target.
fuzz seconds="20":
    ci/fuzz.sh {{seconds}}
