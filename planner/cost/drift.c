/* drift.c: a machine's rows at another rate of memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/stats.h"
#include "planner/cost/cost_int.h"

static const char rate_name[] = "dram_read_bytes_per_s";
/* What is read faster than memory by so much comes from cache. */
static const double FROM_CACHE = 1.2;

static double stated_rate(const cost_rows *r, int threads) {
  static const double none[3] = {0, 0, 0};
  db_tag tag = TAG_MEASURED;
  return cost_cpu_rate(r, rate_name, threads, COST_CPU_MEM, (cost_case){0}, none, &tag);
}

static void move_point(const cost_rows *r, double factor, double now, rec_kernel_point *k) {
  const double stated = stated_rate(r, k->threads), bytes = 1e9 * (double)k->bytes;
  const bool all = k->threads >= cost_cpu_cores(r);
  if (strncmp(k->device, "cpu", 3) != 0 || k->bytes <= 0 || !(k->ns > 0) || !(stated > 0)) return;
  if (bytes / k->ns > FROM_CACHE * stated) return;
  const double then = all ? stated * factor : fmin(stated, now);
  k->ns_low = hf_at_read_rate(k->ns_low, bytes / stated, bytes / then);
  k->ns = hf_at_read_rate(k->ns, bytes / stated, bytes / then);
  k->ns_high = hf_at_read_rate(k->ns_high, bytes / stated, bytes / then);
}

static void move_figure(double factor, double stated, double now, rec_figure *f) {
  if (strcmp(f->what, rate_name) != 0) return;
  const double by = f->likely >= stated ? factor : fmin(1, now / f->likely);
  f->low *= by, f->likely *= by, f->high *= by;
}

hf_status cost_rows_at_rate(const cost_rows *r, double bytes_per_s, cost_rows **out) {
  const double stated = stated_rate(r, cost_cpu_cores(r));
  rec_kernel_point *k = NULL;
  rec_figure *f = NULL;
  if (!(stated > 0) || !(bytes_per_s > 0))
    return hf_fail(HF_INPUT, "machine %s: drift cannot be told: the rate at which memory is read is not known", r->machine.name);
  hf_status st = hf_alloc(&k, (size_t)r->n_kernel + 1, sizeof *k, "kernel curves");
  if (st == HF_OK) st = hf_alloc(&f, (size_t)r->n_figure + 1, sizeof *f, "figures");
  for (int i = 0; st == HF_OK && i < r->n_kernel; i++) {
    k[i] = r->kernel[i];
    move_point(r, bytes_per_s / stated, bytes_per_s, &k[i]);
  }
  for (int i = 0; st == HF_OK && i < r->n_figure; i++) {
    f[i] = r->figure[i];
    move_figure(bytes_per_s / stated, stated, bytes_per_s, &f[i]);
  }
  if (st == HF_OK)
    st = cost_rows_from_arrays(&r->machine, r->device, r->n_device, f, r->n_figure, k, r->n_kernel, r->link, r->n_link, out);
  free(k);
  free(f);
  return st;
}
