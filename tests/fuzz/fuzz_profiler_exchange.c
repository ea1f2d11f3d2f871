/* A colleague's profile: what is accepted is in order, prints, compares with itself, and comes back the same from its own document. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/compare.h"
#include "profiler/exchange.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const prof_view *v) {
  if (v->n_device < 1 || v->n_figure > EXCHANGE_MAX_FIGURES || v->n_point > EXCHANGE_MAX_KERNELS) abort();
  for (int i = 0; i < v->n_figure; i++) {
    const rec_figure *f = &v->figure[i];
    if (!(f->low >= 0 && f->low <= f->likely && f->likely <= f->high && isfinite(f->high)) || (unsigned)f->tag >= TAG_N) abort();
    if (!memchr(f->what, 0, sizeof f->what) || !memchr(f->source, 0, sizeof f->source) || strchr(f->source, '\033')) abort();
  }
  for (int i = 0; i < v->n_point; i++) {
    const rec_kernel_point *k = &v->point[i];
    if (!(k->ns_low >= 0 && k->ns_low <= k->ns && k->ns <= k->ns_high) || k->tokens < 0 || k->bytes < 0) abort();
  }
}

static void again(const prof_view *v) {
  json *doc = NULL;
  prof_view w;
  if (exchange_write(v, &doc) != HF_OK || exchange_read(doc, "again", &w) != HF_OK) abort();
  json_free(doc);
  if (w.n_device != v->n_device || w.n_figure != v->n_figure || w.n_point != v->n_point || w.n_link != v->n_link) abort();
  if (strcmp(w.machine.name, v->machine.name) != 0 || w.machine.created_ns != v->machine.created_ns) abort();
  for (int i = 0; i < v->n_figure; i++)
    if (w.figure[i].likely != v->figure[i].likely || strcmp(w.figure[i].what, v->figure[i].what) != 0) abort();
  prof_view_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json *doc = NULL;
  prof_view v;
  comparison *c = NULL;
  if (json_parse((const char *)data, size, "fuzz", &doc) != HF_OK) return 0;
  hf_status st = exchange_read(doc, "fuzz", &v);
  json_free(doc);
  if (st != HF_OK) return 0;
  check(&v);
  again(&v);
  if (v.n_figure + v.n_point < 400) {
    if (compare_profiles(&v, &v, &c) != HF_OK || c->only_a != 0 || c->only_b != 0) abort();
    compare_free(c);
  }
  prof_view_free(&v);
  return 0;
}
