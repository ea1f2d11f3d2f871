#include "planner/validate/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHAIN = 4, MAX_SET = 24 };
/* Compute of two sockets adds up but for imbalance (priors heteroflow, flops_dual_socket_scaling). */
static const double DUAL_FLOPS = 1.9;

const char *const engine_fact_name[ENGINE_N_FACTS] = {"read_over_theoretical",
                                                      "memory_fraction",
                                                      "unpack_weights_per_cycle",
                                                      "unpack_bytes_per_cycle",
                                                      "gemm_flops_per_cycle",
                                                      "gemm_flops_per_cycle_avx2",
                                                      "cpu_kv_fraction",
                                                      "gpu_kv_fraction",
                                                      "upload_fraction",
                                                      "thread_layer_ns",
                                                      "launch_ns",
                                                      "dual_socket_scaling",
                                                      "overlap",
                                                      "upload_min_tokens",
                                                      "eager_layer_ns",
                                                      "unpack_every_token",
                                                      "operations_per_layer",
                                                      "fp8_rate",
                                                      "experts_barriers"};

static hf_status read_facts(const json *doc, const char *name, bool own, engine *e) {
  char where[96];
  const json *facts = json_get(doc, "facts");
  for (int i = 0; i < ENGINE_N_FACTS; i++) {
    const json *f = json_get(facts, engine_fact_name[i]);
    catalog_value v = {0};
    /* what is measured in weights in one file and in bytes in the file below it is the upper file's */
    bool other = i == ENGINE_UNPACK_BYTES ? e->fact[ENGINE_UNPACK_WEIGHTS].high > 0
                                          : i == ENGINE_UNPACK_WEIGHTS && e->fact[ENGINE_UNPACK_BYTES].high > 0;
    if (f == NULL || e->fact[i].tag != TAG_N || other) continue;
    const char *tag = "spec";
    snprintf(where, sizeof where, "priors %.40s: %s", name, engine_fact_name[i]);
    HF_TRY(json_get_num(f, where, "value", 0, 1e12, &v.likely));
    v.low = v.high = v.likely;
    HF_TRY(json_opt_num(f, where, "low", 0, v.likely, &v.low));
    HF_TRY(json_opt_num(f, where, "high", v.likely, 1e12, &v.high));
    HF_TRY(json_opt_str(f, where, "tag", &tag));
    v.tag = strcmp(tag, "assumed") == 0 ? TAG_ASSUMED : TAG_SPEC;
    e->fact[i] = v;
    e->own[i] = own;
  }
  return HF_OK;
}

hf_status engine_load(const char *name, engine *out) {
  engine e = {0};
  char next[64];
  for (int i = 0; i < ENGINE_N_FACTS; i++) e.fact[i].tag = TAG_N; /* not seen yet */
  snprintf(e.name, sizeof e.name, "%s", name);
  snprintf(next, sizeof next, "%s", name);
  for (int depth = 0; next[0] != '\0'; depth++) {
    json *doc = NULL;
    const char *base = "";
    if (depth == MAX_CHAIN) return hf_fail(HF_INPUT, "priors %s: more than %d files lean on each other", name, (int)MAX_CHAIN);
    HF_TRY(catalog_get("priors", next, &doc));
    hf_status st = read_facts(doc, next, depth == 0, &e);
    if (st == HF_OK) st = json_opt_str(doc, next, "base", &base);
    if (depth == 0) snprintf(e.base, sizeof e.base, "%s", base);
    snprintf(next, sizeof next, "%s", base);
    json_free(doc);
    HF_TRY(st);
  }
  static const int needed[] = {ENGINE_READ,   ENGINE_MEMORY, ENGINE_GEMM, ENGINE_GEMM_AVX2,  ENGINE_CPU_KV, ENGINE_GPU_KV,
                               ENGINE_UPLOAD, ENGINE_LAUNCH, ENGINE_DUAL, ENGINE_OPERATIONS, ENGINE_FP8};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (!(e.fact[needed[i]].likely > 0))
      return hf_fail(HF_INPUT, "priors %s: field %s: missing; an engine needs it", name, engine_fact_name[needed[i]]);
  for (int i = 0; i < ENGINE_N_FACTS; i++)
    if (e.fact[i].tag == TAG_N) e.fact[i] = (catalog_value){0};
  if (!(e.fact[ENGINE_UNPACK_WEIGHTS].high > 0) && !(e.fact[ENGINE_UNPACK_BYTES].high > 0))
    return hf_fail(HF_INPUT, "priors %s: field unpack_weights_per_cycle: missing; an engine needs it", name);
  *out = e;
  return HF_OK;
}

/* ---- figures ---- */

/* The fit looks rows up very often: no money, no power, no datasheet figures but those that engine_apply starts from, no single socket. */
static bool needed(const rec_figure *f) {
  static const char *const starts[] = {"dram_theoretical_bytes_per_s", "gpu_theoretical_mem_bytes_per_s",
                                       "pcie_theoretical_bytes_per_s"};
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
    if (strcmp(f->what, starts[i]) == 0) return true;
  bool socket = strncmp(f->device, "cpu", 3) == 0 && f->device[3] != '\0';
  return !socket && strncmp(f->what, "price", 5) != 0 && strncmp(f->what, "power", 5) != 0 &&
         strstr(f->what, "theoretical") == NULL;
}

hf_status engine_rows_new(const catalog_machine *m, cost_rows **out) {
  static const struct {
    const char *device, *what, *unit;
  } sets[] = {{"cpu", "dram_read_bytes_per_s", "B/s"}, {"cpu", "cpu_unpack_weights_per_s", "1/s"},
              {"cpu", "cpu_flops_int8", "OP/s"},       {"cpu", "cpu_flops_bf16", "FLOP/s"},
              {"cpu", "cpu_flops_f32", "FLOP/s"},      {"cpu", "cpu_kv_bytes_per_s", "B/s"},
              {"cpu", "layer_fixed_ns", "ns"},         {"gpu0", "gpu_kv_bytes_per_s", "B/s"},
              {"gpu0", "pcie_h2d_bytes_per_s", "B/s"}, {"gpu0", "launch_ns", "ns"}};
  rec_figure *f = NULL;
  int n = 0;
  HF_TRY(hf_alloc(&f, (size_t)m->n_figure + MAX_SET, sizeof *f, "figures of a machine"));
  for (int i = 0; i < m->n_figure; i++)
    if (needed(&m->figure[i])) f[n++] = m->figure[i];
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    bool there = false;
    for (int k = 0; k < n; k++)
      there = there || (strcmp(f[k].device, sets[i].device) == 0 && strcmp(f[k].what, sets[i].what) == 0);
    if (there) continue;
    rec_figure *a = &f[n++];
    *a = (rec_figure){.tag = TAG_SPEC};
    snprintf(a->device, sizeof a->device, "%s", sets[i].device);
    snprintf(a->what, sizeof a->what, "%s", sets[i].what);
    snprintf(a->unit, sizeof a->unit, "%s", sets[i].unit);
  }
  hf_status st = cost_rows_from_arrays(&m->machine, m->device, m->n_device, f, n, NULL, 0, m->link, m->n_link, out);
  free(f);
  return st;
}

static rec_figure *find(cost_rows *r, const char *device, const char *what) {
  for (int i = 0; i < r->n_figure; i++)
    if (strcmp(r->figure[i].what, what) == 0 && strcmp(r->figure[i].device, device) == 0) return &r->figure[i];
  return NULL;
}

static hf_status set(cost_rows *r, const char *device, const char *what, catalog_value v) {
  rec_figure *f = find(r, device, what);
  if (f == NULL)
    return hf_fail(HF_INPUT, "machine %s: has no figure %s of %s that an engine could set", r->machine.name, what, device);
  f->low = v.low;
  f->likely = v.likely;
  f->high = v.high;
  f->tag = v.tag;
  return HF_OK;
}

static catalog_value times(catalog_value a, double by) {
  return (catalog_value){a.low * by, a.likely * by, a.high * by, a.tag};
}

static catalog_value product(catalog_value a, catalog_value b) {
  return (catalog_value){a.low * b.low, a.likely * b.likely, a.high * b.high, a.tag > b.tag ? a.tag : b.tag};
}

/* An engine unpacks by weights or by bytes; the rows hold the one figure that counts. */
static hf_status set_unpack(const engine *e, catalog_value cycles, cost_rows *r) {
  bool weights = e->fact[ENGINE_UNPACK_WEIGHTS].high > 0;
  const char *const what[2] = {"cpu_unpack_bytes_per_s", "cpu_unpack_weights_per_s"};
  rec_figure *f = find(r, "cpu", what[!weights]);
  if (f != NULL) snprintf(f->what, sizeof f->what, "%s", what[weights]);
  return set(r, "cpu", what[weights], product(cycles, e->fact[weights ? ENGINE_UNPACK_WEIGHTS : ENGINE_UNPACK_BYTES]));
}

static catalog_value spec_of(cost_rows *r, const char *device, const char *what) {
  const rec_figure *f = find(r, device, what);
  catalog_value v = {0};
  if (f != NULL) v = (catalog_value){f->low, f->likely, f->high, f->tag};
  return v;
}

static hf_status apply_gpu(const engine *e, cost_rows *r) {
  HF_TRY(set(r, "gpu0", "gpu_kv_bytes_per_s",
             product(spec_of(r, "gpu0", "gpu_theoretical_mem_bytes_per_s"), e->fact[ENGINE_GPU_KV])));
  HF_TRY(set(r, "gpu0", "pcie_h2d_bytes_per_s",
             product(spec_of(r, "gpu0", "pcie_theoretical_bytes_per_s"), e->fact[ENGINE_UPLOAD])));
  return set(r, "gpu0", "launch_ns", e->fact[ENGINE_LAUNCH]);
}

hf_status engine_apply(const engine *e, const engine_machine *m, cost_rows *r) {
  int threads = m->threads > 0 ? m->threads : m->sockets * m->cores_per_socket;
  bool both = m->sockets == 2 && threads > m->cores_per_socket; /* threads on both sockets */
  catalog_value one = {1, 1, 1, TAG_SPEC}, dual = m->sockets == 2 ? e->fact[ENGINE_DUAL] : one;
  catalog_value read = product(product(spec_of(r, "cpu0", "dram_theoretical_bytes_per_s"), e->fact[ENGINE_READ]), dual);
  if (m->read_bytes_per_s > 0) read = (catalog_value){m->read_bytes_per_s, m->read_bytes_per_s, m->read_bytes_per_s, TAG_SPEC};
  catalog_value memory = product(read, e->fact[ENGINE_MEMORY]);
  catalog_value cycles = times(both ? times(dual, 0.5) : one, threads * m->clock_hz);
  catalog_value flops =
      times(e->fact[m->fast_simd ? ENGINE_GEMM : ENGINE_GEMM_AVX2], threads * m->clock_hz * (both ? DUAL_FLOPS / 2 : 1));
  if (m->fp8) {
    cycles = product(cycles, e->fact[ENGINE_FP8]);
    flops = product(flops, e->fact[ENGINE_FP8]);
  }
  const rec_figure *fixed = find(r, "cpu", "layer_fixed_ns");
  static const char *const what[] = {"cpu_flops_int8", "cpu_flops_bf16", "cpu_flops_f32"};
  HF_TRY(set(r, "cpu", "dram_read_bytes_per_s", memory));
  HF_TRY(set_unpack(e, cycles, r));
  for (int i = 0; i < 3; i++) HF_TRY(set(r, "cpu", what[i], flops));
  HF_TRY(set(r, "cpu", "cpu_kv_bytes_per_s", product(memory, e->fact[ENGINE_CPU_KV])));
  bool gpu = cost_device(r, "gpu0") != NULL;
  bool barriers = !gpu || e->fact[ENGINE_EXPERTS_BARRIERS].likely > 0;
  if (barriers && e->fact[ENGINE_THREAD_LAYER].high > 0 && fixed != NULL)
    HF_TRY(set(r, "cpu", "layer_fixed_ns", times(e->fact[ENGINE_THREAD_LAYER], (double)threads / (m->ranks > 1 ? m->ranks : 1))));
  return gpu ? apply_gpu(e, r) : HF_OK;
}
