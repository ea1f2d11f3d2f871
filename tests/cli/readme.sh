# Every command of README.md's "The programs by example", "Model files" and "Questions before buying", literally, in order, from a folder of its own.
. tests/cli/lib.sh

ln -s "$PWD/examples" "$PWD/tests" "$tmp/"
mkdir -p "$tmp/build"
ln -s "$bin" "$tmp/build/bin"
awk '/^## / { on = /^## (The programs by example|Model files|Questions before buying)/ } /^```/ { code = !code } on && code && /^build/ { print }' README.md >"$tmp/commands"
count=$(wc -l <"$tmp/commands")
if [ "$count" -lt 17 ]; then fail "only $count commands found in README.md"; fi
cd "$tmp"
unset HETEROFLOW_DB
export XDG_DATA_HOME=$tmp/data
while read -r line <&3; do
  expect_exit 0 bash -c "$line"
done 3<commands
[ -s plan2.json ] && [ -s report.html ] || fail "plan2.json or report.html was not written"
echo "$count commands"
