#!/bin/bash
# tools/lint.sh [ROOT [BUILD]]: the rules of the house that a compiler does not check. Exit status 1 when one is broken.
#
#   arrows           a room includes or links another against docs/design.md
#   include          an own header is not named by its path from the root
#   foreign header   a library's header outside its one home; foreign library: the same for linking (CMake, and programs in BUILD);
#                    foreign type: a name of CUDA outside of kernels/cuda and kernels/mem
#   stands alone     a header that does not compile by itself
#   size             a file over 1,500 lines, a function over 160 (a warning over 120)
#   format           clang-format (.clang-format) would change the file
#   unfinished, sql, exit, banned   see tools/lint.awk
#
# Each message is "file:line: rule: what". BUILD (default ROOT/build) is looked at when it exists.
set -euo pipefail

root=${1:-.}
cd "$root"
build=${2:-build}
tools=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
findings=$(mktemp)
trap 'rm -f "$findings"' EXIT

for tool in ctags clang-format gcc readelf; do
  command -v $tool >/dev/null || { echo "lint: $tool is missing: run tools/setup-packages.sh lint" >&2; exit 2; }
done

# The files of the project: what git knows or would add; everything in a tree that is not under git.
list_files() {
  if [ -e .git ]; then git ls-files --cached --others --exclude-standard
  else find . -type f -not -path './build*' | sed 's|^\./||'; fi | LC_ALL=C sort | while read -r f; do
    if [ -f "$f" ]; then echo "$f"; fi
  done
}
mapfile -t files < <(list_files)
select_files() { printf '%s\n' "${files[@]}" | grep -E "$1" || true; }

# The lint itself and its test name the forbidden words.
mapfile -t text_files < <(select_files '(\.(c|cc|h|inc|cu|cuh|sh|awk|sql|js|cmake)|CMakeLists\.txt|Makefile)$' |
                          grep -vE '^(tools/lint\.(sh|awk)|tests/cli/lint_selftest\.sh)$')
mapfile -t sources < <(select_files '\.(c|cc|h|inc|cu|cuh)$')
mapfile -t c_files < <(select_files '\.(c|h)$')
mapfile -t headers < <(select_files '^(base|db|model|sched|kernels|profiler|planner|executor|reports|tests)/.*\.h$')

if [ ${#text_files[@]} -gt 0 ]; then awk -f "$tools/lint.awk" "${text_files[@]}" >>"$findings"; fi

# A header alone is a translation unit. Those for x86 variants may use every instruction set that any of their users has.
header_alone() {
  local flags="" message
  case $1 in kernels/x86/*) flags="-march=sapphirerapids" ;; esac
  # shellcheck disable=SC2086
  message=$(gcc -std=gnu17 -D_GNU_SOURCE -DHF_VERSION='"lint"' -I. $flags -fsyntax-only -include "$1" -x c /dev/null 2>&1) ||
    echo "$message" | grep -m 1 -E 'error:' | awk -v f="$1" '{ split($0, p, ":"); sub(/^\.\//, "", p[1]); at = p[1] == f ? p[2] : 1
      sub(/.*error: /, ""); print f ":" at ": stands alone: " $0 }'
}
export -f header_alone
if [ ${#headers[@]} -gt 0 ]; then
  printf '%s\n' "${headers[@]}" | xargs -P "$(nproc)" -I{} bash -c 'header_alone {}' >>"$findings"
fi

if [ ${#sources[@]} -gt 0 ]; then
  wc -l "${sources[@]}" | awk '$2 != "total" && $1 > 1500 { print $2 ":1501: size: " $1 " lines, more than 1500: split the file" }' >>"$findings"
  ctags --languages=C,C++,CUDA --kinds-C=f --kinds-C++=f --kinds-CUDA=f -x --_xformat='%{input} %{line} %{end} %{name}' \
      "${sources[@]}" 2>/dev/null |
    awk '{ n = $3 - $2 + 1 }
         n > 160 { print $1 ":" $2 ": size: function " $4 " has " n " lines, more than 160: split it" }
         n > 120 && n <= 160 { print $1 ":" $2 ": warning: function " $4 " has " n " lines, more than 120" }' >>"$findings"
fi

# One line for each file: the first place that differs.
if [ ${#c_files[@]} -gt 0 ] && [ -e .clang-format ]; then
  printf '%s\n' "${c_files[@]}" | { xargs clang-format --dry-run -Werror --ferror-limit=1 2>&1 || true; } |
    awk -F: '/error: code should be clang-formatted/ && !($1 in seen) { seen[$1] = 1; print $1 ":" $2 ": format: run make format" }' >>"$findings"
fi

# GLPK is GPL without the permission for CUDA libraries, so only hf-plan links it, and hf-plan links none of those.
if [ -d "$build/bin" ]; then
  for program in "$build"/bin/*; do
    if ! needed=$(readelf -d "$program" 2>/dev/null | awk '/NEEDED/ { print $NF }'); then continue; fi
    name=${program##*/}
    case $needed in *libglpk*) if [ "$name" != hf-plan ]; then
      echo "$program:1: foreign library: $name links GLPK, which only hf-plan may" >>"$findings"; fi ;; esac
    case $needed in *libcuda* | *libcublas* | *libnuma*) if [ "$name" = hf-plan ]; then
      echo "$program:1: foreign library: hf-plan links CUDA or libnuma, which it must do without" >>"$findings"; fi ;; esac
  done
fi

sort -u -t: -k1,1 -k2,2n -k3 "$findings"
count=$(grep -cv ': warning: ' "$findings" || true)
if [ "$count" -gt 0 ]; then
  echo "lint: $count findings in ${#files[@]} files" >&2
  exit 1
fi
echo "lint: ${#files[@]} files, good"
