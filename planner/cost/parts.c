/* parts.c: the sources of a step's time, one function each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost_int.h"

double cost_distinct_experts(const double *p, int n_experts, double tokens) {
  double sum = 0;
  for (int e = 0; e < n_experts; e++) sum += expert_hit(p[e], tokens);
  return sum;
}

double cost_roofline_ns(double bytes, double flops, double bytes_per_s, double flops_per_s) {
  return 1e9 * fmax(bytes / bytes_per_s, flops / flops_per_s);
}

stage_curve cost_unpack_curve(double fixed_ns, double bytes, double unpack_ns, double flops_per_token, double bytes_per_s,
                              double flops_per_s) {
  /* unpacking takes the place of that much reading: what is left to read hides behind it */
  double read_ns = 1e9 * bytes / bytes_per_s;
  if (unpack_ns >= read_ns) return cost_roofline_curve(fixed_ns + unpack_ns, 0, flops_per_token, bytes_per_s, flops_per_s);
  return cost_roofline_curve(fixed_ns + unpack_ns, bytes - 1e-9 * unpack_ns * bytes_per_s, flops_per_token, bytes_per_s,
                             flops_per_s);
}

stage_curve cost_roofline_curve(double fixed_ns, double bytes, double flops_per_token, double bytes_per_s, double flops_per_s) {
  stage_curve c = {0};
  double kink = flops_per_token > 0 ? bytes / bytes_per_s * flops_per_s / flops_per_token : 1e9, at[3] = {1, kink, 512};
  for (int i = 0; i < 3; i++) {
    if (i == 1 && (kink <= 1 || kink >= 512)) continue;
    c.tok[c.n] = at[i];
    c.ns[c.n] = fixed_ns + cost_roofline_ns(bytes, at[i] * flops_per_token, bytes_per_s, flops_per_s);
    if (c.n > 0 && c.ns[c.n] < c.ns[c.n - 1]) c.ns[c.n] = c.ns[c.n - 1]; /* rounding at the kink */
    c.n++;
  }
  if (kink >= 512) { /* beyond the last point the slope must be that of the arithmetic, not of the flat part */
    if (kink > 512) {
      c.tok[c.n] = kink > 1e6 ? 1e6 : kink;
      c.ns[c.n] = c.ns[c.n - 1];
      c.n++;
    }
    if (flops_per_token > 0 && kink <= 1e6) {
      c.tok[c.n] = 2 * kink;
      c.ns[c.n] = fixed_ns + cost_roofline_ns(bytes, 2 * kink * flops_per_token, bytes_per_s, flops_per_s);
      c.n++;
    }
  }
  return c;
}

double cost_handover_bytes(const model_config *c) {
  return 2.0 * 4 * c->d_model + 8.0 * c->top_k;
}

/* ---- rates of a unit ---- */

static const double none[3] = {1, 1, 1}; /* the fallback of figures that are known to be there */

double cost_unit_bytes_per_s(const cost_unit *u, cost_case c, db_tag *tag) {
  const char *what = u->cpu ? "dram_read_bytes_per_s" : "gpu_mem_bytes_per_s";
  const double *prior = cost_prior_of(what)->value;
  if (u->cpu) return cost_cpu_rate(u->rows, what, u->threads, COST_CPU_MEM, c, prior, tag);
  return cost_rate(u->rows, u->device, what, COST_GPU_MEM, c, prior, tag);
}

double cost_unit_kv_bytes_per_s(const cost_unit *u, cost_case c, db_tag *tag) {
  const char *what = u->cpu ? "cpu_kv_bytes_per_s" : "gpu_kv_bytes_per_s";
  cost_figure f;
  if (!cost_find(u->rows, u->device, what, &f)) return cost_unit_bytes_per_s(u, c, tag);
  if (u->cpu) return cost_cpu_rate(u->rows, what, u->threads, COST_CPU_MEM, c, none, tag);
  return cost_rate(u->rows, u->device, what, COST_GPU_MEM, c, none, tag);
}

double cost_unpack_ns(const cost_unit *u, double bytes, double flops_per_token, cost_case c, db_tag *tag) {
  cost_figure f;
  if (!u->cpu) return 0;
  bool weights = cost_find(u->rows, u->device, "cpu_unpack_weights_per_s", &f);
  if (!weights && !cost_find(u->rows, u->device, "cpu_unpack_bytes_per_s", &f)) return 0;
  const char *what = weights ? "cpu_unpack_weights_per_s" : "cpu_unpack_bytes_per_s";
  double rate = cost_cpu_rate(u->rows, what, u->threads, COST_CPU_FLOPS, c, none, tag);
  return 1e9 * (weights ? 0.5 * flops_per_token : bytes) / rate;
}

/* Arithmetic units that can serve a weight format, best first; "" ends. */
static const char *const *flops_classes(fmt f, bool cpu) {
  static const char *const f32[] = {"fp32", "f32", ""}, *const f16[] = {"fp16", "f16", "bf16", "fp32", "f32", ""},
                           *const bf16[] = {"bf16", "fp16", "f16", "fp32", "f32", ""},
                           *const fp8[] = {"fp8", "bf16", "fp16", "int8", "fp32", "f32", ""}, *const int8[] = {"int8", "bf16",
                                                                                                               "fp16", "fp32",
                                                                                                               "f32",  ""};
  switch (f) {
    case FMT_F32: return f32;
    case FMT_F16: return f16;
    case FMT_BF16: return bf16;
    case FMT_FP8_E4M3: return cpu ? bf16 : fp8;
    default: return int8;
  }
}

double cost_measured_flops(const cost_unit *u, fmt f) {
  double best = 0;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->format, fmt_get(f)->name) != 0 || !(k->ns > 0)) continue;
    if (u->threads > 0 && k->threads != u->threads) continue;
    double products = strcmp(k->kernel, "expert_ffn") == 0 ? 3 : strcmp(k->kernel, "matmul") == 0 ? 1 : 0;
    best = fmax(best, 1e9 * 2 * products * k->n_out * k->n_in * k->tokens / k->ns);
  }
  return best;
}

bool cost_flops_figure(const cost_unit *u, fmt f, char *what, size_t n) {
  const char *const *classes = flops_classes(f, u->cpu);
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; classes[i][0] != '\0'; i++) {
      cost_figure any;
      snprintf(what, n, "%sflops_%s", pass == 1 ? "" : u->cpu ? "cpu_" : "gpu_", classes[i]);
      if (cost_find(u->rows, u->device, what, &any)) return true;
    }
  return false;
}

double cost_unit_flops(const cost_unit *u, fmt f, cost_case c, db_tag *tag) {
  cost_group g = u->cpu ? COST_CPU_FLOPS : COST_GPU_FLOPS;
  char what[48];
  if (cost_flops_figure(u, f, what, sizeof what))
    return u->cpu ? cost_cpu_rate(u->rows, what, u->threads, g, c, none, tag)
                  : cost_rate(u->rows, u->device, what, g, c, none, tag);
  double seen = cost_measured_flops(u, f);
  if (seen > 0) {
    cost_weaken(tag, TAG_SCALED);
    return seen;
  }
  cost_weaken(tag, TAG_ASSUMED);
  int side = (c.groups & g) != 0 ? c.side : 0;
  double each = cost_prior_of(u->cpu ? "cpu_flops_per_thread" : "gpu_flops")->value[1 + side];
  return !u->cpu ? each : each * (u->threads > 0 ? u->threads : cost_cpu_cores(u->rows));
}

double cost_distinct_factor(const cost_rows *r, cost_case c, db_tag *tag) {
  cost_figure f;
  if (!cost_find(r, "cpu", "distinct_factor", &f)) return 1;
  cost_weaken(tag, f.tag);
  int side = (c.groups & COST_ROUTING) != 0 ? c.side : 0;
  return side < 0 ? f.high : side > 0 ? f.low : f.likely;
}

/* ---- measured curves ---- */

static double shape_bytes(const rec_kernel_point *k, fmt f) {
  double matrices = strcmp(k->kernel, "expert_ffn") == 0 ? 3 : 1;
  return matrices * k->n_out * k->n_in * fmt_get(f)->bits_per_weight / 8;
}

/* ns of one point of the shape, format and tokens of k, on so many threads and under that load; 0 when it was not measured. */
static double same_point(const cost_rows *r, const rec_kernel_point *k, int threads, const char *load) {
  double best = 0;
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *o = &r->kernel[i];
    if (o->threads != threads || o->tokens != k->tokens || o->n_out != k->n_out || o->n_in != k->n_in || !(o->ns > 0)) continue;
    if (strcmp(o->load, load) != 0 || strcmp(o->kernel, k->kernel) != 0 || strcmp(o->format, k->format) != 0 ||
        strcmp(o->device, k->device) != 0)
      continue;
    best = best == 0 ? o->ns : fmin(best, o->ns);
  }
  return best;
}

/* Mean over the token counts measured with one, `most` - 1 and `most` threads, for the shape nearest to s; 0 when there is none. */
static double kernel_contend(const cost_rows *r, const cost_shape *s, int most) {
  double sum = 0, nearest = INFINITY;
  int n = 0;
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *k = &r->kernel[i];
    if (k->threads != most || strcmp(k->kernel, s->kernel) != 0 || strcmp(k->format, fmt_get(s->format)->name) != 0) continue;
    double all = same_point(r, k, most, ""), one = same_point(r, k, 1, ""), rest = same_point(r, k, most - 1, "");
    if (!(all > 0) || all < k->ns || !(one > 0) || !(rest > 0)) continue;
    double far = fabs(log(shape_bytes(k, s->format) / s->bytes));
    if (far > nearest) continue;
    if (far < nearest) sum = n = 0;
    nearest = far;
    sum += all * (1 / one + 1 / rest);
    n++;
  }
  return n > 0 ? sum / n : 0;
}

double cost_contend(const cost_input *in, const cost_shape *s, db_tag *tag) {
  if (gpu_set_kind(&in->gpus) != GPU_VIRTUAL) return 1;
  int most = in->threads > 0 ? in->threads : cost_cpu_cores(in->rows);
  if (most < 2) return 2; /* one core does both */
  double c = kernel_contend(in->rows, s, most);
  if (!(c > 0)) {
    cost_unit one = cost_device_unit(in, 0), rest = cost_pool_unit(in), all = rest;
    all.threads = most;
    c = (cost_unit_bytes_per_s(&one, (cost_case){0}, tag) + cost_unit_bytes_per_s(&rest, (cost_case){0}, tag)) /
        cost_unit_bytes_per_s(&all, (cost_case){0}, tag);
  }
  return fmin(2, fmax(1, c));
}

/* Time alone over time beside a DMA, mean over the token counts measured both ways for the shape nearest to s; 0 when there is none. */
static double kernel_beside_dma(const cost_rows *r, const cost_shape *s) {
  double sum = 0, nearest = INFINITY;
  int n = 0;
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *k = &r->kernel[i];
    if (strcmp(k->load, "dma") != 0 || strncmp(k->device, "cpu", 3) != 0 || strcmp(k->kernel, s->kernel) != 0 || !(k->ns > 0) ||
        strcmp(k->format, fmt_get(s->format)->name) != 0)
      continue;
    double alone = same_point(r, k, k->threads, "");
    double far = fabs(log(shape_bytes(k, s->format) / s->bytes));
    if (!(alone > 0) || far > nearest) continue;
    if (far < nearest) sum = n = 0;
    nearest = far;
    sum += fmin(1, alone / k->ns);
    n++;
  }
  return n > 0 ? sum / n : 0;
}

double cost_contend_dma(const cost_input *in, const cost_shape *s, db_tag *tag) {
  if (gpu_set_kind(&in->gpus) != GPU_CUDA) return 1;
  double left = kernel_beside_dma(in->rows, s);
  cost_figure load;
  bool paced = cost_find(in->rows, "cpu", "dma_load_bytes_per_s", &load) && load.likely > 0;
  if (left > 0 && !paced) return 2 - left;
  cost_unit pool = cost_pool_unit(in), device = cost_device_unit(in, 0);
  double link = cost_rate(in->rows, device.device, "pcie_h2d_bytes_per_s", COST_LINK, (cost_case){0},
                          cost_prior_of("pcie_h2d_bytes_per_s")->value, tag);
  if (left > 0) { /* what another rate of uploads would have cost goes with the rate */
    cost_weaken(tag, TAG_SCALED);
    return fmin(2, 1 + (1 - left) * link / load.likely);
  }
  return 1 + fmin(1, link / cost_unit_bytes_per_s(&pool, (cost_case){0}, tag));
}

bool cost_on_unit(const rec_kernel_point *k, const cost_unit *u) {
  if (u->cpu) return strncmp(k->device, "cpu", 3) == 0;
  return strcmp(k->device, u->device) == 0;
}

int cost_usable_threads(const cost_unit *u, const char *kernel, const char *format) {
  int most = 0;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, kernel) != 0 || strcmp(k->format, format) != 0 || k->load[0] != '\0') continue;
    int threads = k->threads > 0 ? k->threads : 1;
    if (threads == u->threads) return threads;
    if (threads > most) most = threads;
  }
  return most;
}

static void curve_add(stage_curve *c, double tok, double ns) {
  int i = 0;
  while (i < c->n && c->tok[i] < tok) i++;
  if (i < c->n && c->tok[i] == tok) {
    c->ns[i] = fmin(c->ns[i], ns);
    return;
  }
  if (c->n == STAGE_CURVE_MAX) return; /* more token counts than a curve holds: the first ones measured stay */
  memmove(&c->tok[i + 1], &c->tok[i], (size_t)(c->n - i) * sizeof c->tok[0]);
  memmove(&c->ns[i + 1], &c->ns[i], (size_t)(c->n - i) * sizeof c->ns[0]);
  c->tok[i] = tok;
  c->ns[i] = ns;
  c->n++;
}

/* The measured shape nearest in bytes; returns its first point. */
static const rec_kernel_point *nearest_shape(const cost_unit *u, const cost_shape *s, int threads) {
  const rec_kernel_point *best = NULL;
  double best_far = INFINITY;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, s->kernel) != 0 || strcmp(k->format, fmt_get(s->format)->name) != 0) continue;
    if (k->load[0] != '\0' || (u->cpu && (k->threads > 0 ? k->threads : 1) != threads) || !(k->ns > 0)) continue;
    double far = k->n_out == s->n_out && k->n_in == s->n_in ? -1 : fabs(log(shape_bytes(k, s->format) / s->bytes));
    if (far < best_far) {
      best = k;
      best_far = far;
    }
  }
  return best;
}

static int point_at(const stage_curve *c, int tokens) {
  for (int i = 0; i < c->n; i++)
    if (c->tok[i] == tokens) return i;
  return -1;
}

/* How many tokens products take at a time, and what passes that are not full cost, from one and four tokens behind two full ones; points that are not of
 * full passes then go. Kernels take 4, 8 or 16: no pass costs less than a part of it. */
static void find_passes(stage_curve *c) {
  enum { FULL = 16, FEW = 4 };
  static const int sizes[] = {4, 8, 16};
  static const double NEARLY = 1.1;
  const int full = point_at(c, FULL), one = point_at(c, FULL + 1), few = point_at(c, FULL + FEW);
  int next = c->n - 1;
  if (full < 0 || one < 0 || few < 0 || c->tok[next] < 2 * FULL) return;
  while (c->tok[next - 1] >= 2 * FULL) next--;
  const double each = (c->ns[next] - c->ns[full]) / (c->tok[next] - FULL);
  if (!(each > 0)) return;
  const double of_one = (c->ns[one] - c->ns[full]) / each, of_few = (c->ns[few] - c->ns[full]) / each;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes && c->pass == 0; i++)
    if (of_few <= NEARLY * sizes[i] || sizes[i] == STAGE_PASS_MAX) c->pass = sizes[i];
  const double most = c->pass, b = c->pass == FEW ? FEW : fmin(most, fmax(FEW, of_few)), a = fmin(b, fmax(1, of_one));
  for (int r = 1; r < c->pass; r++)
    c->part[r] = r <= FEW ? a + (b - a) * (r - 1) / (FEW - 1) : b + (most - b) * (r - FEW) / (most - FEW);
  for (int r = 1; r < c->pass; r++) c->part[r] = fmax(r, c->part[r]);
  int kept = 0;
  for (int i = 0; i < c->n; i++) {
    if (c->tok[i] > c->pass && fmod(c->tok[i], c->pass) > 0) continue;
    c->tok[kept] = c->tok[i];
    c->ns[kept++] = c->ns[i];
  }
  c->n = kept;
}

bool cost_measured_curve(const cost_unit *u, const cost_shape *s, cost_case c, stage_curve *out, db_tag *tag) {
  int threads = cost_usable_threads(u, s->kernel, fmt_get(s->format)->name);
  const rec_kernel_point *near = threads > 0 ? nearest_shape(u, s, threads) : NULL;
  if (near == NULL) return false;
  bool exact = near->n_out == s->n_out && near->n_in == s->n_in;
  double scale = exact ? 1 : s->bytes / shape_bytes(near, s->format);
  if (!exact) cost_weaken(tag, TAG_SCALED);
  if (u->cpu && u->threads > 0 && threads != u->threads) { /* other threads were measured: by bandwidth */
    db_tag ignored = TAG_MEASURED;
    cost_unit other = *u;
    other.threads = threads;
    scale *= cost_unit_bytes_per_s(&other, (cost_case){0}, &ignored) / cost_unit_bytes_per_s(u, (cost_case){0}, &ignored);
    cost_weaken(tag, TAG_SCALED);
  }
  int side = (c.groups & (u->cpu ? COST_CPU_MEM : COST_GPU_MEM)) != 0 ? c.side : 0;
  stage_curve r = {0};
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, s->kernel) != 0 || strcmp(k->format, near->format) != 0 || k->load[0] != '\0')
      continue;
    if (k->n_out != near->n_out || k->n_in != near->n_in || !(k->ns > 0) || k->tokens < 1) continue;
    if (u->cpu && (k->threads > 0 ? k->threads : 1) != threads) continue;
    double ns = side < 0 ? fmax(k->ns, k->ns_high) : side > 0 && k->ns_low > 0 ? fmin(k->ns, k->ns_low) : k->ns;
    curve_add(&r, k->tokens, ns * scale);
    cost_weaken(tag, k->tag);
  }
  for (int i = 1; i < r.n; i++) r.ns[i] = fmax(r.ns[i], r.ns[i - 1]);
  find_passes(&r);
  *out = r;
  return r.n > 0;
}
