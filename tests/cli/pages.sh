# Pages in a browser: no error on the console, every chart drawn, nothing wider than a phone, A4 paper or a laptop, light and dark, printable.
# Skipped where there is no Chromium ($CHROMIUM names one). KEEP_TMP=1 keeps pages, screenshots and PDFs.
. tests/cli/lib.sh
for p in hf-report hf-plan; do
  if [ ! -x "$bin/$p" ]; then skip "$p is not built"; fi
done
browser=${CHROMIUM:-}
for name in chromium chromium-browser google-chrome; do
  if [ -z "$browser" ]; then browser=$(command -v $name || true); fi
done
if [ -z "$browser" ]; then skip "no Chromium here: pages are not looked at (install chromium, or name one in CHROMIUM)"; fi

flags=(--headless --disable-gpu --hide-scrollbars --force-device-scale-factor=1 --window-size=1400,1400 --virtual-time-budget=30000
  --allow-file-access-from-files --user-data-dir="$tmp/profile" --enable-logging=stderr)
if [ "$(id -u)" = 0 ]; then flags+=(--no-sandbox); fi
probe=$(readlink -f tests/cli/pages_probe.html)

# look PAGE [FLAG...]: result of the probe in $tmp/found.json, messages of the console in $tmp/console.
look() {
  local page=$1
  shift
  timeout 100 "$browser" "${flags[@]}" "$@" --dump-dom "file://$probe#file://$page" >"$tmp/dom" 2>"$tmp/browser" || fail "the browser ended with status $?"
  sed -n 's/.*<pre id="result">\(.*\)<\/pre>.*/\1/p' "$tmp/dom" | sed 's/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g' >"$tmp/found.json"
  jq -e 'has("overflow")' "$tmp/found.json" >/dev/null 2>&1 || fail "the probe found no page in $page"
  grep CONSOLE "$tmp/browser" | grep -v 'pages_probe.html' >"$tmp/console" || true
}
found() { jq -e "$1" "$tmp/found.json" >/dev/null || fail "$page: $2: $(jq -c . "$tmp/found.json")"; }

# The probe sees what it is there for.
cat >"$tmp/bad.html" <<'END'
<!DOCTYPE html><html><head><title>x</title></head><body><main id="main"><p style="width:900px">wide</p><canvas id="c" aria-labelledby="none"></canvas></main>
<script type="application/json" id="report-data">{"charts":[]}</script><script>nothing();</script></body></html>
END
page=$tmp/bad.html
look "$page"
found '(.overflow | length) > 0 and (.blank | length) == 3 and (.labels | length) > 1 and .canvases == 1 and .charts == 0' "the probe is blind"
[ -s "$tmp/console" ] || fail "the console's errors are not seen"

# One page of each kind: answers as they were written, and a plan for a machine of the catalog.
expect_exit 0 "$bin/hf-plan" plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --quiet --json
id=$(json .plan_id)
kinds=()
for doc in tests/golden/answers/*.json; do
  kind=$(basename "$doc" .json)
  sqlite3 "$HETEROFLOW_DB" "insert into answer(kind, created_ns, title, doc) values('$kind', 1, '$kind of a test', cast(readfile('$doc') as text))"
  expect_exit 0 "$bin/hf-report" "$kind" --html "$tmp/$kind.html" --csv "$tmp/$kind.csv" --json
  kinds+=("$kind")
done
expect_exit 0 "$bin/hf-report" plan "$id" --html "$tmp/plan.html" --quiet
expect_exit 0 "$bin/hf-report" whatif "$id" --published 51 --html "$tmp/machine-whatif.html" --quiet
kinds+=(plan machine-whatif)

for kind in "${kinds[@]}"; do
  page=$tmp/$kind.html
  look "$page"
  [ ! -s "$tmp/console" ] || fail "$kind: messages on the console: $(head -n 3 "$tmp/console")"
  found '.overflow == []' "wider than its window"
  found '.blank == [] and .charts == .canvases' "a chart is not drawn"
  found '.labels == []' "not usable without sight or pointer"
  found '.headings == 1 and .requests == 0 and .text > 500 and .dark == false' "the page as a whole"
done

# Dark, and on paper.
page=$tmp/${kinds[0]}.html
look "$page" --blink-settings=preferredColorScheme=0
found '.dark == true and .blank == []' "not dark where that is preferred"
timeout 100 "$browser" "${flags[@]}" --no-pdf-header-footer --print-to-pdf="$tmp/page.pdf" "file://$page" >/dev/null 2>&1 || fail "cannot be printed"
[ "$(head -c 5 "$tmp/page.pdf")" = "%PDF-" ] || fail "no PDF"
