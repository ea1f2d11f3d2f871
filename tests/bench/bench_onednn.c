/* bench_onednn: own products beside those of oneDNN (Debian's libdnnl-dev 2.6, or 3.x), one thread, weights of one expert in the cache, alternated, best
 * of several. For quantised weights oneDNN gets them as BF16 for nothing: turning them into that would come on top.
 *
 *   bench_onednn [ROWS COLUMNS]      default 768 2048
 *
 * Built by `make bench` where oneDNN is found. Nothing of the suite links it: docs/measurements.md says why. */
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/kernels.h"
#include "kernels/mem/topology.h"

enum { MOST_TOKENS = 512, LEAST_NS = 100000000 };

static void must(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "bench_onednn: %s\n", what);
  exit(3);
}

static void *room(size_t bytes) {
  void *p = NULL;
  must(mem_alloc(bytes, -1, "bench_onednn", &p) == HF_OK, "out of memory");
  return p;
}

/* c[tokens][rows] = a[tokens][cols] b[rows][cols] in `type`, c in f32. */
typedef struct {
  dnnl_stream_t stream;
  dnnl_primitive_t product;
  dnnl_exec_arg_t arg[3];
  const char *name;
} foreign;

static dnnl_memory_t memory_of(dnnl_engine_t e, dnnl_data_type_t type, int d0, int d1, int s0, int s1, void *p) {
  dnnl_dims_t dims = {d0, d1}, strides = {s0, s1};
  dnnl_memory_t m;
#if DNNL_VERSION_MAJOR >= 3
  dnnl_memory_desc_t d;
  must(dnnl_memory_desc_create_with_strides(&d, 2, dims, type, strides) == dnnl_success, "memory descriptor");
  must(dnnl_memory_create(&m, d, e, p) == dnnl_success, "memory");
#else
  dnnl_memory_desc_t d;
  must(dnnl_memory_desc_init_by_strides(&d, 2, dims, type, strides) == dnnl_success, "memory descriptor");
  must(dnnl_memory_create(&m, &d, e, p) == dnnl_success, "memory");
#endif
  return m;
}

static dnnl_primitive_desc_t describe(dnnl_engine_t e, const dnnl_memory_t m[3]) {
  dnnl_primitive_desc_t pd;
#if DNNL_VERSION_MAJOR >= 3
  const_dnnl_memory_desc_t d[3];
  for (int i = 0; i < 3; i++) dnnl_memory_get_memory_desc(m[i], &d[i]);
  must(dnnl_matmul_primitive_desc_create(&pd, e, d[0], d[1], NULL, d[2], NULL) == dnnl_success, "matmul");
#else
  const dnnl_memory_desc_t *d[3];
  dnnl_matmul_desc_t desc;
  for (int i = 0; i < 3; i++) dnnl_memory_get_memory_desc(m[i], &d[i]);
  must(dnnl_matmul_desc_init(&desc, d[0], d[1], NULL, d[2]) == dnnl_success, "matmul");
  must(dnnl_primitive_desc_create(&pd, &desc, NULL, e, NULL) == dnnl_success, "matmul");
#endif
  return pd;
}

static void foreign_make(dnnl_engine_t e, dnnl_stream_t s, dnnl_data_type_t type, int tokens, int rows, int cols, void *a,
                         void *b, void *c, foreign *f) {
  const dnnl_memory_t m[3] = {memory_of(e, type, tokens, cols, cols, 1, a), memory_of(e, type, cols, rows, 1, cols, b),
                              memory_of(e, dnnl_f32, tokens, rows, rows, 1, c)};
  dnnl_primitive_desc_t pd = describe(e, m);
  f->stream = s;
  must(dnnl_primitive_create(&f->product, pd) == dnnl_success, "matmul");
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &f->name);
  const int args[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
  for (int i = 0; i < 3; i++) f->arg[i] = (dnnl_exec_arg_t){args[i], m[i]};
}

static double seconds(int64_t t0) {
  return (double)(hf_now_ns() - t0) * 1e-9;
}

static void compare(dnnl_engine_t e, dnnl_stream_t s, kern_format format, int rows, int cols) {
  static const int tokens[] = {8, 16, 32, 64, 128, 256, 512};
  const bool f32 = format == KF_F32;
  const kern_act act = kern_act_of(format, false);
  const size_t elem = f32 ? 4 : 2, packed = kern_act_bytes(act, cols), row_bytes = kern_row_bytes(format, cols);
  kern_mat w = {format, KL_ROWS, rows, cols, row_bytes, NULL}, own;
  char *raw = room((size_t)rows * row_bytes), *wide = room((size_t)rows * (size_t)cols * elem);
  char *a = room((size_t)MOST_TOKENS * (size_t)cols * elem), *x = room(MOST_TOKENS * packed);
  float *c = room((size_t)MOST_TOKENS * (size_t)rows * 4), *row = room((size_t)cols * 4);
  for (int r = 0; r < rows; r++) {
    kern_random_row(format, (uint64_t)r, 1.0f, cols, raw + (size_t)r * row_bytes);
    kern_dequant_row(format, raw + (size_t)r * row_bytes, cols, row);
    kern_quant_row(f32 ? KF_F32 : KF_BF16, row, cols, wide + (size_t)r * (size_t)cols * elem);
  }
  for (int t = 0; t < MOST_TOKENS; t++) {
    kern_random_row(KF_F32, (uint64_t)t + 77777, 1.0f, cols, row);
    kern_quant_row(f32 ? KF_F32 : KF_BF16, row, cols, a + (size_t)t * (size_t)cols * elem);
    kern_get()->pack[act](row, cols, x + (size_t)t * packed);
  }
  w.data = raw;
  own = w;
  own.layout = kern_best_layout(format, act, cols);
  if (own.layout == KL_TILE16) {
    void *tiles = room(kern_mat_bytes(KL_TILE16, format, rows, cols));
    kern_tile_pack(&w, 0, rows, tiles);
    own.data = tiles;
  }
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    const int n = tokens[i];
    const kern_mm_candidate *k = kern_mm_pick(format, act, own.layout, cols, n, NULL);
    const void *xs[MOST_TOKENS];
    float *ys[MOST_TOKENS];
    foreign f;
    for (int t = 0; t < n; t++) xs[t] = x + (size_t)t * packed, ys[t] = c + (size_t)t * (size_t)rows;
    foreign_make(e, s, f32 ? dnnl_f32 : dnnl_bf16, n, rows, cols, a, wide, c, &f);
    double best_own = 1e9, best_foreign = 1e9, flop = 2.0 * n * rows * cols;
    int64_t start = hf_now_ns();
    for (int rounds = 0; rounds < 5 || hf_now_ns() - start < LEAST_NS; rounds++) {
      int64_t t0 = hf_now_ns();
      must(dnnl_primitive_execute(f.product, s, 3, f.arg) == dnnl_success, "execute");
      dnnl_stream_wait(s);
      double d = seconds(t0);
      best_foreign = d < best_foreign ? d : best_foreign;
      t0 = hf_now_ns();
      k->fn(&own, 0, rows, n, xs, ys);
      d = seconds(t0);
      best_own = d < best_own ? d : best_own;
    }
    printf("%-6s %3d tokens  %-24s %7.1f   %-24s %7.1f GFLOP/s   own/oneDNN %.2f\n", kern_format_name(format), n, k->name,
           flop / best_own * 1e-9, f.name, flop / best_foreign * 1e-9, best_foreign / best_own);
    dnnl_primitive_destroy(f.product);
  }
}

int main(int argc, char **argv) {
  int rows = argc > 2 ? atoi(argv[1]) : 768, cols = argc > 2 ? atoi(argv[2]) : 2048;
  must(rows > 0 && cols > 0 && cols % 256 == 0, "usage: bench_onednn [ROWS COLUMNS], COLUMNS a multiple of 256");
  must(kern_init(NULL) == HF_OK, hf_error_line());
  omp_set_num_threads(1); /* as workers of a pool would call it */
  dnnl_engine_t e;
  dnnl_stream_t s;
  must(dnnl_engine_create(&e, dnnl_cpu, 0) == dnnl_success, "no engine");
  must(dnnl_stream_create(&s, e, dnnl_stream_default_flags) == dnnl_success, "no stream");
  printf("oneDNN %d.%d, own kernels %s, %d x %d, one thread\n", dnnl_version()->major, dnnl_version()->minor,
         kern_get()->isa_name, rows, cols);
  static const kern_format formats[] = {KF_BF16, KF_FP8, KF_Q8_0, KF_Q4_K, KF_F32};
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) compare(e, s, formats[i], rows, cols);
  return 0;
}
