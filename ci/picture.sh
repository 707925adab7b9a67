#!/usr/bin/env bash
# The example's picture in a browser: at the width of a telephone, of a desk and of a printed page, light and dark.
set -euo pipefail
cd "$(dirname "$0")/.."
browser=
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        browser=$name
        break
    fi
done
if [ -z "$browser" ]; then
    echo "skipped: ci/picture.sh needs chromium, which is not installed"
    exit 0
fi
if ! "$browser" --headless --no-sandbox --disable-gpu --dump-dom about:blank 2>/dev/null | grep -q '<html>'; then
    echo "skipped: $browser does not run here"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo run --quiet --features full --example workflow_engine -- \
    --report "$folder/picture.html" --tenants 8 --limit 8MiB --queries 50 src tests >"$folder/report"

# Looks at the picture in a frame of the given width, and writes what it sees as one line. For print, the rules for
# print apply on the screen.
look() {
    local width=$1 scheme=$2 rules=print
    if [ "$3" = print ]; then rules=all; fi
    {
        echo "<!DOCTYPE html><iframe width=$width height=2000 style=\"border:0\" srcdoc=\""
        sed "s/@media print/@media $rules/"'; s/&/\&amp;/g; s/"/\&quot;/g' "$folder/picture.html"
        cat <<'PAGE'
"></iframe><pre id=seen></pre><script>
onload = () => {
    const page = document.querySelector("iframe").contentDocument;
    const texts = [...page.querySelectorAll("svg text")].map(text => text.getBoundingClientRect());
    const style = page.defaultView.getComputedStyle(page.body);
    const light = colour => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0) / 765;
    seen.textContent = "seen " + JSON.stringify({
        charts: page.querySelectorAll("svg[role=img] > title").length,
        described: [...page.querySelectorAll("svg > desc")].every(desc => desc.textContent.length > 20),
        sideways: page.documentElement.scrollWidth > page.documentElement.clientWidth,
        small: Math.min(...texts.map(text => text.height)) < 10,
        outside: texts.some(text => text.left < 0 || text.right > page.documentElement.clientWidth + 1),
        crossing: [...page.querySelectorAll("svg")].some(chart => {
            const times = [...chart.querySelectorAll(".time")].map(time => time.getBoundingClientRect());
            return times.some((time, at) => at > 0 && time.left < times[at - 1].right);
        }),
        swatches: [...page.querySelectorAll(".legend i")].every(swatch =>
            page.defaultView.getComputedStyle(swatch).webkitPrintColorAdjust === "exact"),
        lines: page.defaultView.getComputedStyle(page.querySelector("pre")).whiteSpace,
        back: light(style.backgroundColor) > 0.5 ? "light" : "dark",
        contrast: Math.abs(light(style.backgroundColor) - light(style.color)) > 0.6,
    });
};
</script>
PAGE
    } >"$folder/frame.html"
    "$browser" --headless --no-sandbox --disable-gpu --window-size=1400,2200 --virtual-time-budget=5000 \
        --blink-settings=preferredColorScheme="$([ "$scheme" = dark ] && echo 0 || echo 1)" \
        --dump-dom "file://$folder/frame.html" 2>"$folder/browser" | grep -oE '^.*seen \{[^}]*\}' | sed 's/.*seen //'
}

for media in screen print; do
    widths=(375 1280) lines=pre
    # The width of a page of A4 between its margins. Paper is light, and does not scroll.
    if [ "$media" = print ]; then widths=(718) lines=pre-wrap; fi
    for width in "${widths[@]}"; do
        for scheme in light dark; do
            back=$([ "$media" = print ] && echo light || echo "$scheme")
            seen=$(look "$width" "$scheme" "$media")
            expected='{"charts":2,"described":true,"sideways":false,"small":false,"outside":false,"crossing":false,"swatches":true,"lines":"'$lines'","back":"'$back'","contrast":true}'
            if [ "$seen" != "$expected" ]; then
                printf 'at %s pixels, %s, %s: %s\nexpected: %s\n' "$width" "$scheme" "$media" "$seen" "$expected"
                exit 1
            fi
            echo "at $width pixels, $scheme, $media: as it should be"
        done
    done
done
