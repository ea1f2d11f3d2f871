/* bench_moves: how long the driver's thread needs, between two steps, to find what has to change its place (engine_move_look), for a model of as many layers and
 * experts as DeepSeek-R1 and small matrices. A share of the experts on the device is exchanged for others, within layers and across them.
 *
 *   bench_moves [CONFIG]      default tests/bench/r1-cells.json */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "executor/engine.h"
#include "executor/residency.h"

enum { ROUNDS = 201 };
static const double BAR_MS = 1;

static void must(hf_status st) {
  if (st == HF_OK) return;
  fprintf(stderr, "bench_moves: %s\n", hf_error_line());
  exit(3);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Exchanges about a percentage of what is on the device. */
static void exchange(const engine *e, uint8_t *target, int percent, uint32_t *seed) {
  const model_config *c = engine_config(e);
  const size_t ne = (size_t)c->n_experts, n = (size_t)c->n_layers * ne;
  for (int l = 0; l < c->n_layers; l++) memcpy(target + (size_t)l * ne, engine_residency(e, l), ne);
  for (size_t i = 0; i < n * (size_t)percent / 100; i++) {
    *seed = *seed * 1664525u + 1013904223u;
    const size_t a = (*seed >> 8) % n;
    *seed = *seed * 1664525u + 1013904223u;
    const size_t b = (*seed >> 8) % n;
    if (!c->layer_is_moe[a / ne] || !c->layer_is_moe[b / ne]) continue;
    const uint8_t t = target[a];
    target[a] = target[b];
    target[b] = t;
  }
}

static bool look(engine *e, uint8_t *target, int percent) {
  static double ms[ROUNDS];
  uint32_t seed = 7;
  residency_order order;
  exchange(e, target, percent, &seed);
  for (int i = 0; i < ROUNDS; i++) {
    const int64_t start = hf_now_ns();
    must(engine_move_look(e, target, &order));
    ms[i] = (double)(hf_now_ns() - start) * 1e-6;
  }
  qsort(ms, ROUNDS, sizeof *ms, by_value);
  printf("%3d %% exchanged: %5d pairs, %4d left out: median %.3f ms, 99th percentile %.3f ms\n", percent, order.pairs,
         order.left_out, ms[ROUNDS / 2], ms[ROUNDS * 99 / 100]);
  return ms[ROUNDS / 2] < BAR_MS;
}

int main(int argc, char **argv) {
  char name[4096];
  model *m = NULL;
  engine *e = NULL;
  engine_options o = {.depth = 1,
                      .max_seqs = 1,
                      .context = 64,
                      .page_tokens = 16,
                      .n_pages = 4,
                      .max_tok = 8,
                      .max_logits = 1,
                      .kv_type = KV_F16,
                      .device_bytes = INT64_C(1) << 30,
                      .experts_on_gpu_percent = 20,
                      .check_every_ns = 1,
                      .movable = true};
  snprintf(o.gpu, sizeof o.gpu, "virtual:1G");
  snprintf(name, sizeof name, "synth:%s,format=q8_0,seed=1", argc > 1 ? argv[1] : "tests/bench/r1-cells.json");
  must(kern_init(NULL));
  must(model_open(name, &m));
  must(engine_open(m, &o, &e));
  const model_config *c = engine_config(e);
  uint8_t *target = malloc((size_t)c->n_layers * (size_t)c->n_experts);
  if (!target) return 3;
  printf("%d layers of %d experts, %g %% of them on the device\n", c->n_layers, c->n_experts, o.experts_on_gpu_percent);
  bool good = true;
  for (int percent = 1; percent <= 100; percent *= 10) good = look(e, target, percent) && good;
  printf("bar: below %g ms: %s\n", BAR_MS, good ? "kept" : "missed");
  free(target);
  engine_close(e);
  model_close(m);
  return good ? 0 : 1;
}
