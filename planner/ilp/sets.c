/* sets.c: the columns of form P: kept once each; all of them where they are few. */
#include <stdlib.h>
#include <string.h>

#include "planner/ilp/spread.h"

enum { MAX_SETS_ALL = 2500, MAX_COLUMNS_ALL = 8000, MOST_EXPERTS_ALL = 600 };

static hf_status append(spread_solution *s, int group, const uint8_t *place, bool upload) {
  spread *m = s->m;
  size_t E = (size_t)m->n_experts;
  if (s->n_sets == s->cap_sets) {
    int cap = s->cap_sets > 0 ? 2 * s->cap_sets : 1024;
    HF_TRY(hf_realloc(&s->set, (size_t)cap, sizeof *s->set, "placement columns"));
    s->cap_sets = cap;
  }
  uint8_t *copy;
  HF_TRY(hf_alloc(&copy, E, 1, "placement columns"));
  memcpy(copy, place, E);
  spread_set *x = &s->set[s->n_sets++];
  *x = (spread_set){.group = group, .upload = upload, .place = copy};
  spread_value(m, x);
  return HF_OK;
}

hf_status spread_add_set(spread_solution *s, int group, const uint8_t *place, bool upload, bool *is_new) {
  size_t E = (size_t)s->m->n_experts;
  *is_new = false;
  for (int i = 0; i < s->n_sets; i++)
    if (s->set[i].group == group && s->set[i].upload == upload && memcmp(s->set[i].place, place, E) == 0) return HF_OK;
  HF_TRY(append(s, group, place, upload));
  *is_new = true;
  return HF_OK;
}

static double sets_of(const spread *m, const spread_group *g) {
  double n = g->upload.t != NULL ? 2 : 1;
  int places = m->n_experts > 0 ? __builtin_popcount(g->open[0]) : 1;
  for (int i = 1; g->alike && i < places && n <= MAX_SETS_ALL; i++) n = n * (m->n_experts + i) / i;
  for (int e = 0; !g->alike && e < m->n_experts && n <= MAX_SETS_ALL; e++) n *= __builtin_popcount(g->open[e]);
  return n;
}

bool spread_few_sets(const spread *m) {
  double all = 0;
  int experts = 0;
  for (int g = 0; g < m->n_groups; g++) experts += m->group[g].n_same * m->n_experts;
  if (experts > MOST_EXPERTS_ALL) return false;
  for (int g = 0; g < m->n_groups; g++) {
    double n = sets_of(m, &m->group[g]);
    if (n > MAX_SETS_ALL) return false;
    all += n;
  }
  return all <= MAX_COLUMNS_ALL;
}

static bool dominates(const spread *m, const spread_set *a, const spread_set *b) {
  const spread_group *g = &m->group[a->group];
  if (spread_way(m, a) > spread_way(m, b) || spread_chunk(m, a) > spread_chunk(m, b)) return false;
  for (int q = 0; q < m->n_places; q++)
    if (m->room[q] < INT64_MAX && a->count[q] > b->count[q]) return false;
  for (int r = 0; r < m->n_rows; r++) {
    double va = 0, vb = 0;
    for (int q = 0; q < m->n_places; q++) {
      va += spread_coef(m, &m->row[r], g, q) * a->load[q];
      vb += spread_coef(m, &m->row[r], g, q) * b->load[q];
    }
    if (va > vb) return false;
  }
  return true;
}

/* Drops sets that another one of the group is never worse than. */
static void prune_sets(spread_solution *s, int from) {
  int n = from;
  for (int i = from; i < s->n_sets; i++) {
    bool keep = true;
    for (int k = from; k < n && keep; k++) keep = !dominates(s->m, &s->set[k], &s->set[i]);
    if (!keep) {
      free((void *)s->set[i].place);
      continue;
    }
    int w = from;
    for (int k = from; k < n; k++) {
      if (dominates(s->m, &s->set[i], &s->set[k])) free((void *)s->set[k].place);
      else s->set[w++] = s->set[k];
    }
    s->set[w] = s->set[i];
    n = w + 1;
  }
  s->n_sets = n;
}

/* With and without upload, where that is possible. */
static hf_status push_set(spread_solution *s, int group, const uint8_t *place) {
  const spread_group *g = &s->m->group[group];
  bool sends = g->upload.t != NULL;
  for (int e = 0; sends && e < s->m->n_experts; e++) sends = !(g->class[1].never >> place[e] & 1);
  for (int up = 0; up <= sends; up++) HF_TRY(append(s, group, place, up));
  return HF_OK;
}

/* The next set of different experts, expert 0 fastest; false after the last. */
static bool next_set(const spread *m, const spread_group *g, uint8_t *place) {
  for (int e = 0; e < m->n_experts; e++) {
    unsigned above = g->open[e] >> (place[e] + 1);
    if (above != 0) {
      place[e] = (uint8_t)(place[e] + 1 + __builtin_ctz(above));
      return true;
    }
    place[e] = (uint8_t)__builtin_ctz(g->open[e]);
  }
  return false;
}

/* The next set of experts that are alike: places rise along the experts, so that each choice of counts comes once. */
static bool next_counts(const spread *m, const spread_group *g, uint8_t *place) {
  for (int e = m->n_experts - 1; e >= 0; e--) {
    unsigned above = g->open[e] >> (place[e] + 1);
    if (above == 0) continue;
    uint8_t q = (uint8_t)(place[e] + 1 + __builtin_ctz(above));
    for (int i = e; i < m->n_experts; i++) place[i] = q;
    return true;
  }
  return false;
}

hf_status spread_all_sets(spread_solution *s) {
  spread *m = s->m;
  uint8_t place[ILP_MAX_EXPERTS];
  for (int g = 0; g < m->n_groups; g++) {
    const spread_group *y = &m->group[g];
    int from = s->n_sets;
    for (int e = 0; e < m->n_experts; e++) place[e] = (uint8_t)__builtin_ctz(y->open[e]);
    do HF_TRY(push_set(s, g, place));
    while (y->alike ? next_counts(m, y, place) : next_set(m, y, place));
    prune_sets(s, from);
  }
  return HF_OK;
}
