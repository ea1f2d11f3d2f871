/* scale.c: kernel curves of a measured machine, as another one would have them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost_int.h"

/* Rates of one device on both sides. */
typedef struct {
  cost_unit from, to;
  cost_figure bytes[2]; /* from, to */
} pairing;

static bool rate_of(const cost_unit *u, const char *what, cost_figure *f) {
  return cost_find(u->rows, u->device, what, f) && f->likely > 0;
}

static bool pair_memory(pairing *p) {
  if (!p->from.cpu)
    return rate_of(&p->from, "gpu_mem_bytes_per_s", &p->bytes[0]) && rate_of(&p->to, "gpu_mem_bytes_per_s", &p->bytes[1]);
  /* like with like: a read rate that the catalog derived for whole engines is no match for a measured plain read */
  if (rate_of(&p->from, "dram_theoretical_bytes_per_s", &p->bytes[0]) &&
      rate_of(&p->to, "dram_theoretical_bytes_per_s", &p->bytes[1]))
    return true;
  return rate_of(&p->from, "dram_read_bytes_per_s", &p->bytes[0]) && rate_of(&p->to, "dram_read_bytes_per_s", &p->bytes[1]);
}

/* FLOPs of a point: the three products of an expert, or one. 0: no product of weights. */
static double point_flops(const rec_kernel_point *k) {
  double products = strcmp(k->kernel, "expert_ffn") == 0 ? 3 : strcmp(k->kernel, "matmul") == 0 ? 1 : 0;
  return 2 * products * k->n_out * k->n_in * k->tokens;
}

static void scale_point(const pairing *p, fmt f, rec_kernel_point *k) {
  static const cost_case likely = {0};
  db_tag ignored = TAG_MEASURED;
  cost_unit from = p->from, to = p->to;
  from.threads = to.threads = 0;
  double bytes = fmt_get(f)->bits_per_weight / 8 * point_flops(k) / (2.0 * k->tokens), flops = point_flops(k);
  double rate[2] = {cost_unit_flops(&from, f, likely, &ignored), cost_unit_flops(&to, f, likely, &ignored)};
  double before = fmax(bytes / p->bytes[0].likely, flops / rate[0]), after = fmax(bytes / p->bytes[1].likely, flops / rate[1]);
  double by = after / before;
  k->ns *= by;
  k->ns_low *= by * p->bytes[1].likely / p->bytes[1].high;
  k->ns_high *= by * p->bytes[1].likely / p->bytes[1].low;
  k->ns_low = fmin(k->ns_low, k->ns);
  k->ns_high = fmax(k->ns_high, k->ns);
  k->tag = k->tag > TAG_SCALED ? k->tag : TAG_SCALED;
}

/* The target's own kernels of this format are better than scaled ones. */
static bool has_own(const cost_rows *to, const rec_kernel_point *k, const char *device) {
  for (int i = 0; i < to->n_kernel; i++) {
    const rec_kernel_point *o = &to->kernel[i];
    if (strcmp(o->kernel, k->kernel) == 0 && strcmp(o->format, k->format) == 0 && strcmp(o->device, device) == 0) return true;
  }
  return false;
}

static bool wanted(const rec_kernel_point *k, const cost_unit *from, fmt *f) {
  if (!cost_on_unit(k, from) || k->load[0] != '\0' || !(k->ns > 0) || k->tokens < 1 || !(point_flops(k) > 0)) return false;
  if (from->cpu && k->threads != cost_cpu_cores(from->rows)) return false;
  if (fmt_parse(k->format, f) == HF_OK) return true;
  hf_clear_error();
  return false;
}

static int add_scaled(const pairing *p, rec_kernel_point *out) {
  int n = 0;
  for (int i = 0; i < p->from.rows->n_kernel; i++) {
    rec_kernel_point k = p->from.rows->kernel[i];
    fmt f;
    if (!wanted(&k, &p->from, &f) || has_own(p->to.rows, &k, p->to.device)) continue;
    scale_point(p, f, &k);
    k.machine_id = p->to.rows->machine.id;
    k.threads = p->to.cpu ? cost_cpu_cores(p->to.rows) : k.threads;
    memcpy(k.device, p->to.device, sizeof k.device);
    out[n++] = k;
  }
  return n;
}

/* CPU to CPU, and the first measured GPU to every GPU. */
static int pair_devices(const cost_rows *to, const cost_rows *from, pairing *out) {
  int n = 0;
  out[n] = (pairing){.from = {.rows = from, .cpu = true, .device = "cpu"}, .to = {.rows = to, .cpu = true, .device = "cpu"}};
  n += pair_memory(&out[n]);
  for (int i = 0; i < to->n_device && n <= STAGE_MAX_DEVICES; i++) {
    if (strcmp(to->device[i].kind, "gpu") != 0) continue;
    out[n] = (pairing){.from = {.rows = from, .device = "gpu0"}, .to = {.rows = to}};
    memcpy(out[n].to.device, to->device[i].device, sizeof out[n].to.device);
    n += pair_memory(&out[n]);
  }
  return n;
}

hf_status cost_rows_scaled(const cost_rows *to, const cost_rows *from, cost_rows **out) {
  pairing pairs[STAGE_MAX_DEVICES + 2];
  int n_pairs = pair_devices(to, from, pairs), n = to->n_kernel;
  rec_kernel_point *k = NULL;
  HF_TRY(hf_alloc(&k, (size_t)to->n_kernel + (size_t)n_pairs * (size_t)from->n_kernel + 1, sizeof *k, "scaled kernel curves"));
  if (n > 0) memcpy(k, to->kernel, (size_t)n * sizeof *k);
  for (int i = 0; i < n_pairs; i++) n += add_scaled(&pairs[i], k + n);
  hf_status st = HF_OK;
  if (n == to->n_kernel)
    st = hf_fail(
        HF_INPUT,
        "machine %s has no kernel curves on all its threads that %s lacks, or one of both has no bandwidth: measure it with "
        "hf-profile",
        from->machine.name, to->machine.name);
  if (st == HF_OK)
    st = cost_rows_from_arrays(&to->machine, to->device, to->n_device, to->figure, to->n_figure, k, n, to->link, to->n_link, out);
  free(k);
  return st;
}
