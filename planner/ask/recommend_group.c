/* recommend_group.c: imagined machines. Among the CPUs for one and the same GPUs many differ in what hardly matters, and each would be planned to
 * find that it fails by as much as the others. So once one failed, a machine that is as good as the best of a whole group of them in every figure is
 * planned: where that fails, by the argument of `dominated` all of them do. Where it does not, halves of the group are tried, in their turn. */
#include "planner/ask/recommend_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_GROUP = 3, MEMBERS = 6 }; /* MEMBERS: of a group that failed, that may be planned to name the nearest */

static int by_bandwidth(const void *a, const void *b) {
  const group_host *x = a, *y = b;
  for (int i = 0; i < HOST_FIGURES; i++) {
    int k = (1 + i) % HOST_FIGURES; /* the likely bandwidth first */
    if (x->figure[k] != y->figure[k]) return x->figure[k] < y->figure[k] ? -1 : 1;
  }
  return y->host - x->host; /* from the end: the smaller modules first */
}

hf_status search_order_hosts(search *s) {
  for (int k = 0; k < GROUP_SOCKETS; k++) {
    HF_TRY(hf_alloc(&s->order[k], (size_t)s->n_hosts + 1, sizeof *s->order[k], "machines without GPU"));
    for (int h = 0; h < s->n_hosts; h++) {
      if (s->host[h].parts.sockets != k + 1) continue;
      group_host *o = &s->order[k][s->n_order[k]++];
      o->host = h;
      memcpy(o->figure, s->host[h].figure, sizeof o->figure);
    }
    qsort(s->order[k], (size_t)s->n_order[k], sizeof *s->order[k], by_bandwidth);
  }
  return HF_OK;
}

static bool was_tried(const search *s, const group *g) {
  for (int i = 0; i < s->n_tried; i++) {
    const group *t = &s->tried[i];
    if (t->first == g->first && t->n == g->n && t->sockets == g->sockets && t->card == g->card && t->count == g->count &&
        t->format == g->format)
      return true;
  }
  return false;
}

static bool in_group(const search *s, const group *g, int h) {
  for (int i = g->first; i < g->first + g->n; i++)
    if (s->order[g->sockets - 1][i].host == h) return true;
  return false;
}

/* Whether a machine of the group itself failed, clearly and not for want of memory. */
static bool has_failed(const search *s, const group *g) {
  for (int i = 0; i < s->n_known; i++) {
    const known *k = &s->known[i];
    if (k->host >= 0 && k->card == g->card && k->count == g->count && k->format == g->format && k->fits && !k->met && !k->twins &&
        k->sockets == g->sockets && in_group(s, g, k->host))
      return true;
  }
  return false;
}

/* The best of every figure of those that are not settled yet and may be near enough in price; how many. */
static int best_of(const search *s, const group *g, double most_price, known *best) {
  int n = 0;
  for (int i = g->first; i < g->first + g->n; i++) {
    combo c = {.host = s->order[g->sockets - 1][i].host, .card = g->card, .count = g->count, .format = g->format};
    const host *h = &s->host[c.host];
    known k = search_figures(s, &c);
    if (h->price < 0 || search_parts_price(s, &c) > most_price || search_dominated(s, &c)) continue;
    if (n++ == 0) *best = k;
    for (int f = 0; f < N_FIGURES; f++) best->f[f] = fmax(best->f[f], k.f[f]);
    best->ram = fmax(best->ram, k.ram);
  }
  return n;
}

/* The largest group around a combination that may be settled at once; false: none, it is planned itself. */
static bool find_group(const search *s, const combo *c, double most_price, group *g, known *best) {
  int sockets = s->host[c->host].parts.sockets, at = 0;
  if (c->card < 0 || sockets < 1 || sockets > GROUP_SOCKETS) return false;
  *g = (group){.card = c->card, .count = c->count, .format = c->format, .sockets = sockets, .n = s->n_order[sockets - 1]};
  while (at < g->n && s->order[sockets - 1][at].host != c->host) at++;
  while (g->n >= LEAST_GROUP && was_tried(s, g)) {
    int half = g->n / 2;
    if (at >= g->first + half) {
      g->first += half;
      g->n -= half;
    } else {
      g->n = half;
    }
  }
  return g->n >= LEAST_GROUP && has_failed(s, g) && best_of(s, g, most_price, best) >= LEAST_GROUP;
}

/* The machine of the combination, raised to the best figures. *ok false: it lacks one of them. */
static hf_status imagine(const search *s, const combo *c, const known *best, catalog_parts *parts, ask_machine **out, bool *ok) {
  static const char *const what[HOST_FIGURES] = {NULL, NULL, NULL, "cpu_flops_f32", "cpu_flops_bf16", "cpu_flops_int8", NULL};
  known k = search_figures(s, c);
  HF_TRY(search_build(s, c, parts, out, ok));
  if (!*ok) return HF_OK;
  double bandwidth = 1;
  for (int i = 0; i < HOST_FIGURES; i++) *ok = *ok && (k.f[i] > 0 || !(best->f[i] > 0));
  for (int i = 0; i < 3 && *ok; i++)
    if (k.f[i] > 0) bandwidth = fmax(bandwidth, best->f[i] / k.f[i]);
  if (!*ok) {
    ask_machine_free(*out);
    *out = NULL;
    return HF_OK;
  }
  ask_scale_dram(*out, bandwidth);
  for (int i = 3; i < 6; i++)
    if (k.f[i] > 0) ask_scale_compute(*out, what[i], best->f[i] / k.f[i]);
  if (k.f[LINK] > 0) ask_scale_links(*out, best->f[LINK] / k.f[LINK]);
  ask_raise_cpus(*out, (int64_t)best->ram, (int)ceil(best->f[6]));
  return HF_OK;
}

hf_status search_try_group(search *s, const combo *c, double most_price, candidate *out, bool *made) {
  group g;
  known best;
  bool ok;
  *made = false;
  if (!find_group(s, c, most_price, &g, &best)) return HF_OK;
  HF_TRY(hf_realloc(&s->tried, (size_t)s->n_tried + 1, sizeof *s->tried, "groups of machines"));
  s->tried[s->n_tried++] = g;
  HF_TRY(imagine(s, c, &best, &out->parts, &out->machine, &ok));
  if (!ok) return HF_OK;
  best.host = -1;
  out->c = *c;
  out->group = g;
  out->most_price = most_price;
  out->is_group = *made = true;
  out->figures = best;
  return HF_OK;
}

/* The nearest of all may be among those settled together: the ones with most bandwidth are remembered, with what they miss at least. */
static hf_status add_members(search *s, const candidate *y) {
  const group *g = &y->group;
  const group_host *o = s->order[g->sockets - 1];
  const group_host *last = NULL;
  int n = 0;
  for (int i = g->first + g->n - 1; i >= g->first && n < MEMBERS; i--) {
    combo c = y->c;
    c.host = o[i].host;
    const host *h = &s->host[c.host];
    double room = h->ram + s->card[c.card].mem * c.count;
    bool again = last != NULL && memcmp(last->figure, o[i].figure, sizeof last->figure) == 0; /* with other modules */
    if (again || h->price < 0 || search_parts_price(s, &c) > y->most_price || room < s->format[c.format].weights ||
        search_dominated(s, &c))
      continue;
    last = &o[i];
    HF_TRY(search_add_failure(s, &c, y->least_miss, n++ == 0));
  }
  return HF_OK;
}

hf_status search_learn_group(search *s, const candidate *y) {
  s->out->imagined++;
  if (y->answer.feasible && y->least_miss <= CLEARLY) return HF_OK;
  if (y->answer.feasible) HF_TRY(add_members(s, y));
  HF_TRY(hf_realloc(&s->known, (size_t)s->n_known + 1, sizeof *s->known, "results"));
  known *k = &s->known[s->n_known++];
  *k = y->figures;
  k->slack = y->answer.feasible ? y->least_miss / CLEARLY : 1;
  k->fits = y->answer.feasible;
  k->rate = y->answer.feasible ? y->answer.tok_per_s_wall : 0;
  return HF_OK;
}
