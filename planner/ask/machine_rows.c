/* machine_rows.c: rules for changing a machine that is known by its rows only. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ask/machine_int.h"

static bool is_cpu(const char *device) {
  return strncmp(device, "cpu", 3) == 0;
}

static db_tag scaled(db_tag t) {
  return t < TAG_SCALED ? TAG_SCALED : t;
}

static void scale_figure(rec_figure *f, double by) {
  f->low *= by;
  f->likely *= by;
  f->high *= by;
  f->tag = scaled(f->tag);
}

void ask_scale_dram(ask_machine *m, double factor) {
  cost_rows *r = m->rows;
  cost_figure bw;
  double bytes_per_ns = cost_find(r, "cpu", "dram_read_bytes_per_s", &bw) ? bw.likely / 1e9 : 0;
  for (int i = 0; i < r->n_kernel; i++) {
    rec_kernel_point *k = &r->kernel[i];
    if (!is_cpu(k->device) || !(bytes_per_ns > 0) || k->bytes <= 0 || !(k->ns > 0)) continue;
    /* At most the whole time is memory; points of one node see that node's share of the bandwidth only, so more of them is memory. */
    double memory = fmin(1, (double)k->bytes / bytes_per_ns / k->ns), by = 1 - memory * (1 - 1 / factor);
    k->ns_low *= by;
    k->ns *= by;
    k->ns_high *= by;
    k->tag = scaled(k->tag);
  }
  for (int i = 0; i < r->n_figure; i++)
    if (is_cpu(r->figure[i].device) && strncmp(r->figure[i].what, "dram_", 5) == 0 &&
        strstr(r->figure[i].what, "bytes_per_s") != NULL)
      scale_figure(&r->figure[i], factor);
  ask_note(m,
           "Memory bandwidth of the CPU times %.3g: rates scale with it, of a measured kernel time only the part that is bytes "
           "read ÷ measured "
           "bandwidth.",
           factor);
}

void ask_scale_links(ask_machine *m, double factor) {
  cost_rows *r = m->rows;
  for (int i = 0; i < r->n_figure; i++)
    if (strncmp(r->figure[i].what, "pcie_", 5) == 0 && strstr(r->figure[i].what, "bytes_per_s") != NULL)
      scale_figure(&r->figure[i], factor);
  for (int i = 0; i < r->n_link; i++) {
    r->link[i].ns_low /= factor;
    r->link[i].ns /= factor;
    r->link[i].ns_high /= factor;
    r->link[i].tag = scaled(r->link[i].tag);
  }
  ask_note(m, "Links to the GPUs times %.3g; the GPUs are taken to keep up.", factor);
}

void ask_scale_compute(ask_machine *m, const char *what, double factor) {
  cost_rows *r = m->rows;
  for (int i = 0; i < r->n_figure; i++)
    if (is_cpu(r->figure[i].device) && strcmp(r->figure[i].what, what) == 0) scale_figure(&r->figure[i], factor);
}

void ask_raise_cpus(ask_machine *m, int64_t memory_bytes, int cores) {
  cost_rows *r = m->rows;
  int n = 0;
  for (int i = 0; i < r->n_device; i++) n += strcmp(r->device[i].kind, "cpu") == 0;
  for (int i = 0; i < r->n_device && n > 0; i++) {
    rec_device *d = &r->device[i];
    if (strcmp(d->kind, "cpu") != 0) continue;
    if (d->mem_bytes < memory_bytes / n) d->mem_bytes = memory_bytes / n;
    if (d->cores < (cores + n - 1) / n) d->cores = (cores + n - 1) / n;
  }
  if (m->f.memory_bytes < memory_bytes) m->f.memory_bytes = memory_bytes;
}

/* ---- taking devices out ---- */

/* "gpu3" after gpu1 went is "gpu2". */
static void renumber(char device[16], const char *kind, int gone) {
  size_t n = strlen(kind);
  if (strncmp(device, kind, n) != 0 || device[n] == '\0') return;
  int i = atoi(device + n);
  if (i > gone) snprintf(device, 16, "%.4s%d", kind, (i - 1) % 100000);
}

#define REMOVE_IF(array, count, condition)             \
  do {                                                 \
    int kept = 0;                                      \
    for (int at = 0; at < (count); at++) {             \
      if (!(condition)) (array)[kept++] = (array)[at]; \
    }                                                  \
    (count) = kept;                                    \
  } while (0)

static void remove_device(cost_rows *r, const char *device) {
  REMOVE_IF(r->device, r->n_device, strcmp(r->device[at].device, device) == 0);
  REMOVE_IF(r->figure, r->n_figure, strcmp(r->figure[at].device, device) == 0);
  REMOVE_IF(r->kernel, r->n_kernel, strcmp(r->kernel[at].device, device) == 0);
  REMOVE_IF(r->link, r->n_link, strcmp(r->link[at].src, device) == 0 || strcmp(r->link[at].dst, device) == 0);
}

static void renumber_all(cost_rows *r, const char *kind, int gone) {
  for (int i = 0; i < r->n_device; i++) renumber(r->device[i].device, kind, gone);
  for (int i = 0; i < r->n_figure; i++) renumber(r->figure[i].device, kind, gone);
  for (int i = 0; i < r->n_kernel; i++) renumber(r->kernel[i].device, kind, gone);
  for (int i = 0; i < r->n_link; i++) {
    renumber(r->link[i].src, kind, gone);
    renumber(r->link[i].dst, kind, gone);
  }
}

/* The machine's own totals without a device that has such a figure. */
static void reduce_total(cost_rows *r, const char *device, const char *what, const char *part) {
  cost_figure lost;
  if (!cost_find(r, device, part, &lost)) return;
  for (int i = 0; i < r->n_figure; i++) {
    rec_figure *f = &r->figure[i];
    if (f->device[0] != '\0' || strcmp(f->what, what) != 0) continue;
    f->low = fmax(0, f->low - lost.low);
    f->likely = fmax(f->low, f->likely - lost.likely);
    f->high = fmax(f->likely, f->high - lost.high);
  }
}

hf_status ask_drop_gpu(ask_machine *m, int index) {
  char device[16];
  snprintf(device, sizeof device, "gpu%d", index % 1000);
  if (index == 0 && m->plays_gpu) {
    ask_note(m, "The device that the CPU plays is out of order; the CPU does all.");
    return HF_OK;
  }
  if (cost_device(m->rows, device) == NULL)
    return hf_fail(HF_INPUT, "lost=%s: %s has %d GPU%s%s", device, m->f.name, m->f.n_gpus, m->f.n_gpus == 1 ? "" : "s",
                   m->f.n_gpus > 0 ? ", counted from gpu0" : "");
  reduce_total(m->rows, device, "power_idle_w", "power_idle_w"); /* a dead card is pulled; its price was paid */
  reduce_total(m->rows, device, "power_active_w", "power_active_w");
  remove_device(m->rows, device);
  renumber_all(m->rows, "gpu", index);
  m->f.n_gpus--;
  if (m->f.n_gpus == 0) snprintf(m->f.gpus, sizeof m->f.gpus, "none");
  else {
    size_t used = strlen(m->f.gpus);
    snprintf(m->f.gpus + used, sizeof m->f.gpus - used, " - %s", device);
  }
  ask_note(m, "%s is out of order and pulled; what it did, the rest of the machine does.", device);
  return HF_OK;
}

/* What is left of a pooled figure of device "cpu" when one of n like nodes goes. */
static double share_left(const cost_rows *r, int n, const char *what, const char *gone) {
  cost_figure all, one;
  if (!cost_find(r, "cpu", what, &all) || !cost_find(r, gone, what, &one) || !(all.likely > 0)) return 1.0 - 1.0 / n;
  /* Two sockets together do less than twice one alone: what stays is what n - 1 of them alone do, at most all. */
  return fmin(1, (n - 1) * one.likely / all.likely);
}

hf_status ask_drop_node(ask_machine *m, int index) {
  cost_rows *r = m->rows;
  char device[16];
  int n = 0;
  for (int i = 0; i < r->n_device; i++) n += strcmp(r->device[i].kind, "cpu") == 0;
  snprintf(device, sizeof device, "cpu%d", index % 1000);
  if (cost_device(r, device) == NULL)
    return hf_fail(HF_INPUT, "lost=%s: %s has %d CPU%s, counted from cpu0", device, m->f.name, n, n == 1 ? "" : "s");
  if (n == 1) return hf_fail(HF_INPUT, "lost=%s: %s has no other CPU: nothing would be left", device, m->f.name);
  double memory = share_left(r, n, "dram_read_bytes_per_s", device);
  for (int i = 0; i < r->n_figure; i++) {
    rec_figure *f = &r->figure[i];
    if (strcmp(f->device, "cpu") != 0) continue;
    if (strstr(f->what, "bytes_per_s") != NULL) scale_figure(f, memory);
    else if (strncmp(f->what, "cpu_flops", 9) == 0) scale_figure(f, share_left(r, n, f->what, device));
  }
  for (int i = 0; i < r->n_kernel; i++) {
    rec_kernel_point *k = &r->kernel[i];
    if (strcmp(k->device, "cpu") != 0) continue;
    k->ns_low /= memory;
    k->ns /= memory;
    k->ns_high /= memory;
    k->tag = scaled(k->tag);
  }
  static const char *const power[] = {"power_idle_w", "power_active_w"};
  for (int i = 0; i < 2; i++) reduce_total(r, device, power[i], power[i]);
  m->f.memory_bytes -= cost_device(r, device)->mem_bytes;
  remove_device(r, device);
  renumber_all(r, "cpu", index);
  if (m->f.sockets > 1) m->f.sockets--;
  ask_note(m, "%s is out of order, with its memory; GPUs at its slots are taken to be moved to the other CPU.", device);
  return HF_OK;
}

/* ---- putting GPUs in ---- */

static hf_status append(void *array, int *n, int more, size_t size, const void *from, const char *what) {
  void *p = NULL;
  memcpy(&p, array, sizeof p);
  HF_TRY(hf_realloc(&p, (size_t)(*n + more) + 1, size, what));
  memcpy(array, &p, sizeof p);
  if (more > 0) memcpy((char *)p + (size_t)*n * size, from, (size_t)more * size);
  *n += more;
  return HF_OK;
}

static hf_status take_gpu_rows(ask_machine *m, const catalog_machine *c) {
  cost_rows *r = m->rows;
  for (int i = 0; i < c->n_device; i++) {
    if (strcmp(c->device[i].kind, "gpu") != 0) continue;
    HF_TRY(append(&r->device, &r->n_device, 1, sizeof *r->device, &c->device[i], "devices"));
    m->f.n_gpus++;
  }
  for (int i = 0; i < c->n_figure; i++)
    if (strncmp(c->figure[i].device, "gpu", 3) == 0)
      HF_TRY(append(&r->figure, &r->n_figure, 1, sizeof *r->figure, &c->figure[i], "figures"));
  for (int i = 0; i < c->n_link; i++) HF_TRY(append(&r->link, &r->n_link, 1, sizeof *r->link, &c->link[i], "links"));
  return HF_OK;
}

/* A CPU with many lanes of PCIe 5, only to have the GPU's rows composed. */
static const char any_host[] = "cpu=epyc-9755";

hf_status ask_put_gpus(ask_machine *m, const char *gpus) {
  while (m->f.n_gpus > 0) {
    char device[16];
    snprintf(device, sizeof device, "gpu%d", --m->f.n_gpus % 1000);
    static const char *const totals[] = {"power_idle_w", "power_active_w", "price_usd"};
    for (int i = 0; i < 3; i++) reduce_total(m->rows, device, totals[i], totals[i]);
    remove_device(m->rows, device);
  }
  snprintf(m->f.gpus, sizeof m->f.gpus, "%s", gpus);
  if (strcmp(gpus, "none") == 0) return HF_OK;
  catalog_parts p;
  catalog_machine c;
  HF_TRY(catalog_parts_parse(any_host, &p));
  HF_TRY(catalog_parts_set(&p, "gpu", gpus));
  HF_TRY(catalog_compose(&p, &c));
  hf_status st = take_gpu_rows(m, &c);
  catalog_machine_free(&c);
  ask_note(m, "GPU %s: figures of the catalog times its efficiency priors, in slots of PCIe 5; not measured in this machine.",
           gpus);
  return st;
}

/* ---- facts ---- */

double ask_memory_speed(const ask_machine *m) {
  json *f = NULL;
  double least = 0;
  const char *text = m->rows->machine.facts_json;
  if (json_parse(text, strlen(text), "facts", &f) != HF_OK) {
    hf_clear_error();
    return 0;
  }
  for (const json *d = json_first(json_get(f, "dimms")); d != NULL; d = json_next(d)) {
    double mt = json_number(json_get(d, "configured_mt_s"), 0);
    if (mt > 0 && (least == 0 || mt < least)) least = mt;
  }
  if (least == 0) least = json_number(json_get(json_get(f, "memory"), "transfers_per_s"), 0) / 1e6;
  json_free(f);
  return 1e6 * least;
}
