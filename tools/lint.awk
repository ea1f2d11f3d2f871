# lint.awk: the rules of tools/lint.sh that look at lines. Input: C, CUDA, CMake, shell, awk, SQL and JavaScript files, by paths
# relative to the root. Prints "file:line: rule: message" for each violation.

BEGIN {
  # The arrows of docs/design.md: what each room may include and link, besides itself.
  arrows["base"] = ""
  arrows["db"] = arrows["model"] = arrows["sched"] = arrows["kernels"] = "base"
  arrows["profiler"] = "kernels model sched db base"
  arrows["planner"] = "model sched db base"
  arrows["executor"] = "kernels model sched db base"
  arrows["reports"] = "db base"
  for (room in arrows) {
    allowed[room, room] = 1
    n = split(arrows[room], targets, " ")
    for (i = 1; i <= n; i++) allowed[room, targets[i]] = 1
  }

  # Foreign headers and their homes: path prefixes, separated by spaces. The name is matched without its folder.
  home["sqlite3.h"] = "db/"
  home["glpk.h"] = "planner/ilp/"
  home["dnnl.h"] = home["dnnl_types.h"] = home["dnnl_config.h"] = "kernels/onednn/"
  home["cuda.h"] = home["cuda_runtime.h"] = home["cuda_runtime_api.h"] = home["cuda_fp16.h"] = "kernels/cuda/ kernels/mem/"
  home["cuda_bf16.h"] = home["cuda_fp8.h"] = home["mma.h"] = home["cublas_v2.h"] = home["cublasLt.h"] = "kernels/cuda/ kernels/mem/"
  home["immintrin.h"] = home["x86intrin.h"] = home["emmintrin.h"] = home["amxintrin.h"] = "kernels/x86/"
  home["cpuid.h"] = "kernels/ profiler/"
  home["numa.h"] = home["numaif.h"] = "kernels/mem/"
  home["cJSON.h"] = "base/json.c"
  home["pcre2.h"] = "model/"
  home["microhttpd.h"] = "executor/"
  home["mpi.h"] = "kernels/net/"
  home["cmocka.h"] = "tests/"

  # Words in a room's CMakeLists.txt that name a foreign library, and the room it belongs to.
  library["glpk"] = "planner"
  library["sqlite"] = "db"
  library["numa"] = "kernels"
  library["cjson"] = "base"
  library["pcre2"] = "model"
  library["microhttpd"] = "executor"
  library["dnnl"] = "kernels"
  library["cudart"] = "kernels"
  library["cublas"] = "kernels"
  library["openmpi"] = "kernels"

  names = "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool " \
          "stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype aio dirent dlfcn fcntl fnmatch " \
          "getopt glob grp iconv ifaddrs langinfo libgen netdb poll pthread pwd regex sched search semaphore spawn strings syslog " \
          "termios unistd utime wordexp alloca byteswap endian error execinfo malloc ucontext"
  n = split(names, list, " ")
  for (i = 1; i <= n; i++) free_header[list[i] ".h"] = 1
  home["map"] = home["vector"] = "kernels/cuda/host/" # C++ is the test shim's alone
}

function report(rule, message) { print FILENAME ":" FNR ": " rule ": " message }

function base_name(path) { sub(/.*\//, "", path); return path }

function at_home(header, file,   n, i, homes) {
  n = split(home[header], homes, " ")
  for (i = 1; i <= n; i++) if (index(file, homes[i]) == 1) return 1
  return 0
}

function check_system(header,   name) {
  name = base_name(header)
  if (room == "tests") return
  if (name in home) {
    if (!at_home(name, FILENAME)) report("foreign header", "<" header "> has its home in " home[name])
  } else if (header ~ /^cu(da|blas|solver)/) {
    if (FILENAME !~ /^kernels\/(cuda|mem)\//) report("foreign header", "<" header "> has its home in kernels/cuda/ kernels/mem/")
  } else if (!(header in free_header) && header !~ /^(sys|linux|asm|net|netinet|arpa|bits)\//) {
    report("foreign header", "<" header "> is not of the C library and has no home yet: give it one in tools/lint.awk and docs/design.md")
  }
}

function check_own(header,   target) {
  if (room == "tests") return
  target = header
  sub(/\/.*/, "", target)
  if (base_name(header) in home) {
    check_system(header)
  } else if (target == header) {
    report("include", "\"" header "\": write the path from the repository root, \"" room "/" header "\"")
  } else if (!(target in arrows)) {
    report("include", "\"" header "\": " target " is no room of the product")
  } else if ((room in arrows) && !((room SUBSEP target) in allowed)) {
    report("arrows", room " may not include " target " (it may: " (arrows[room] ? arrows[room] : "nothing") ")")
  }
}

FNR == 1 {
  room = FILENAME
  if (!sub(/\/.*/, "", room)) room = ""
  is_c = FILENAME ~ /\.(c|cc|h|inc|cu|cuh)$/
  is_cmake = FILENAME ~ /CMakeLists\.txt$/
  in_comment = 0
  of_product = room in arrows
}

{ line = $0 }

line ~ /(^|[^A-Za-z0-9_])(TODO|FIXME|XXX)([^A-Za-z0-9_]|$)/ || tolower(line) ~ /not implemented/ {
  report("unfinished", "finish it, or refuse with a clear error; plans belong in docs/roadmap.md")
}

is_cmake && of_product {
  text = line
  sub(/#.*/, "", text)
  lower = tolower(text)
  for (name in library) {
    if (index(lower, name) && library[name] != room) report("foreign library", name " is linked by " library[name] " alone")
  }
  while (match(text, /hf_[a-z]+/)) {
    target = substr(text, RSTART + 3, RLENGTH - 3)
    text = substr(text, RSTART + RLENGTH)
    if ((target in arrows) && !((room SUBSEP target) in allowed)) {
      report("arrows", room " may not link hf_" target " (it may: " (arrows[room] ? arrows[room] : "nothing") ")")
    }
  }
}

is_c && /^[ \t]*#[ \t]*include/ {
  header = line
  if (header ~ /</) { sub(/^[^<]*</, "", header); sub(/>.*/, "", header); check_system(header) }
  else { sub(/^[^"]*"/, "", header); sub(/".*/, "", header); check_own(header) }
  next
}

# Code without comments, for the rules below: block comments over several lines included.
is_c && of_product {
  code = ""
  rest = line
  while (rest != "") {
    if (in_comment) {
      at = index(rest, "*/")
      if (!at) break
      rest = substr(rest, at + 2)
      in_comment = 0
    } else {
      at = index(rest, "/*")
      slash = index(rest, "//")
      if (slash && (!at || slash < at) && substr(rest, slash - 1, 1) != ":") { code = code substr(rest, 1, slash - 1); break }
      if (!at) { code = code rest; break }
      code = code substr(rest, 1, at - 1)
      rest = substr(rest, at + 2)
      in_comment = 1
    }
  }
  if (room != "db" && code ~ /"[ ]*(SELECT |INSERT (INTO|OR) |DELETE FROM |CREATE (TABLE|VIEW|INDEX) |PRAGMA |UPDATE [a-z_]+ SET )/) {
    report("sql", "SQL lives in db alone")
  }
  if (FILENAME !~ /\/main\.c$/ && code ~ /(^|[^A-Za-z0-9_.>])(exit|abort)[ ]*\(/) {
    report("exit", "library code returns an hf_status; only a main.c ends the program")
  }
  if (code ~ /(pthread_cond_wait|pthread_join|sem_wait|waitpid|sigwait|sigwaitinfo)[ ]*\(|poll[ ]*\([^;]*,[ ]*-1[ ]*\)/ && line !~ /\/\* ends: /) {
    report("wait", "waits without a deadline: give it one, or say in a comment on the line what ends it: /* ends: ... */")
  }
  if (code ~ /(^|[^A-Za-z0-9_.>])(gets|sprintf|vsprintf|strtok|alloca)[ ]*\(/) {
    report("banned", "unbounded or not thread-safe: use snprintf, hf_buf, strtok_r")
  }
  if (FILENAME !~ /^kernels\/(cuda|mem)\// && code ~ /(^|[^A-Za-z0-9_])(cuda[A-Z][A-Za-z0-9]*|CU(stream|context|event|graph|deviceptr)|hfc_[a-z0-9_]+)/) {
    report("foreign type", "types and calls of CUDA, and the launches of kernels/cuda/ops.h, stay in kernels/cuda and kernels/mem")
  }
  if (code ~ /(^|[^A-Za-z0-9_.>])(strcpy|strcat)[ ]*\(/) {
    report("warning", "strcpy and strcat check no length: memcpy with a checked size, or snprintf")
  }
}
