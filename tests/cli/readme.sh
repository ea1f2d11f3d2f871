# Every command of README.md's "The programs by example", literally, in order, from a folder of its own.
. tests/cli/lib.sh

ln -s "$PWD/examples" "$PWD/tests" "$tmp/"
mkdir -p "$tmp/build"
ln -s "$bin" "$tmp/build/bin"
awk '/^## The programs by example/ { on = 1 } on && /^```/ { n++; next } on && n == 1 && /^build/ { print } n == 2 { exit }' README.md >"$tmp/commands"
count=$(wc -l <"$tmp/commands")
if [ "$count" -lt 8 ]; then fail "only $count commands found in README.md"; fi
cd "$tmp"
unset HETEROFLOW_DB
export XDG_DATA_HOME=$tmp/data
while read -r line <&3; do
  expect_exit 0 bash -c "$line"
done 3<commands
[ -s plan2.json ] && [ -s report.html ] || fail "plan2.json or report.html was not written"
echo "$count commands"
