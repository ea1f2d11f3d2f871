/* peaks.c: what the arithmetic units do at most: instructions on registers alone, nothing read, as many independent sums as hide their
 * latency. Kernels are held against these; the planner does not use them.
 *
 *   cpu_peak_ops_per_s   params unit=avx2_f32,threads=N: a multiplication and an addition count two
 *
 * Written as instructions, because the compiler would otherwise need flags for each set, and would see that the sums are for nothing. */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "profiler/profile.h"

#if defined(__x86_64__)
enum { SUMS = 12, ROUNDS = 4000 };

#define TWELVE(op) op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11")
#define FMA_YMM(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" i "\n\t"
#define FMA_ZMM(i) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" i "\n\t"
#define VNNI_ZMM(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" i "\n\t"
#define BF16_ZMM(i) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" i "\n\t"
#define MADD_YMM(i) \
  "vpmaddubsw %%ymm14, %%ymm15, %%ymm13\n\tvpmaddwd %%ymm12, %%ymm13, %%ymm13\n\tvpaddd %%ymm13, %%ymm" i ", %%ymm" i "\n\t"
#define CLOBBERS                                                                                                               \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
      "xmm15", "cc"
/* Zeroed registers: products of zeros take as long as any, and no number is slow (denormal). */
#define LOOP(reg, body)                                               \
  __asm__ volatile("vzeroall\n\t"                                     \
                   "1:\n\t" body "sub $1, %0\n\tjnz 1b\n\tvzeroupper" \
                   : "+r"(n)                                          \
                   :                                                  \
                   : CLOBBERS)

static void avx2_f32(long n) {
  LOOP(n, TWELVE(FMA_YMM));
}
static void avx2_int8(long n) {
  LOOP(n, TWELVE(MADD_YMM));
}
static void avx512_f32(long n) {
  LOOP(n, TWELVE(FMA_ZMM));
}
static void avx512_vnni(long n) {
  LOOP(n, TWELVE(VNNI_ZMM));
}
static void avx512_bf16(long n) {
  LOOP(n, TWELVE(BF16_ZMM));
}

/* Eight tiles: six sums, two factors; 16 rows of 64 bytes each. */
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t colsb[16];
  uint8_t rows[16];
} tile_config;

#define AMX_LOOP(instruction)                                                                                               \
  tile_config c = {.palette = 1};                                                                                           \
  for (int i = 0; i < 8; i++) c.colsb[i] = 64, c.rows[i] = 16;                                                              \
  __asm__ volatile("ldtilecfg %1\n\t"                                                                                       \
                   "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"                           \
                   "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7\n"                             \
                   "1:\n\t" instruction " %%tmm7, %%tmm6, %%tmm0\n\t" instruction " %%tmm7, %%tmm6, %%tmm1\n\t" instruction \
                   " %%tmm7, %%tmm6, %%tmm2\n\t" instruction " %%tmm7, %%tmm6, %%tmm3\n\t" instruction                      \
                   " %%tmm7, %%tmm6, %%tmm4\n\t" instruction " %%tmm7, %%tmm6, %%tmm5\n\t"                                  \
                   "sub $1, %0\n\tjnz 1b\n\ttilerelease"                                                                    \
                   : "+r"(n)                                                                                                \
                   : "m"(c)                                                                                                 \
                   : "cc", "memory")

static void amx_int8(long n) {
  AMX_LOOP("tdpbssd");
}
static void amx_bf16(long n) {
  AMX_LOOP("tdpbf16ps");
}

typedef struct {
  const char *name;
  unsigned isa;
  void (*run)(long n);
  double ops; /* a round */
} unit;
static const unit units[] = {
    {"avx2_f32", KERN_ISA_AVX2, avx2_f32, SUMS * 8 * 2},
    {"avx2_int8", KERN_ISA_AVX2, avx2_int8, SUMS * 32 * 2},
    {"avx512_f32", KERN_ISA_AVX512, avx512_f32, SUMS * 16 * 2},
    {"avx512_int8", KERN_ISA_AVX512_VNNI, avx512_vnni, SUMS * 64 * 2},
    {"avx512_bf16", KERN_ISA_AVX512_BF16, avx512_bf16, SUMS * 32 * 2},
    {"amx_int8", KERN_ISA_AMX_INT8, amx_int8, 6 * 16 * 16 * 64 * 2.0},
    {"amx_bf16", KERN_ISA_AMX_BF16, amx_bf16, 6 * 16 * 16 * 32 * 2.0},
};

typedef struct {
  pool *p;
  const unit *u;
} bench;

static void compute(void *arg, int thread, int n_threads) {
  const bench *b = arg;
  (void)thread, (void)n_threads;
  b->u->run(ROUNDS);
}

static double sample(void *user) {
  bench *b = user;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, compute, b);
  return (double)(hf_now_ns() - t0);
}

static hf_status measure(profile *p, pool *pl, const unit *u) {
  bench b = {pl, u};
  char params[64];
  stats ns = prof_time(p, sample, &b), rate = stats_rate(&ns, 1e9 * u->ops * ROUNDS * pool_threads(pl));
  snprintf(params, sizeof params, "unit=%s,threads=%d", u->name, pool_threads(pl));
  return prof_add_figure(p, "cpu", "cpu_peak_ops_per_s", params, "OP/s", &rate, "hf-profile: instructions on registers alone");
}

hf_status prof_peaks(profile *p) {
  if (!prof_unit_begin(p, "peaks")) return HF_OK;
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    if ((kern_get()->isa & units[i].isa) != units[i].isa) continue;
    for (int k = 0; k < p->n_pools; k++) {
      int threads = pool_threads(p->pools[k]);
      if (k == 0 || threads == 1) HF_TRY(measure(p, p->pools[k], &units[i]));
    }
  }
  return prof_unit_end(p);
}
#else
hf_status prof_peaks(profile *p) {
  (void)p;
  return HF_OK;
}
#endif
