/* shim.cc: blocks as a loop, threads as fibers, memory as a table; see host.h. */
#include "kernels/cuda/host/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <map>
#include <vector>

#include "kernels/cuda/host/shim.cuh"

#ifndef __x86_64__
#include <ucontext.h>
#endif

hfc_place hfc_here;

namespace {

enum { STACK_BYTES = 64 << 10, MAX_THREADS = 1024, SHARED_MAX = 227 << 10, MANY = -2, NOBODY = -1 };

/* Who was last at a byte of shared memory, and when: barriers of the block and syncs of the warp so far. */
struct visit {
  int thread = NOBODY;
  long barriers = 0, syncs = 0;
};
struct shared_byte {
  visit wrote, read;
};

struct region {
  uintptr_t end = 0, room_end = 0; /* of what may be touched, and of the red zone behind it */
  const char *name = "";
  bool constant = false, shared = false, image = false;
  std::vector<shared_byte> bytes;
};
typedef std::map<uintptr_t, region> regions;

regions &memory() { /* used before main and after it by tables that register themselves */
  static regions *const all = new regions;
  return *all;
}

enum fiber_state { READY, IN_WARP, AT_BARRIER, DONE };
struct fiber {
  fiber_state state;
  char *stack;
  void *sp;
  hfc_kind kind;
  int line, from;
  unsigned mask;
  uint64_t value, result;
};

struct {
  char fault[512];
  bool failed, backwards, atomic;
  const char *kernel;
  void (*run)(const void *);
  const void *args;
  fiber fibers[MAX_THREADS];
  int n, at; /* at: the fiber that runs, or NOBODY */
  void *sp;  /* of the scheduler */
  uintptr_t frame;
  long barriers, syncs[MAX_THREADS / 32];
  regions::iterator last;
  bool has_last;
#ifndef __x86_64__
  ucontext_t scheduler, contexts[MAX_THREADS];
#endif
} now = {.fault = "", .at = NOBODY};

#ifdef __x86_64__
/* Keeps what a function must leave as it found it, and goes on with another stack. */
extern "C" void hfc_switch(void **save, void *to);
asm(R"(
.text
.type hfc_switch, @function
hfc_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hfc_switch, .-hfc_switch
)");
#endif

void leave() { /* to the scheduler, which comes back when the fiber is ready */
#ifdef __x86_64__
  hfc_switch(&now.fibers[now.at].sp, now.sp);
#else
  swapcontext(&now.contexts[now.at], &now.scheduler);
#endif
}

void place_of(int thread, unsigned *x, unsigned *y, unsigned *z) {
  *x = (unsigned)thread % hfc_here.block_dim.x;
  *y = (unsigned)thread / hfc_here.block_dim.x % hfc_here.block_dim.y;
  *z = (unsigned)thread / hfc_here.block_dim.x / hfc_here.block_dim.y;
}

/* The first fault since hfc_host_clear is kept. */
__attribute__((format(printf, 2, 3))) void report(int thread, const char *fmt, ...) {
  if (!now.fault[0]) {
    unsigned x, y, z;
    place_of(thread, &x, &y, &z);
    int n = snprintf(now.fault, sizeof now.fault, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", now.kernel,
                     hfc_here.block.x, hfc_here.block.y, hfc_here.block.z, x, y, z);
    va_list args;
    va_start(args, fmt);
    vsnprintf(now.fault + n, sizeof now.fault - (size_t)n, fmt, args);
    va_end(args);
  }
  now.failed = true;
}

void fiber_main() {
  now.run(now.args);
  now.fibers[now.at].state = DONE;
  leave();
}

void fiber_start(fiber *f, int i) {
  if (!f->stack) f->stack = (char *)malloc(STACK_BYTES);
  f->state = READY;
#ifdef __x86_64__
  (void)i;
  void **sp = (void **)(((uintptr_t)f->stack + STACK_BYTES) & ~(uintptr_t)15);
  *--sp = NULL; /* where fiber_main would return to */
  *--sp = (void *)fiber_main;
  for (int r = 0; r < 6; r++) *--sp = NULL;
  f->sp = sp;
#else
  getcontext(&now.contexts[i]);
  now.contexts[i].uc_stack.ss_sp = f->stack;
  now.contexts[i].uc_stack.ss_size = STACK_BYTES;
  now.contexts[i].uc_link = NULL;
  makecontext(&now.contexts[i], fiber_main, 0);
#endif
}

void fiber_resume(int i) {
  now.at = i;
  place_of(i, &hfc_here.thread.x, &hfc_here.thread.y, &hfc_here.thread.z);
#ifdef __x86_64__
  hfc_switch(&now.sp, now.fibers[i].sp);
#else
  swapcontext(&now.scheduler, &now.contexts[i]);
#endif
  now.at = NOBODY;
}

/* All lanes of the mask are there: each gets what it asked for. */
void warp_complete(int first, unsigned mask) {
  fiber *lanes = now.fibers + first;
  uint64_t ballot = 0;
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) ballot |= (lanes[l].value & 1) << l;
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    if (lanes[l].kind == HFC_BALLOT) lanes[l].result = ballot;
    if (lanes[l].kind == HFC_SHUFFLE) {
      if (!(mask >> lanes[l].from & 1)) {
        report(first + l, "line %d: a shuffle from lane %d, which takes no part", lanes[l].line, lanes[l].from);
        return;
      }
      lanes[l].result = lanes[lanes[l].from].value;
    }
  }
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) lanes[l].state = READY;
  now.syncs[first / 32]++;
}

const char *state_name(const fiber *f) {
  static const char *const names[] = {"runs", "waits in a warp", "waits at a barrier", "has ended"};
  return names[f->state];
}

/* Nobody can go on: the first who waits, and the first who does not wait with it. */
void report_divergence() {
  for (int i = 0; i < now.n; i++) {
    const fiber *f = &now.fibers[i];
    if (f->state != AT_BARRIER && f->state != IN_WARP) continue;
    const int lo = f->state == IN_WARP ? i & ~31 : 0, hi = f->state == IN_WARP && lo + 32 < now.n ? lo + 32 : now.n;
    for (int j = lo; j < hi; j++) {
      const fiber *g = &now.fibers[j];
      if (f->state == IN_WARP && !(f->mask >> (j & 31) & 1)) continue;
      if (g->state == f->state && g->line == f->line && (f->state == AT_BARRIER || (g->mask == f->mask && g->kind == f->kind)))
        continue;
      if (g->state == DONE)
        report(i, "divergent barrier: %s at line %d, thread %d of the block has ended", state_name(f), f->line, j);
      else
        report(i, "divergent barrier: %s at line %d, thread %d %s at line %d", state_name(f), f->line, j, state_name(g), g->line);
      return;
    }
    if (f->state == IN_WARP) {
      report(i, "divergent barrier: line %d asks for lanes that the block does not have", f->line);
      return;
    }
  }
}

bool all_at_one_barrier() {
  for (int i = 0; i < now.n; i++)
    if (now.fibers[i].state != AT_BARRIER || now.fibers[i].line != now.fibers[0].line) return false;
  return true;
}

void fill_shared(size_t dynamic_bytes) {
  for (auto &r : memory())
    if (r.second.shared && r.second.image) memset((void *)r.first, 0xff, r.second.end - r.first);
  if (dynamic_bytes) memset(hfc_here.dynamic, 0xff, dynamic_bytes);
}

void run_block() {
  for (int i = 0; i < now.n; i++) fiber_start(&now.fibers[i], i);
  for (;;) {
    bool moved = false;
    int done = 0;
    for (int k = 0; k < now.n && !now.failed; k++) {
      const int i = now.backwards ? now.n - 1 - k : k;
      if (now.fibers[i].state == READY) fiber_resume(i), moved = true;
      done += now.fibers[i].state == DONE;
    }
    if (now.failed || done == now.n) return;
    if (moved) continue;
    if (!all_at_one_barrier()) return report_divergence();
    for (int i = 0; i < now.n; i++) now.fibers[i].state = READY;
    now.barriers++;
  }
}

/* Has `v` met with the thread that runs since? */
bool ordered(const visit &v, int me) {
  if (v.thread == NOBODY || v.thread == me || v.barriers != now.barriers) return true;
  return v.thread != MANY && v.thread / 32 == me / 32 && v.syncs != now.syncs[me / 32];
}

void race(uintptr_t lo, region &r, uintptr_t a, size_t n, bool write) {
  if (r.bytes.size() < r.end - lo) r.bytes.resize(r.end - lo);
  const int me = now.at;
  for (size_t i = a - lo; i < a - lo + n; i++) {
    shared_byte &b = r.bytes[i];
    const visit *other = !ordered(b.wrote, me) ? &b.wrote : write && !ordered(b.read, me) ? &b.read : NULL;
    if (other) {
      report(me, "race: %s byte %zu of shared memory %s, which thread %d %s since the last barrier", write ? "writes" : "reads",
             i, r.name, other->thread == MANY ? -1 : other->thread, other == &b.wrote ? "wrote" : "read");
      leave();
    }
    visit &mine = write ? b.wrote : b.read;
    const bool others = !write && mine.thread != NOBODY && mine.thread != me && mine.barriers == now.barriers &&
                        (mine.thread == MANY || mine.thread / 32 != me / 32);
    mine.thread = others ? MANY : me;
    mine.barriers = now.barriers;
    mine.syncs = now.syncs[me / 32];
  }
}

extern "C" char __executable_start, _end, data_start;

void check(uintptr_t a, size_t n, bool write, bool aligned) {
  if (now.at == NOBODY) return; /* a launcher, not a kernel */
  if (a - (uintptr_t)now.fibers[now.at].stack < STACK_BYTES) return;
  if (aligned && a % n) {
    report(now.at, "%s %zu bytes at an address that is no multiple of them", write ? "writes" : "reads", n);
    leave();
  }
  regions &all = memory();
  if (!now.has_last || a < now.last->first || a + n > now.last->second.end) {
    regions::iterator it = all.upper_bound(a);
    const bool none = it == all.begin();
    if (!none) --it;
    if (none || a + n > it->second.end) {
      if (!write && a - now.frame < STACK_BYTES) return;                /* arguments of the kernel */
      if (!write && a - (uintptr_t)&hfc_here < sizeof hfc_here) return; /* threadIdx and its like */
      const bool image = a >= (uintptr_t)&__executable_start && a < (uintptr_t)&data_start;
      if (!write && image && (none || a >= it->second.room_end)) return; /* constants that the compiler made */
      if (none || a >= it->second.room_end) report(now.at, "%s %zu bytes outside of all memory", write ? "writes" : "reads", n);
      else
        report(now.at, "%s %zu bytes from byte %zu on of %s, which has %zu", write ? "writes" : "reads", n,
               (size_t)(a - it->first), it->second.name, (size_t)(it->second.end - it->first));
      leave();
    }
    now.last = it, now.has_last = true;
  }
  if (write && now.last->second.constant) {
    report(now.at, "writes to %s, which is constant", now.last->second.name);
    leave();
  }
  if (now.last->second.shared && !now.atomic) race(now.last->first, now.last->second, a, n, write);
}

} // namespace

uint64_t hfc_warp(hfc_kind kind, unsigned mask, uint64_t value, int from, int line) {
  fiber *f = &now.fibers[now.at];
  const int first = now.at & ~31, lane = now.at & 31;
  f->kind = kind, f->mask = mask, f->value = value, f->from = from, f->line = line;
  if (!(mask >> lane & 1)) {
    report(now.at, "line %d: lane %d is not in the mask that it passes", line, lane);
    leave();
  }
  f->state = IN_WARP;
  bool all = true;
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    const fiber *g = &now.fibers[first + l];
    all = all && first + l < now.n && g->state == IN_WARP && g->mask == mask && g->kind == kind && g->line == line;
  }
  if (all) warp_complete(first, mask);
  if (f->state != READY || now.failed) leave();
  return f->result;
}

void hfc_barrier(int line) {
  now.fibers[now.at].line = line;
  now.fibers[now.at].state = AT_BARRIER;
  leave();
}

uint64_t hfc_clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void hfc_atomic(bool begins) {
  now.atomic = begins;
}

int hfc_run(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(const void *), const void *args) {
  now.kernel = name, now.run = thread, now.args = args, now.failed = false, now.atomic = false;
  now.frame = (uintptr_t)__builtin_frame_address(0);
  now.n = (int)(block.x * block.y * block.z);
  hfc_here.block = dim3(0, 0, 0), hfc_here.block_dim = block, hfc_here.grid_dim = grid;
  if (now.n < 1 || now.n > MAX_THREADS || shared_bytes > SHARED_MAX || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 ||
      grid.z > 65535) {
    report(0, "a launch of %u x %u x %u blocks, %d threads and %zu bytes of shared memory", grid.x, grid.y, grid.z, now.n,
           shared_bytes);
    return HFC_FAULT;
  }
  hfc_here.dynamic = shared_bytes ? hfc_host_alloc(shared_bytes, "(dynamic)") : NULL;
  if (shared_bytes) memory()[(uintptr_t)hfc_here.dynamic].shared = true;
  for (unsigned z = 0; z < grid.z && !now.failed; z++) {
    for (unsigned y = 0; y < grid.y && !now.failed; y++) {
      for (unsigned x = 0; x < grid.x && !now.failed; x++) {
        hfc_here.block.x = x, hfc_here.block.y = y, hfc_here.block.z = z;
        now.barriers++;
        fill_shared(shared_bytes);
        run_block();
      }
    }
  }
  hfc_host_free(hfc_here.dynamic);
  return now.failed ? HFC_FAULT : 0;
}

enum { RED_ZONE = 4096 };

extern "C" void *hfc_host_alloc(size_t bytes, const char *name) {
  const size_t room = (bytes + 255) / 256 * 256 + RED_ZONE;
  char *p = (char *)aligned_alloc(256, RED_ZONE + room);
  if (!p) return NULL;
  memset(p, 0xff, RED_ZONE + room);
  p += RED_ZONE;
  region r;
  r.end = (uintptr_t)p + bytes, r.room_end = (uintptr_t)p + room, r.name = name;
  memory()[(uintptr_t)p] = r;
  return p;
}

extern "C" void hfc_host_lend(void *p, size_t bytes, const char *name) {
  region r;
  r.end = r.room_end = (uintptr_t)p + bytes, r.name = name;
  memory()[(uintptr_t)p] = r;
}

extern "C" void hfc_host_take_back(void *p) {
  memory().erase((uintptr_t)p);
  now.has_last = false;
}

extern "C" void hfc_host_free(void *p) {
  if (!p) return;
  memory().erase((uintptr_t)p);
  now.has_last = false;
  free((char *)p - RED_ZONE);
}

extern "C" void hfc_host_constant(void *p) {
  memory().at((uintptr_t)p).constant = true;
}

extern "C" const char *hfc_host_fault(void) {
  return now.fault;
}

extern "C" void hfc_host_clear(void) {
  now.fault[0] = 0;
}

extern "C" void hfc_host_backwards(bool on) {
  now.backwards = on;
}

#ifdef HFC_UNCHECKED
extern "C" bool hfc_host_checked(void) {
  return false;
}
#else
extern "C" bool hfc_host_checked(void) {
  return true;
}

/* The compiler's hooks (gcc -fsanitize=kernel-address): before each access, and one call with the tables of a file. */
#define HFC_HOOKS(n)                                       \
  extern "C" void __asan_load##n##_noabort(uintptr_t a) {  \
    check(a, n, false, true);                              \
  }                                                        \
  extern "C" void __asan_store##n##_noabort(uintptr_t a) { \
    check(a, n, true, true);                               \
  }
HFC_HOOKS(1)
HFC_HOOKS(2)
HFC_HOOKS(4)
HFC_HOOKS(8)
HFC_HOOKS(16)
extern "C" void __asan_loadN_noabort(uintptr_t a, size_t n) {
  check(a, n, false, false);
}
extern "C" void __asan_storeN_noabort(uintptr_t a, size_t n) {
  check(a, n, true, false);
}
extern "C" void __asan_handle_no_return(void) {}

struct asan_global { /* as the compiler lays it out */
  uintptr_t at, size, size_with_red_zone;
  const char *name, *module;
  uintptr_t dynamic_init;
  void *where;
  uintptr_t odr;
};
/* A kernel file has two kinds of tables: constants, and shared memory, which can be written. */
extern "C" void __asan_register_globals(asan_global *all, size_t n) {
  for (size_t i = 0; i < n; i++) {
    region r;
    r.end = all[i].at + all[i].size, r.room_end = all[i].at + all[i].size_with_red_zone, r.name = all[i].name, r.image = true;
    r.shared = all[i].at >= (uintptr_t)&data_start && all[i].at < (uintptr_t)&_end;
    r.constant = !r.shared;
    memory()[all[i].at] = r;
  }
}
extern "C" void __asan_unregister_globals(asan_global *all, size_t n) {
  for (size_t i = 0; i < n; i++) memory().erase(all[i].at);
}
#endif
