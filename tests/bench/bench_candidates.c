/* bench_candidates: the own product that is taken by itself beside those of a library (oneDNN), all that turning weights and activations into what it
 * takes costs it included. One thread, weights of one expert in the cache, alternated, best of several.
 *
 *   bench_candidates [ROWS COLUMNS [FORMAT...]]      default 768 2048 bf16 f32 q8_0 q4_k fp8 iq3_s
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/kernels.h"
#include "kernels/mem/topology.h"

enum { MOST_TOKENS = 512, LEAST_NS = 60000000, MOST_CANDIDATES = 16 };

static void must(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "bench_candidates: %s\n", what);
  exit(3);
}

static void *room(size_t bytes) {
  void *p = NULL;
  must(mem_alloc(bytes, -1, "bench_candidates", &p) == HF_OK, "out of memory");
  return p;
}

typedef struct {
  kern_mat w;
  kern_act act;
  const void *x[MOST_TOKENS];
  float *y[MOST_TOKENS];
} work;

static work work_of(kern_format format, int rows, int cols) {
  work k = {.act = kern_act_of(format, false)};
  const size_t packed = kern_act_bytes(k.act, cols), row_bytes = kern_row_bytes(format, cols);
  char *raw = room((size_t)rows * row_bytes), *x = room(MOST_TOKENS * packed);
  float *y = room((size_t)MOST_TOKENS * (size_t)rows * sizeof *y), *values = room((size_t)cols * sizeof *values);
  for (int r = 0; r < rows; r++) kern_random_row(format, (uint64_t)r, 1.0f, cols, raw + (size_t)r * row_bytes);
  for (int t = 0; t < MOST_TOKENS; t++) {
    kern_random_row(KF_F32, (uint64_t)t + 77777, 1.0f, cols, values);
    kern_get()->pack[k.act](values, cols, x + (size_t)t * packed);
    k.x[t] = x + (size_t)t * packed;
    k.y[t] = y + (size_t)t * (size_t)rows;
  }
  k.w = (kern_mat){format, KL_ROWS, rows, cols, row_bytes, raw};
  if (kern_best_layout(format, k.act, cols) == KL_TILE16) {
    void *tiles = room(kern_mat_bytes(KL_TILE16, format, rows, cols));
    kern_tile_pack(&k.w, 0, rows, tiles);
    k.w.data = tiles;
    k.w.layout = KL_TILE16;
  }
  return k;
}

static double seconds_of(const kern_mm_candidate *c, const work *k, int tokens) {
  const int64_t t0 = hf_now_ns();
  c->fn(&k->w, 0, k->w.n_rows, tokens, k->x, k->y);
  return (double)(hf_now_ns() - t0) * 1e-9;
}

static void compare(kern_format format, int rows, int cols) {
  static const int tokens[] = {1, 4, 8, 16, 32, 64, 128, 256, 512};
  work k = work_of(format, rows, cols);
  const kern_mm_candidate *all[MOST_CANDIDATES], *in[MOST_CANDIDATES];
  int n_all = kern_mm_candidates(kern_get()->isa, format, k.act, all, MOST_CANDIDATES);
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    const double flop = 2.0 * tokens[i] * rows * cols;
    double best[MOST_CANDIDATES];
    int n = 0;
    in[n++] = kern_mm_pick(format, k.act, k.w.layout, cols, tokens[i], NULL);
    for (int c = 0; c < n_all && c < MOST_CANDIDATES; c++)
      if (all[c]->library && kern_mm_pick(format, k.act, k.w.layout, cols, tokens[i], all[c]->name) == all[c]) in[n++] = all[c];
    for (int c = 0; c < n; c++) best[c] = 1e9;
    const int64_t start = hf_now_ns();
    for (int rounds = 0; rounds < 5 || hf_now_ns() - start < LEAST_NS; rounds++)
      for (int c = 0; c < n; c++) {
        const double s = seconds_of(in[c], &k, tokens[i]);
        best[c] = s < best[c] ? s : best[c];
      }
    printf("%-6s %3d tokens ", kern_format_name(format), tokens[i]);
    for (int c = 0; c < n; c++) printf("  %-22s %6.1f", in[c]->name, flop / best[c] * 1e-9);
    printf(" GFLOP/s\n");
  }
}

int main(int argc, char **argv) {
  static const char *const usual[] = {"bf16", "f32", "q8_0", "q4_k", "fp8", "iq3_s"};
  const int rows = argc > 2 ? atoi(argv[1]) : 768, cols = argc > 2 ? atoi(argv[2]) : 2048;
  must(rows > 0 && cols > 0 && cols % 256 == 0, "usage: bench_candidates [ROWS COLUMNS [FORMAT...]], COLUMNS a multiple of 256");
  must(kern_init(NULL) == HF_OK, hf_error_line());
  printf("%s, own kernels %s, %d x %d, one thread\n", kern_library_state(), kern_get()->isa_name, rows, cols);
  const int n = argc > 3 ? argc - 3 : (int)(sizeof usual / sizeof *usual);
  for (int i = 0; i < n; i++) {
    kern_format f;
    must(kern_format_parse(argc > 3 ? argv[i + 3] : usual[i], &f), "no such format");
    compare(f, rows, cols);
  }
  return 0;
}
