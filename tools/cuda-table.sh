#!/bin/bash
# tools/cuda-table.sh BUILD [--check TABLE]: registers of every CUDA kernel and architecture as a table; what is spilled stands behind a "+".
# With --check: status 1 when a kernel spills, or when TABLE (of the same nvcc) says something else.
set -euo pipefail
build=$1
files=("$build"/kernels/cuda/CMakeFiles/hf_cuda.dir/*.resources)
[ -e "${files[0]}" ] || { echo "no kernels were built by nvcc in $build" >&2; exit 77; }
nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
table() {
  echo "# Registers of the CUDA kernels"
  echo
  echo "By nvcc $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p'), written by \`bash tools/cuda-table.sh build\`; \`+N\`: N bytes spilled."
  echo
  cat "${files[@]}" | c++filt | awk '
    /Compiling entry function/ {
      split($0, p, "\047"); name = p[2]; arch = p[4]
      sub(/^void /, "", name); gsub(/\(anonymous namespace\)::/, "", name); sub(/\(hfc_.*/, "", name); gsub(/\((int|bool)\)/, "", name)
      gsub(/[0-9a-zA-Z_]*_cu_[0-9a-zA-Z_]*::/, "", name)
      archs[arch] = 1; names[name] = 1 }
    /spill stores/ { match($0, /[0-9]+ bytes spill stores/); spills[name, arch] = substr($0, RSTART) + 0 }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); regs[name, arch] = substr($0, RSTART + 5, RLENGTH - 5) }
    END {
      n = 0; for (a in archs) list[++n] = a
      for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (substr(list[i], 4) + 0 > substr(list[j], 4) + 0) { t = list[i]; list[i] = list[j]; list[j] = t }
      head = "| kernel |"; line = "|---|"
      for (i = 1; i <= n; i++) { head = head " " list[i] " |"; line = line "---|" }
      print head; print line
      for (k in names) {
        row = "| `" k "` |"
        for (i = 1; i <= n; i++) row = row " " regs[k, list[i]] (spills[k, list[i]] > 0 ? "+" spills[k, list[i]] : "") " |"
        print row | "LC_ALL=C sort"
      }
    }'
}
if [ "${2:-}" != --check ]; then table; exit 0; fi
now=$(mktemp); table >"$now"
status=0
if grep -E '^\| `.*\+[0-9]+' "$now"; then echo "these kernels spill registers" >&2; status=1; fi
if [ "$(sed -n 3p "$now")" = "$(sed -n 3p "$3")" ] && ! diff "$3" "$now"; then
  echo "$3 is old: bash tools/cuda-table.sh $build >$3" >&2; status=1
fi
rm -f "$now"
exit $status
