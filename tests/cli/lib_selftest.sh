#!/bin/bash
# The checks of lib.sh pass when they should and fail when they should, naming the line.
. tests/cli/lib.sh

# passes CODE, fails CODE: a test made of that code ends with status 0, or 1 and a line that names it.
run_code() { # the code is in line 2
  printf '. tests/cli/lib.sh\n%s\n' "$1" >"$tmp/inner.sh"
  bash "$tmp/inner.sh" "$bin"
}
passes() { expect_exit 0 run_code "$1"; }
fails() {
  expect_exit 1 run_code "$1"
  expect_stderr_line '/inner\.sh:2: '
}

passes 'expect_exit 0 true'
passes 'expect_exit 3 bash -c "exit 3"'
fails 'expect_exit 0 false'
fails 'expect_exit 2 bash -c "exit 3"'
passes 'expect_exit 0 echo "{\"a\": [1, 2]}"; expect_json ".a | length == 2"; expect_same "$(json .a[1])" 2 element'
passes 'expect_exit 0 echo "{\"a\": 4}"; expect_json --argjson want 4 ".a == \$want"'
fails 'expect_exit 0 echo "{\"a\": 1}"; expect_json ".a == 2"'
fails 'expect_exit 0 echo "{\"a\": 1} {}"; expect_json ".a == 1"'
fails 'expect_exit 0 echo "{\"a\": "; expect_json "true"'
fails 'expect_exit 0 true; expect_json "true"'
passes 'expect_error 2 "^x: bad$" bash -c "echo x: bad >&2; exit 2"'
fails 'expect_error 2 "^x: good$" bash -c "echo x: bad >&2; exit 2"'
fails 'expect_error 2 bad bash -c "echo x: bad >&2; echo out; exit 2"'
fails 'expect_error 2 bad bash -c "echo x: bad >&2; echo more >&2; exit 2"'
fails 'expect_error 2 bad bash -c "echo x: bad >&2; exit 3"'
passes 'expect_exit 0 echo abc; expect_stdout_line "^a.c$"'
fails 'expect_exit 0 echo abc; expect_stdout_line "^b"'
fails 'expect_same 1 2 number'
fails 'fail "on purpose"'
expect_exit 77 run_code 'skip "no reason"'
expect_exit 1 run_code 'false; true' # any command that fails ends the test

# Figures by the clock: a quiet machine makes them fail, a busy one is tried three times and then skipped.
share() { echo "echo '{\"other_cpu_share\": $1}' >\"\$out\"; note_others; wrong=off;"; }
passes 'settle true'
fails 'wrong=off; settle false'
fails "try() { $(share 0.05) false; }; settle try"
expect_exit 77 run_code "try() { $(share 0.4) false; }; settle try"
expect_stdout_line '^skipped: other programs had 40 % of the CPU: off$'
expect_same "$(grep -c '^again: off' "$out")" 3 'tries'
passes "n=0; try() { $(share 0.4) n=\$((n + 1)); [ \$n = 3 ]; }; settle try; expect_same \$n 3 tries"
passes 'expect_cpu_seconds 0.5 sleep 1'
fails 'expect_cpu_seconds 0.1 bash -c "for ((i = 0; i < 500000; i++)); do :; done"'
fails 'expect_cpu_seconds 9 false'

# The folder of a test is removed, whatever its end.
expect_exit 0 run_code 'echo "$tmp"'
if [ -e "$(cat "$out")" ]; then fail "the folder of a test that passed is left"; fi
expect_exit 1 run_code 'echo "$tmp"; fail x'
if [ -e "$(head -n 1 "$out")" ]; then fail "the folder of a test that failed is left"; fi
