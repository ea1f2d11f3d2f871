#!/bin/bash
# What holds for all four programs: they are installed, print version and manual page, and refuse wrong usage with one line and
# exit status 2, writing nothing.
. tests/cli/lib.sh

programs=(hf-profile hf-plan hf-run hf-report)
for p in "${programs[@]}"; do
  if [ ! -x "$bin/$p" ]; then fail "$p is missing in $bin"; fi

  expect_exit 0 "$bin/$p" --version
  expect_stdout_line "^$p \(HeteroFlow\) [0-9]+\.[0-9]+\.[0-9]+$"

  expect_exit 0 "$bin/$p" --help
  for section in NAME SYNOPSIS DESCRIPTION OPTIONS EXAMPLES "EXIT STATUS" ENVIRONMENT; do
    expect_stdout_line "^$section$"
  done
  for option in db json quiet verbose help version; do expect_stdout_line "^ +(-., )?--$option( |$)"; done
  if [ -s "$err" ]; then fail "$p --help writes on standard error"; fi

  expect_error 2 "^$p: .*--no-such-option" "$bin/$p" --no-such-option
  expect_error 2 "^$p: .*--json" "$bin/$p" --json=5
done

for verb in plan evaluate validate; do
  expect_exit 0 "$bin/hf-plan" $verb --help
  expect_stdout_line "^ +hf-plan $verb "
  expect_error 2 '^hf-plan: .*--no-such-option' "$bin/hf-plan" $verb --no-such-option
done
expect_error 2 '^hf-plan: .*no-such-verb' "$bin/hf-plan" no-such-verb
if [ -e "$HETEROFLOW_DB" ]; then fail "a refused command made a database"; fi

# A full disk behind standard output is a failure of the machine, not a silent success.
expect_exit 3 bash -c "'$bin/hf-plan' --help >/dev/full"

expect_exit 0 cmake --install "$bin/.." --prefix "$tmp/installed"
for p in "${programs[@]}"; do expect_exit 0 "$tmp/installed/bin/$p" --version; done
