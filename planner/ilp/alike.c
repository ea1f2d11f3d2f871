/* alike.c: other machines that are alike as one place, and its experts dealt out to them.
 *
 * Machines with the same times, link and memory can be exchanged for each other, so that every placement has as many equals as there are orders of them:
 * relaxation and search then go round in circles. n of them are one place whose experts take 1/n of the time, with n times the memory. Of any placement the
 * largest part of a layer is no less than the mean over the machines, and neither is the largest load (its fixed parts counted once for all of them), so
 * that a bound of the problem with such places is one of the problem asked. */
#include "planner/ilp/alike.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 2000 }; /* experts of all layers: where all sets may be columns, each machine for itself, the answer is exact */

struct ilp_alike {
  const ilp_problem *asked;
  ilp_problem p;
  stage_table t;
  stage_place *place;
  int merged[STAGE_MAX_REMOTES]; /* which place of p a machine asked for belongs to, counted from the first machine */
};

static int devices_of(const ilp_problem *p) {
  return p->table->one_resource ? 0 : p->table->n_devices;
}

static bool same_machine(const ilp_problem *p, int a, int b) {
  const stage_table *t = p->table;
  if (p->remote_bytes[a] != p->remote_bytes[b]) return false;
  for (int l = 0; l < t->n_layers; l++)
    if (!stage_place_same(stage_place_of(t, l, 1 + t->n_devices + a), stage_place_of(t, l, 1 + t->n_devices + b))) return false;
  return true;
}

/* Places of the table as places of its layers. */
static hf_status fill_places(ilp_alike *a, const int *first) {
  const stage_table *t = a->asked->table;
  const int n = t->n_devices + a->t.n_remotes;
  HF_TRY(hf_alloc(&a->place, (size_t)n * (size_t)t->n_layers + 1, sizeof *a->place, "machines that are alike"));
  a->t.place = a->place;
  for (int l = 0; l < t->n_layers; l++) {
    for (int d = 1; d <= t->n_devices; d++) *stage_place_of(&a->t, l, d) = *stage_place_of(t, l, d);
    for (int k = 0; k < a->t.n_remotes; k++) {
      stage_place *s = stage_place_of(&a->t, l, 1 + t->n_devices + k);
      *s = *stage_place_of(t, l, 1 + t->n_devices + first[k]);
      for (int i = 0; i < s->exp.n; i++) s->exp.ns[i] /= a->p.alike[k];
    }
  }
  return HF_OK;
}

hf_status ilp_alike_new(const ilp_problem *p, ilp_alike **out) {
  const stage_table *t = p->table;
  int first[STAGE_MAX_REMOTES];
  ilp_alike *a = NULL;
  *out = NULL;
  if (t->n_remotes < 2 || t->n_layers * t->n_experts <= SMALL) return HF_OK;
  HF_TRY(hf_alloc(&a, 1, sizeof *a, "machines that are alike"));
  a->asked = p;
  a->p = *p;
  a->t = *t;
  a->t.n_remotes = 0;
  for (int r = 0; r < t->n_remotes; r++) {
    int k = 0;
    while (k < a->t.n_remotes && !same_machine(p, first[k], r)) k++;
    if (k == a->t.n_remotes) {
      first[a->t.n_remotes++] = r;
      a->p.alike[k] = 0;
    }
    a->merged[r] = k;
    a->p.alike[k]++;
    a->p.remote_bytes[k] = p->remote_bytes[first[k]] > 0 ? a->p.alike[k] * p->remote_bytes[first[k]] : p->remote_bytes[first[k]];
  }
  hf_status st = a->t.n_remotes < t->n_remotes ? fill_places(a, first) : HF_OK;
  a->p.table = &a->t;
  if (st == HF_OK && a->t.n_remotes < t->n_remotes) *out = a;
  else ilp_alike_free(a);
  return st;
}

void ilp_alike_free(ilp_alike *a) {
  if (!a) return;
  free(a->place);
  free(a);
}

const ilp_problem *ilp_alike_problem(const ilp_alike *a) {
  return &a->p;
}

int ilp_alike_place(const ilp_alike *a, int asked) {
  const int devices = devices_of(a->asked);
  return asked <= devices ? asked : 1 + devices + a->merged[asked - 1 - devices];
}

typedef struct {
  int expert;
  double ns;
} hand;

static int longest_first(const void *pa, const void *pb) {
  const hand *a = pa, *b = pb;
  if (a->ns != b->ns) return a->ns < b->ns ? 1 : -1;
  return a->expert - b->expert;
}

/* What the machines have got so far. */
typedef struct {
  int64_t bytes;
  double ns;
} dealt;

/* The machine of place k that has least to do in all layers and gets nothing of this one yet; -1: none is left. */
static int least_busy(const ilp_alike *a, int k, const dealt *so_far, const bool *in) {
  int at = -1;
  for (int r = 0; r < a->asked->table->n_remotes; r++)
    if (a->merged[r] == k && !in[r] && (at < 0 || so_far[r].ns < so_far[at].ns)) at = r;
  return at;
}

/* One layer's experts of place k over at most so many machines: the longest first, each to the machine that has least to do in this layer, of those the one
 * with the fewest bytes. */
static void deal_layer(const ilp_alike *a, int layer, int k, int most, hand *list, int n, dealt *so_far, uint8_t *place) {
  const ilp_problem *p = a->asked;
  const int devices = devices_of(p);
  const stage_place *s = stage_place_of(&a->t, layer, 1 + p->table->n_devices + k);
  double sum[STAGE_MAX_REMOTES] = {0};
  bool in[STAGE_MAX_REMOTES] = {0};
  for (int i = 0, r; i < most && i < n && (r = least_busy(a, k, so_far, in)) >= 0; i++) {
    in[r] = true;
    so_far[r].ns += s->fixed_ns + s->hand_ns;
  }
  qsort(list, (size_t)n, sizeof *list, longest_first);
  for (int i = 0; i < n; i++) {
    int at = -1;
    for (int r = 0; r < p->table->n_remotes; r++) {
      if (!in[r]) continue;
      const double tie = 1e-9 * (list[i].ns + sum[r]);
      if (at < 0 || sum[r] < sum[at] - tie || (sum[r] <= sum[at] + tie && so_far[r].bytes < so_far[at].bytes)) at = r;
    }
    sum[at] += list[i].ns;
    so_far[at].bytes += p->expert_bytes[layer];
    so_far[at].ns += list[i].ns * a->p.alike[k];
    place[list[i].expert] = (uint8_t)(1 + devices + at);
  }
}

hf_status ilp_alike_deal(const ilp_alike *a, int depth, int most, const uint8_t *merged, uint8_t *placement) {
  const ilp_problem *p = a->asked;
  const stage_table *t = p->table;
  const int E = t->n_experts, devices = devices_of(p), tokens = (p->users + depth - 1) / depth;
  dealt so_far[STAGE_MAX_REMOTES] = {0};
  hand *list;
  HF_TRY(hf_alloc(&list, (size_t)E + 1, sizeof *list, "experts to deal out"));
  memcpy(placement, merged, (size_t)t->n_layers * (size_t)E);
  for (int l = 0; l < t->n_layers; l++) {
    const size_t row = (size_t)l * (size_t)E;
    for (int k = 0; k < a->t.n_remotes && t->layer[l].moe; k++) {
      const stage_curve *c = &stage_place_of(&a->t, l, 1 + t->n_devices + k)->exp;
      double last = -1, ns = 0;
      int n = 0;
      for (int e = 0; e < E; e++) {
        if (merged[row + (size_t)e] != 1 + devices + k) continue;
        const double chosen = p->pop->p[row + (size_t)e];
        if (chosen != last) ns = expert_time_ns(c, last = chosen, tokens);
        list[n++] = (hand){e, ns};
      }
      deal_layer(a, l, k, most, list, n, so_far, placement + row);
    }
  }
  free(list);
  return HF_OK;
}
