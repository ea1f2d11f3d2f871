#!/bin/bash
# tools/lint.sh finds each kind of violation, names file and line, and accepts a clean tree.
. tests/cli/lib.sh
for tool in ctags clang-format; do
  command -v $tool >/dev/null || skip "lint itself needs $tool (tools/setup-packages.sh lint)"
done
lint=$PWD/tools/lint.sh
tree=$tmp/tree

# A tiny tree that keeps every rule.
fresh_tree() {
  rm -rf "$tree"
  mkdir -p "$tree"/{base,db,model,planner/ilp,kernels/x86,reports,tests/unit}
  cp .clang-format "$tree/"
  printf '/* a.h */\n#include <stdint.h>\nint32_t a(void);\n' >"$tree/base/a.h"
  printf '#include "base/a.h"\n\nint32_t a(void) {\n  return 1;\n}\n' >"$tree/base/a.c"
  printf '#include "base/a.h"\n#include <sqlite3.h>\n\nstatic const char query[] = "SELECT 1";\n' >"$tree/db/b.c"
  printf '#include "db/b.h"\n#include "planner/p.h"\n#include <cmocka.h>\n' >"$tree/tests/unit/t.c"
  printf 'hf_room(db DEPS hf_base LIBS PkgConfig::SQLITE)\n' >"$tree/db/CMakeLists.txt"
  printf 'hf_room(reports DEPS hf_db hf_base)\n' >"$tree/reports/CMakeLists.txt"
}

# violation NAME REGEX: the tree as changed since fresh_tree is refused with a line that matches; then it is made anew.
violation() {
  expect_exit 1 bash "$lint" "$tree" no-build
  expect_stdout_line "$2"
  expect_stderr_line '^lint: 1 findings'
  echo "found: $1"
  fresh_tree
}

fresh_tree
expect_exit 0 bash "$lint" "$tree" no-build

printf '#include "db/b.h"\n' >"$tree/base/x.c"
violation "base includes db" '^base/x.c:1: arrows: base may not include db '
printf '\n#include "kernels/k.h"\n' >"$tree/planner/x.c"
violation "planner includes kernels" '^planner/x.c:2: arrows: planner may not include kernels '
printf '#include "tests/t.h"\n' >"$tree/model/x.c"
violation "product includes tests" '^model/x.c:1: include: .*tests is no room'
printf '#include "a.h"\n' >"$tree/base/x.c"
violation "include without room" '^base/x.c:1: include: '
printf 'hf_room(reports DEPS hf_db\n        hf_model hf_base)\n' >"$tree/reports/CMakeLists.txt"
violation "reports links model" '^reports/CMakeLists.txt:2: arrows: reports may not link hf_model '
printf 'hf_room(reports DEPS hf_base LIBS ${GLPK_LIB})\n' >"$tree/reports/CMakeLists.txt"
violation "reports links GLPK" '^reports/CMakeLists.txt:1: foreign library: glpk '
printf '#include <glpk.h>\n' >"$tree/planner/x.c"
violation "glpk.h outside planner/ilp" '^planner/x.c:1: foreign header: <glpk.h> has its home in planner/ilp/'
printf '#include <cjson/cJSON.h>\n' >"$tree/base/x.c"
violation "cJSON.h outside json.c" '^base/x.c:1: foreign header: '
printf '#include <immintrin.h>\n' >"$tree/kernels/x.c"
violation "immintrin.h outside kernels/x86" '^kernels/x.c:1: foreign header: '
printf '#include <curl/curl.h>\n' >"$tree/model/x.c"
violation "a header without a home" '^model/x.c:1: foreign header: .* has no home'
printf 'void f(cudaStream_t stream);\n' >"$tree/model/x.c"
violation "a type of CUDA outside kernels/cuda" '^model/x.c:1: foreign type: '
printf '/* no include */\nuint32_t f(void);\n' >"$tree/model/x.h"
violation "a header that does not stand alone" '^model/x.h:2: stands alone: '
{ for i in $(seq 1501); do echo "extern int v$i;"; done; } >"$tree/model/x.c"
violation "a file of 1501 lines" '^model/x.c:1501: size: 1501 lines'
{ echo "int f(int v) {"; for i in $(seq 160); do echo "  v += $i;"; done; printf '  return v;\n}\n'; } >"$tree/model/x.c"
violation "a function of 163 lines" '^model/x.c:1: size: function f has 163 lines'
printf 'int f(void);\nint   g(void);\n' >"$tree/model/x.c"
violation "format" '^model/x.c:2: format: '
printf 'int f(void); /* TO''DO: write it */\n' >"$tree/model/x.c"
violation "unfinished work" '^model/x.c:1: unfinished: '
printf 'static const char m[] = "not impl''emented";\n' >"$tree/model/x.c"
violation "unfinished work in a message" '^model/x.c:1: unfinished: '
printf 'static const char q[] = "SELECT a FROM b";\n' >"$tree/model/x.c"
violation "SQL outside db" '^model/x.c:1: sql: '
printf '/* may exit(1) */\n#include <stdlib.h>\nvoid f(void);\nvoid f(void) {\n  exit(1);\n}\n' >"$tree/model/x.c"
violation "exit in a library" '^model/x.c:5: exit: '
printf '#include <stdio.h>\nvoid f(char *a);\nvoid f(char *a) {\n  sprintf(a, "b");\n}\n' >"$tree/model/x.c"
violation "sprintf" '^model/x.c:4: banned: '

printf '#include <pthread.h>\nvoid f(pthread_t t);\nvoid f(pthread_t t) {\n  pthread_join(t, 0);\n}\n' >"$tree/model/x.c"
violation "a wait without an end" '^model/x.c:4: wait: '

# A long function is a warning before it is an error.
{ echo "int f(int v) {"; for i in $(seq 125); do echo "  v += $i;"; done; printf '  return v;\n}\n'; } >"$tree/model/x.c"
expect_exit 0 bash "$lint" "$tree" no-build
expect_stdout_line '^model/x.c:1: warning: function f has 128 lines'
fresh_tree

# GLPK in a program that is not hf-plan.
if printf 'int main(void) { extern const char *glp_version(void); return !glp_version(); }\n' >"$tmp/g.c" &&
    mkdir -p "$tree/build/bin" && gcc "$tmp/g.c" -o "$tree/build/bin/hf-plan" -lglpk 2>/dev/null; then
  expect_exit 0 bash "$lint" "$tree" build
  mv "$tree/build/bin/hf-plan" "$tree/build/bin/hf-run"
  expect_exit 1 bash "$lint" "$tree" build
  expect_stdout_line '^build/bin/hf-run:1: foreign library: hf-run links GLPK'
fi
echo "good"
