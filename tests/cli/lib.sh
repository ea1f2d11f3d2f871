# lib.sh: helpers for the tests of the command line; source it: . tests/cli/lib.sh
#
# Each test is run as `bash tests/cli/NAME.sh FOLDER_OF_PROGRAMS` from the repository root. Sourcing this sets
#   $bin    that folder, absolute
#   $tmp    an empty folder, removed at the end (kept and named when KEEP_TMP is set)
#   $out $err   files with the output of the last expect_exit
# and arranges for the test to end with status 1 at the first check that fails, saying which line.
set -euo pipefail

bin=$(readlink -m "${1:-build/bin}")
tmp=$(mktemp -d)
out=$tmp/.stdout
err=$tmp/.stderr
: >"$out"
: >"$err"
export HETEROFLOW_DB=$tmp/test.db # never the user's own
unset HF_LOG HF_FAIL_ALLOC

finish_test() {
  local status=$?
  if [ -n "${KEEP_TMP:-}" ]; then echo "kept: $tmp" >&2; else rm -rf "$tmp"; fi
  exit $status
}
trap finish_test EXIT

# fail MESSAGE: ends the test, naming its line and showing what the last command printed.
fail() {
  local depth=1
  while [ "${BASH_SOURCE[$depth]##*/}" = lib.sh ]; do depth=$((depth + 1)); done
  echo "${BASH_SOURCE[$depth]}:${BASH_LINENO[$((depth - 1))]}: $1" >&2
  if [ -s "$out" ]; then echo "--- standard output (first lines)" >&2; head -n 20 "$out" >&2; fi
  if [ -s "$err" ]; then echo "--- standard error (last lines)" >&2; tail -n 20 "$err" >&2; fi
  exit 1
}

# skip REASON: this machine cannot run the test.
skip() {
  echo "skipped: $1"
  exit 77
}

# expect_exit STATUS COMMAND...: runs it and compares its exit status. Standard input is the caller's.
expect_exit() {
  local want=$1 got=0
  shift
  "$@" >"$out" 2>"$err" || got=$?
  if [ "$got" != "$want" ]; then fail "exit status $got where $want is expected: $*"; fi
}

# expect_error STATUS REGEX COMMAND...: fails with STATUS, nothing on standard output and one line on standard error, which
# matches the extended regular expression.
expect_error() {
  local status=$1 regex=$2
  shift 2
  expect_exit "$status" "$@"
  if [ -s "$out" ]; then fail "something on standard output beside an error: $*"; fi
  if [ "$(wc -l <"$err")" != 1 ]; then fail "$(wc -l <"$err") lines on standard error where one is expected: $*"; fi
  expect_stderr_line "$regex"
}

# A line of the last command's standard error (output) matches the extended regular expression.
expect_stderr_line() { grep -Eq -- "$1" "$err" || fail "no line on standard error matches: $1"; }
expect_stdout_line() { grep -Eq -- "$1" "$out" || fail "no line on standard output matches: $1"; }

# The last command's standard output is exactly one JSON value for which the jq expression is true. Further arguments go to jq
# before it: expect_json --arg name value EXPRESSION.
expect_json() {
  if ! jq -e -s 'length == 1' "$out" >/dev/null 2>&1; then fail "standard output is not one JSON value"; fi
  jq -e "$@" "$out" >/dev/null || fail "not true of the JSON on standard output: ${*: -1}"
}

# expect_cpu_seconds MOST COMMAND...: it succeeds, and all its threads together take at most so many seconds of CPU: what other programs do
# beside it does not count, as it would by the clock.
expect_cpu_seconds() {
  local most=$1 before after
  shift
  children_ms
  before=$ms
  expect_exit 0 "$@"
  children_ms
  after=$ms
  if [ $((after - before)) -gt "$(jq -n "$most * 1000 | floor")" ]; then fail "$((after - before)) ms of CPU where at most $most s are expected: $*"; fi
}
children_ms() {
  local um us sm ss
  times >"$tmp/.times" # not in a subshell: that has no children yet
  read -r um us sm ss < <(sed -n '2s/[ms]/ /gp' "$tmp/.times")
  ms=$(jq -n "($um + $sm) * 60000 + ($us + $ss) * 1000 | floor")
}

# Figures by the clock are judged only where the machine was the test's own. A run of hf-run --json is noted by note_others; then
# `settle FUNCTION [ARGS]` calls it up to three times until it returns 0. It fails when the function does though no other program had more than a
# tenth of the CPU during its runs, and skips the test when some had in every try. The function sets `wrong` to what is wrong.
note_others() { jq -r '.other_cpu_share // 0' "$out" >>"$tmp/.others"; }
settle() {
  local most
  for _ in 1 2 3; do
    : >"$tmp/.others"
    if "$@"; then return 0; fi
    most=$(jq -s 'max // 0' "$tmp/.others")
    if jq -en "$most <= 0.1" >/dev/null; then fail "$wrong"; fi
    echo "again: $wrong, but other programs had $(jq -n "$most * 100 | round") % of the CPU"
  done
  skip "other programs had $(jq -n "$most * 100 | round") % of the CPU: $wrong"
}

# json EXPRESSION: the value, raw, from the last command's standard output.
json() { jq -r "$1" "$out"; }

# expect_same A B WHAT
expect_same() {
  if [ "$1" != "$2" ]; then fail "$3: '$1' and '$2' differ"; fi
}
