#include "planner/cost/cost_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop_rounded(cost_rows *r) {
  int kept = 0;
  for (int i = 0; i < r->n_kernel; i++)
    if (!rec_kernel_rounded(&r->kernel[i])) r->kernel[kept++] = r->kernel[i];
  r->n_kernel = kept;
}

hf_status cost_rows_load(db *d, const rec_machine *m, bool rounded, cost_rows **out) {
  cost_rows *r = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "rows of a machine"));
  r->machine = *m;
  HF_GO(fail, db_device_list(d, m->id, &r->device, &r->n_device));
  HF_GO(fail, db_figure_list(d, m->id, &r->figure, &r->n_figure));
  HF_GO(fail, db_kernel_list(d, m->id, &r->kernel, &r->n_kernel));
  HF_GO(fail, db_link_list(d, m->id, &r->link, &r->n_link));
  if (!rounded) drop_rounded(r);
  *out = r;
  return HF_OK;
fail:
  cost_rows_free(r);
  return st;
}

static hf_status copy_array(const void *from, int n, size_t size, const char *what, void *out) {
  void *to = NULL;
  HF_TRY(hf_alloc(&to, n > 0 ? (size_t)n : 1, size, what));
  if (n > 0) memcpy(to, from, (size_t)n * size);
  memcpy(out, &to, sizeof to);
  return HF_OK;
}

static bool in_order(double low, double likely, double high) {
  return low >= 0 && low <= likely && likely <= high && isfinite(high); /* false for NaN */
}

static hf_status check_arrays(const char *name, const rec_figure *f, int n_figure, const rec_kernel_point *k, int n_kernel,
                              const rec_link_point *l, int n_link) {
  for (int i = 0; i < n_figure; i++)
    if (!in_order(f[i].low, f[i].likely, f[i].high))
      return hf_fail(HF_INPUT,
                     "machine %s: figure %s of '%s': low %g, likely %g, high %g: must be finite, not negative, and rise", name,
                     f[i].what, f[i].device, f[i].low, f[i].likely, f[i].high);
  for (int i = 0; i < n_kernel; i++)
    if (!in_order(k[i].ns_low, k[i].ns, k[i].ns_high))
      return hf_fail(HF_INPUT, "machine %s: kernel %s of '%s': times %g, %g, %g ns: must be finite, not negative, and rise", name,
                     k[i].kernel, k[i].device, k[i].ns_low, k[i].ns, k[i].ns_high);
  for (int i = 0; i < n_link; i++)
    if (!in_order(l[i].ns_low, l[i].ns, l[i].ns_high))
      return hf_fail(HF_INPUT, "machine %s: link %s to %s: times %g, %g, %g ns: must be finite, not negative, and rise", name,
                     l[i].src, l[i].dst, l[i].ns_low, l[i].ns, l[i].ns_high);
  return HF_OK;
}

hf_status cost_rows_from_arrays(const rec_machine *m, const rec_device *device, int n_device, const rec_figure *figure,
                                int n_figure, const rec_kernel_point *kernel, int n_kernel, const rec_link_point *link,
                                int n_link, cost_rows **out) {
  cost_rows *r = NULL;
  hf_status st = HF_OK;
  HF_TRY(check_arrays(m->name, figure, n_figure, kernel, n_kernel, link, n_link));
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "rows of a machine"));
  r->machine = *m;
  HF_GO(fail, copy_array(device, n_device, sizeof *device, "devices of a machine", &r->device));
  r->n_device = n_device;
  HF_GO(fail, copy_array(figure, n_figure, sizeof *figure, "figures of a machine", &r->figure));
  r->n_figure = n_figure;
  HF_GO(fail, copy_array(kernel, n_kernel, sizeof *kernel, "kernel points of a machine", &r->kernel));
  r->n_kernel = n_kernel;
  HF_GO(fail, copy_array(link, n_link, sizeof *link, "link points of a machine", &r->link));
  r->n_link = n_link;
  *out = r;
  return HF_OK;
fail:
  cost_rows_free(r);
  return st;
}

void cost_rows_free(cost_rows *r) {
  if (r == NULL) return;
  free(r->device);
  free(r->figure);
  free(r->kernel);
  free(r->link);
  free(r);
}

void cost_weaken(db_tag *tag, db_tag with) {
  if (with > *tag) *tag = with;
}

/* The thread count in "threads=N", 0 when there is none. */
static int params_threads(const char *params) {
  const char *p = strstr(params, "threads=");
  return p != NULL ? atoi(p + 8) : 0;
}

/* The newest row that covers the whole device: without a thread count, or else the one with most threads. */
static const rec_figure *row_of(const cost_rows *r, const char *device, const char *what) {
  const rec_figure *best = NULL;
  int best_threads = -1;
  for (int i = 0; i < r->n_figure; i++) {
    const rec_figure *f = &r->figure[i];
    /* asked for in every search for anything: most names part at their first letter */
    if (f->what[0] != what[0] || strcmp(f->what, what) != 0 || strcmp(f->device, device) != 0) continue;
    int threads = params_threads(f->params);
    if (threads == 0) threads = INT32_MAX;
    if (best == NULL || threads > best_threads || (threads == best_threads && f->id > best->id)) {
      best = f;
      best_threads = threads;
    }
  }
  return best;
}

static cost_figure figure_of(const rec_figure *f) {
  cost_figure c = {f->low, f->likely, f->high, f->tag};
  if (!(c.low > 0) || c.low > c.likely) c.low = c.likely;
  if (c.high < c.likely) c.high = c.likely;
  return c;
}

const rec_figure *cost_row(const cost_rows *r, const char *device, const char *what) {
  const rec_figure *f = row_of(r, device, what);
  return f != NULL || strcmp(device, "cpu") != 0 ? f : row_of(r, "", what);
}

bool cost_find(const cost_rows *r, const char *device, const char *what, cost_figure *out) {
  const rec_figure *f = row_of(r, device, what);
  if (f != NULL) {
    *out = figure_of(f);
    return true;
  }
  if (strcmp(device, "cpu") != 0) return false;
  f = row_of(r, "", what);
  if (f != NULL) {
    *out = figure_of(f);
    return true;
  }
  size_t n = strlen(what);
  bool time = n > 3 && strcmp(what + n - 3, "_ns") == 0;
  int found = 0;
  cost_figure sum = {0, 0, 0, TAG_MEASURED};
  for (int i = 0; i < r->n_device; i++) {
    if (strcmp(r->device[i].kind, "cpu") != 0) continue;
    f = row_of(r, r->device[i].device, what);
    if (f == NULL) continue;
    cost_figure c = figure_of(f);
    sum.low = time ? fmax(sum.low, c.low) : sum.low + c.low;
    sum.likely = time ? fmax(sum.likely, c.likely) : sum.likely + c.likely;
    sum.high = time ? fmax(sum.high, c.high) : sum.high + c.high;
    cost_weaken(&sum.tag, c.tag);
    found++;
  }
  if (found == 0) return false;
  if (found > 1) cost_weaken(&sum.tag, TAG_SCALED);
  *out = sum;
  return true;
}

static double pick(const cost_figure *f, int side) {
  return side < 0 ? f->low : side > 0 ? f->high : f->likely;
}

static cost_figure find_or(const cost_rows *r, const char *device, const char *what, const double fallback[3]) {
  cost_figure f = {fallback[0], fallback[1], fallback[2], TAG_ASSUMED};
  if (!cost_find(r, device, what, &f) || !(f.likely > 0)) f = (cost_figure){fallback[0], fallback[1], fallback[2], TAG_ASSUMED};
  return f;
}

double cost_rate(const cost_rows *r, const char *device, const char *what, cost_group g, cost_case c, const double fallback[3],
                 db_tag *tag) {
  cost_figure f = find_or(r, device, what, fallback);
  cost_weaken(tag, f.tag);
  return pick(&f, (c.groups & g) != 0 ? c.side : 0);
}

/* The pooled row of exactly so many threads; those of a node ("cpu0") are of threads that sit there together. */
static const rec_figure *row_of_threads(const cost_rows *r, const char *what, int threads) {
  const rec_figure *exact = NULL;
  for (int i = 0; i < r->n_figure; i++) {
    const rec_figure *f = &r->figure[i];
    if (strcmp(f->what, what) != 0 || strcmp(f->device, "cpu") != 0 || params_threads(f->params) != threads || !(f->likely > 0))
      continue;
    if (exact == NULL || f->id > exact->id) exact = f;
  }
  return exact;
}

double cost_cpu_rate(const cost_rows *r, const char *what, int threads, cost_group g, cost_case c, const double fallback[3],
                     db_tag *tag) {
  int cores = cost_cpu_cores(r), side = (c.groups & g) != 0 ? c.side : 0;
  if (threads > 0 && threads < cores) {
    const rec_figure *exact = row_of_threads(r, what, threads);
    if (exact != NULL) {
      cost_figure f = figure_of(exact);
      cost_weaken(tag, f.tag);
      return pick(&f, side);
    }
  }
  double all = cost_rate(r, "cpu", what, g, c, fallback, tag);
  if (threads <= 0 || threads >= cores) return all;
  cost_weaken(tag, TAG_SCALED);
  double share = all * threads / cores, alone = threads * cost_prior_of("thread_read_bytes_per_s")->value[1 + side];
  if (g != COST_CPU_MEM || share >= alone) return share;
  if (alone < all) cost_weaken(tag, TAG_ASSUMED);
  return fmin(all, alone);
}

double cost_time(const cost_rows *r, const char *device, const char *what, cost_case c, const double fallback[3], db_tag *tag) {
  cost_figure f = find_or(r, device, what, fallback);
  cost_weaken(tag, f.tag);
  return pick(&f, (c.groups & COST_FIXED) != 0 ? -c.side : 0);
}

double cost_cpu_time(const cost_rows *r, const char *what, int threads, cost_case c, const double fallback[3], db_tag *tag) {
  const rec_figure *exact = threads > 0 ? row_of_threads(r, what, threads) : NULL;
  if (exact == NULL) return cost_time(r, "cpu", what, c, fallback, tag);
  cost_figure f = figure_of(exact);
  cost_weaken(tag, f.tag);
  return pick(&f, (c.groups & COST_FIXED) != 0 ? -c.side : 0);
}

int cost_cpu_cores(const cost_rows *r) {
  int n = 0;
  for (int i = 0; i < r->n_device; i++)
    if (strcmp(r->device[i].kind, "cpu") == 0) n += r->device[i].cores;
  return n > 0 ? n : 1;
}

int64_t cost_mem_bytes(const cost_rows *r, const char *kind, int index) {
  int64_t sum = 0;
  for (int i = 0, k = 0; i < r->n_device; i++)
    if (strcmp(r->device[i].kind, kind) == 0) {
      if (index < 0 || index == k) sum += r->device[i].mem_bytes;
      k++;
    }
  return sum;
}

const rec_device *cost_device(const cost_rows *r, const char *device) {
  for (int i = 0; i < r->n_device; i++)
    if (strcmp(r->device[i].device, device) == 0) return &r->device[i];
  return NULL;
}
