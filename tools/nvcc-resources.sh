#!/bin/bash
# tools/nvcc-resources.sh OBJECT COMMAND...: runs a compile command of nvcc and keeps what ptxas says about registers and spills in
# OBJECT.resources; everything else goes where it went. tools/cuda-table.sh makes a table of it.
set -uo pipefail
object=$1; shift
"$@" 2>"$object.stderr"; rc=$?
grep -E '^ptxas info|bytes stack frame|Used [0-9]+ registers' "$object.stderr" >"$object.resources"
grep -vE '^ptxas info|bytes stack frame|Used [0-9]+ registers' "$object.stderr" >&2
rm -f "$object.stderr"
exit $rc
