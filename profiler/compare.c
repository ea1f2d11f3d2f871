#include "profiler/compare.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/print.h"

/* ---- pairing ---- */

static int threads_in(const char *params) {
  const char *p = strstr(params, "threads=");
  long n = p ? strtol(p + 8, NULL, 10) : 0;
  return n < 0 ? 0 : n > INT_MAX ? INT_MAX : (int)n;
}

static int most_threads(const prof_view *v) {
  int most = 0;
  for (int i = 0; i < v->n_figure; i++)
    if (strncmp(v->figure[i].device, "cpu", 3) == 0 && threads_in(v->figure[i].params) > most)
      most = threads_in(v->figure[i].params);
  for (int i = 0; i < v->n_point; i++)
    if (strncmp(v->point[i].device, "cpu", 3) == 0 && v->point[i].threads > most) most = v->point[i].threads;
  return most;
}

/* Threads as a word of both machines: all of a device are -1. One thread stays one thread, unless it is all that there is on both. */
static int common_threads(int threads, int most) {
  return threads > 1 && threads == most ? -1 : threads;
}

/* The thread count of a device's rows of one name: a node's threads are all of the node. */
static int most_of(const prof_view *v, const rec_figure *f) {
  int most = 0;
  for (int i = 0; i < v->n_figure; i++) {
    const rec_figure *o = &v->figure[i];
    if (strcmp(o->device, f->device) == 0 && strcmp(o->what, f->what) == 0 && threads_in(o->params) > most)
      most = threads_in(o->params);
  }
  return most;
}

/* What follows "threads=N", and what stands before it. */
static bool same_params(const rec_figure *a, int most_a, const rec_figure *b, int most_b) {
  int ta = threads_in(a->params), tb = threads_in(b->params);
  if ((ta == 0) != (tb == 0)) return false;
  if (ta == 0) return strcmp(a->params, b->params) == 0;
  if (common_threads(ta, most_a) != common_threads(tb, most_b)) return false;
  const char *pa = strstr(a->params, "threads="), *pb = strstr(b->params, "threads=");
  size_t before = (size_t)(pa - a->params);
  if (before != (size_t)(pb - b->params) || memcmp(a->params, b->params, before) != 0) return false;
  pa += 8;
  pb += 8;
  return strcmp(pa + strspn(pa, "0123456789"), pb + strspn(pb, "0123456789")) == 0;
}

static const rec_figure *partner(const prof_view *va, const rec_figure *a, const prof_view *vb) {
  const rec_figure *found = NULL;
  int most_a = most_of(va, a), most_b = most_of(vb, a);
  for (int i = 0; i < vb->n_figure; i++) {
    const rec_figure *b = &vb->figure[i];
    if (strcmp(a->device, b->device) == 0 && strcmp(a->what, b->what) == 0 && strcmp(a->unit, b->unit) == 0 &&
        same_params(a, most_a, b, most_b))
      found = b; /* the newest */
  }
  return found;
}

static bool same_curve(const rec_kernel_point *a, int most_a, const rec_kernel_point *b, int most_b) {
  return strcmp(a->device, b->device) == 0 && strcmp(a->kernel, b->kernel) == 0 && strcmp(a->format, b->format) == 0 &&
         strcmp(a->act, b->act) == 0 && strcmp(a->load, b->load) == 0 && a->n_out == b->n_out && a->n_in == b->n_in &&
         common_threads(a->threads, most_a) == common_threads(b->threads, most_b);
}

/* The fastest candidate's point of a curve at these tokens and this context. */
static const rec_kernel_point *best_at(const prof_view *v, int most, const rec_kernel_point *like, int most_like) {
  const rec_kernel_point *best = NULL;
  for (int i = 0; i < v->n_point; i++) {
    const rec_kernel_point *k = &v->point[i];
    if (k->tokens != like->tokens || k->context != like->context || !(k->ns > 0) || !same_curve(k, most, like, most_like))
      continue;
    if (!best || k->ns < best->ns) best = k;
  }
  return best;
}

/* ---- ratios ---- */

static double distance(double end, double likely) {
  return end > 0 && likely > 0 ? log(end / likely) : 0;
}

/* x over y, both with ends. */
static compare_ratio over(compare_ratio x, compare_ratio y) {
  if (!(x.likely > 0) || !(y.likely > 0)) return (compare_ratio){0};
  double at = x.likely / y.likely;
  double up = hypot(distance(x.high, x.likely), distance(y.low, y.likely));
  double down = hypot(distance(x.low, x.likely), distance(y.high, y.likely));
  return (compare_ratio){at * exp(-down), at, at * exp(up)};
}

static const char *verdict_of(compare_ratio r) {
  if (!(r.likely > 0)) return "";
  return r.low > 1 ? "faster" : r.high < 1 ? "slower" : "same";
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static compare_figure compare_pair(const rec_figure *a, const rec_figure *b) {
  compare_ratio ra = {a->low, a->likely, a->high}, rb = {b->low, b->likely, b->high};
  bool time = strcmp(a->unit, "ns") == 0, rate = ends_with(a->unit, "/s") || strcmp(a->unit, "Hz") == 0;
  compare_figure f = {a, b, time ? over(ra, rb) : over(rb, ra), ""};
  if (time || rate) f.verdict = verdict_of(f.r);
  return f;
}

static compare_kernel compare_curve(const comparison *c, int first, int most_a, int most_b) {
  const rec_kernel_point *k = &c->a->point[first];
  compare_kernel out = {.least = INFINITY};
  double low = 0, likely = 0, high = 0;
  for (int i = first; i < c->a->n_point; i++) {
    const rec_kernel_point *a = &c->a->point[i];
    if (!same_curve(a, most_a, k, most_a) || best_at(c->a, most_a, a, most_a) != a) continue;
    const rec_kernel_point *b = best_at(c->b, most_b, a, most_a);
    if (!b) continue;
    compare_ratio r = over((compare_ratio){a->ns_low, a->ns, a->ns_high}, (compare_ratio){b->ns_low, b->ns, b->ns_high});
    low += log(r.low);
    likely += log(r.likely);
    high += log(r.high);
    out.least = fmin(out.least, r.likely);
    out.most = fmax(out.most, r.likely);
    if (out.n++ == 0) {
      out.a = a;
      out.b = b;
    }
  }
  if (out.n == 0) return out;
  out.r = (compare_ratio){exp(low / out.n), exp(likely / out.n), exp(high / out.n)};
  out.verdict = verdict_of(out.r);
  return out;
}

static bool first_of_curve(const prof_view *v, int most, int at) {
  for (int i = 0; i < at; i++)
    if (same_curve(&v->point[i], most, &v->point[at], most)) return false;
  return true;
}

hf_status compare_profiles(const prof_view *a, const prof_view *b, comparison **out) {
  comparison *c = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&c, 1, sizeof *c, "a comparison"));
  c->a = a;
  c->b = b;
  HF_GO(fail, hf_alloc(&c->figure, (size_t)a->n_figure + 1, sizeof *c->figure, "a comparison"));
  HF_GO(fail, hf_alloc(&c->kernel, (size_t)a->n_point + 1, sizeof *c->kernel, "a comparison"));
  for (int i = 0; i < a->n_figure; i++) {
    const rec_figure *other = partner(a, &a->figure[i], b);
    if (other) c->figure[c->n_figure++] = compare_pair(&a->figure[i], other);
    else c->only_a++;
  }
  for (int i = 0; i < b->n_figure; i++) c->only_b += partner(b, &b->figure[i], a) == NULL;
  int most_a = most_threads(a), most_b = most_threads(b);
  for (int i = 0; i < a->n_point; i++) {
    if (!first_of_curve(a, most_a, i)) continue;
    compare_kernel k = compare_curve(c, i, most_a, most_b);
    if (k.n > 0) c->kernel[c->n_kernel++] = k;
  }
  *out = c;
  return HF_OK;
fail:
  compare_free(c);
  return st;
}

void compare_free(comparison *c) {
  if (!c) return;
  free(c->figure);
  free(c->kernel);
  free(c);
}

/* ---- printing ---- */

static void ratio_text(char out[48], compare_ratio r) {
  if (r.likely > 0 && r.low < 0.05) snprintf(out, 48, "%.2g (%.2g to %.2g)", r.likely, r.low, r.high);
  else if (r.likely > 0) snprintf(out, 48, "%.2f (%.2f to %.2f)", r.likely, r.low, r.high);
  else snprintf(out, 48, "-");
}

static void print_head(const comparison *c) {
  char fa[160], fb[160];
  prof_one_line(c->a, fa, sizeof fa);
  prof_one_line(c->b, fb, sizeof fb);
  printf("a  %s\nb  %s\n\nRatios above 1: b is faster. In brackets what both measurements leave open; \"same\": 1 lies within.\n",
         fa, fb);
}

static void print_kernels(const comparison *c) {
  if (c->n_kernel == 0) return;
  printf("\n%-12s %-8s %-6s %-14s %-8s %-5s %7s %22s %16s\n", "kernel", "format", "act", "shape", "threads", "load", "points",
         "b over a", "least to most");
  for (int i = 0; i < c->n_kernel; i++) {
    const compare_kernel *k = &c->kernel[i];
    char shape[32], threads[32], r[48], range[32];
    snprintf(shape, sizeof shape, "%d x %d", k->a->n_out, k->a->n_in);
    if (k->a->threads == k->b->threads) snprintf(threads, sizeof threads, "%d", k->a->threads);
    else snprintf(threads, sizeof threads, "%d, %d", k->a->threads, k->b->threads);
    ratio_text(r, k->r);
    snprintf(range, sizeof range, "%.2f to %.2f", k->least, k->most);
    printf("%-12s %-8s %-6s %-14s %-8s %-5s %7d %22s %16s  %s\n", k->a->kernel, k->a->format, k->a->act, shape, threads,
           k->a->load[0] ? k->a->load : "-", k->n, r, range, k->verdict);
  }
}

void compare_print(const comparison *c) {
  print_head(c);
  printf("\n%-34s %-6s %-20s %14s %14s %22s\n", "figure", "device", "params", "a", "b", "b over a");
  for (int i = 0; i < c->n_figure; i++) {
    const compare_figure *f = &c->figure[i];
    char va[32], vb[32], r[48], params[128];
    if (strcmp(f->a->params, f->b->params) == 0) snprintf(params, sizeof params, "%s", f->a->params);
    else snprintf(params, sizeof params, "%.60s | %.60s", f->a->params, f->b->params);
    ratio_text(r, f->r);
    printf("%-34s %-6s %-20s %14s %14s %22s  %s\n", f->a->what, f->a->device, params, prof_human(va, f->a->likely, f->a->unit),
           prof_human(vb, f->b->likely, f->b->unit), r, f->verdict);
  }
  if (c->only_a + c->only_b > 0) printf("figures that only a has: %d, only b: %d\n", c->only_a, c->only_b);
  print_kernels(c);
}

static void add_side(json *o, const char *key, double low, double likely, double high, db_tag tag, const char *params) {
  json *s = json_add_object(o, key);
  json_add_num(s, "low", low);
  json_add_num(s, "likely", likely);
  json_add_num(s, "high", high);
  json_add_str(s, "tag", db_tag_name(tag));
  json_add_str(s, "params", params);
}

static void add_ratio(json *o, compare_ratio r, const char *verdict) {
  json *s = json_add_object(o, "ratio");
  json_add_num(s, "low", r.low);
  json_add_num(s, "likely", r.likely);
  json_add_num(s, "high", r.high);
  json_add_str(o, "verdict", verdict);
}

static void add_machine(json *root, const char *key, const prof_view *v) {
  json *o = json_add_object(root, key);
  json_add_int(o, "machine_id", v->machine.id);
  json_add_str(o, "machine", v->machine.name);
  json_add_int(o, "created_s", v->machine.created_ns / 1000000000);
}

hf_status compare_print_json(const comparison *c) {
  json *root = json_new_object();
  add_machine(root, "a", c->a);
  add_machine(root, "b", c->b);
  json *list = json_add_array(root, "figures");
  for (int i = 0; i < c->n_figure; i++) {
    const compare_figure *f = &c->figure[i];
    json *o = json_add_object(list, NULL);
    json_add_str(o, "what", f->a->what);
    json_add_str(o, "device", f->a->device);
    json_add_str(o, "unit", f->a->unit);
    add_side(o, "a", f->a->low, f->a->likely, f->a->high, f->a->tag, f->a->params);
    add_side(o, "b", f->b->low, f->b->likely, f->b->high, f->b->tag, f->b->params);
    add_ratio(o, f->r, f->verdict);
  }
  json_add_int(root, "only_a", c->only_a);
  json_add_int(root, "only_b", c->only_b);
  list = json_add_array(root, "kernels");
  for (int i = 0; i < c->n_kernel; i++) {
    const compare_kernel *k = &c->kernel[i];
    json *o = json_add_object(list, NULL);
    json_add_str(o, "kernel", k->a->kernel);
    json_add_str(o, "device", k->a->device);
    json_add_str(o, "format", k->a->format);
    json_add_str(o, "act", k->a->act);
    json_add_str(o, "load", k->a->load);
    json_add_int(o, "n_out", k->a->n_out);
    json_add_int(o, "n_in", k->a->n_in);
    json_add_int(o, "threads_a", k->a->threads);
    json_add_int(o, "threads_b", k->b->threads);
    json_add_int(o, "points", k->n);
    json_add_num(o, "least", k->least);
    json_add_num(o, "most", k->most);
    add_ratio(o, k->r, k->verdict);
  }
  return prof_print_document(root);
}
