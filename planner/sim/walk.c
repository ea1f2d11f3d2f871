#include "planner/sim/walk.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"

/* What a micro-batch waits for: its home device for a layer or the head, the CPU, the end of its step, or place p (ASK_PLACE + p). */
enum { ASK_HOME, ASK_CPU, ASK_END, ASK_PLACE, N_ASKS = (ASK_PLACE + STAGE_MAX_PLACES) * SCHED_MAX_DEPTH };

typedef struct {
  int64_t at;
  int mb, what;
} ask;

typedef struct {
  sim_work w;
  int layer, parts; /* parts of the layer under way whose end is not known */
  int64_t through;  /* end of those known */
} walker;

struct sim_walk {
  const stage_table *t;
  int64_t now, free_at[SIM_N_RESOURCES], busy[SIM_N_RESOURCES];
  walker mb[SCHED_MAX_DEPTH];
  ask ask[N_ASKS]; /* the next one last; of one time, the one asked first */
  int n;
};

bool sim_walk_can(const stage_table *table) {
  return table->contend <= 1;
}

hf_status sim_walk_new(const stage_table *table, sim_walk **out) {
  assert(sim_walk_can(table));
  HF_TRY(hf_alloc(out, 1, sizeof **out, "simulated machine"));
  (*out)->t = table;
  return HF_OK;
}

void sim_walk_free(sim_walk *k) {
  free(k);
}

static void push(sim_walk *k, int mb, int what, int64_t at) {
  int i = k->n++;
  for (; i > 0 && k->ask[i - 1].at <= at; i--) k->ask[i] = k->ask[i - 1];
  k->ask[i] = (ask){at, mb, what};
}

/* First come, first served: those who ask are served in order of time. When the work is done. */
static int64_t occupy(sim_walk *k, int resource, int64_t at, int64_t work) {
  int64_t end = (at > k->free_at[resource] ? at : k->free_at[resource]) + work;
  k->free_at[resource] = end;
  k->busy[resource] += work;
  return end;
}

static void next_layer(sim_walk *k, int mb) {
  walker *b = &k->mb[mb];
  b->layer++;
  push(k, mb, ASK_HOME, b->through);
}

static void part_ends(sim_walk *k, int mb, int64_t end) {
  walker *b = &k->mb[mb];
  if (end > b->through) b->through = end;
  if (--b->parts == 0) next_layer(k, mb);
}

/* The home device is kept from attention to the last expert; experts elsewhere begin after attention. */
static void home(sim_walk *k, int mb, int64_t at) {
  walker *b = &k->mb[mb];
  const stage_table *t = k->t;
  bool head = b->layer == t->n_layers;
  int where = t->one_resource ? (int)SIM_CPU : t->layer[head ? t->n_layers - 1 : b->layer].home;
  if (head) {
    push(k, mb, ASK_END, occupy(k, where, at, b->w.head));
    return;
  }
  const sim_layer_ns *r = &b->w.routed[b->layer];
  int64_t side = r->shared + r->dexp + (t->one_resource ? r->cexp : 0);
  b->through = occupy(k, where, at, b->w.attn[b->layer] + side);
  b->parts = 0;
  if (t->one_resource) {
    next_layer(k, mb);
    return;
  }
  int64_t forked = b->through - side;
  if (r->cexp > 0) {
    b->parts++;
    push(k, mb, ASK_CPU, forked + r->hand);
  }
  for (int p = 1; r->elsewhere && p < STAGE_MAX_PLACES; p++) {
    if (r->place[p] == 0) continue;
    b->parts++;
    push(k, mb, ASK_PLACE + p, forked);
  }
  if (b->parts == 0) next_layer(k, mb);
}

void sim_walk_start(sim_walk *k, int mb, const sim_work *w) {
  k->mb[mb].w = *w;
  k->mb[mb].layer = 0;
  push(k, mb, ASK_HOME, k->now + w->fixed);
}

bool sim_walk_advance(sim_walk *k, int64_t until, int *ended) {
  while (k->n > 0 && k->ask[k->n - 1].at <= until) {
    ask a = k->ask[--k->n];
    k->now = a.at;
    const walker *b = &k->mb[a.mb];
    if (a.what == ASK_HOME) {
      home(k, a.mb, a.at);
    } else if (a.what == ASK_CPU) {
      part_ends(k, a.mb, occupy(k, SIM_CPU, a.at, b->w.routed[b->layer].cexp));
    } else if (a.what == ASK_END) {
      *ended = a.mb;
      return true;
    } else {
      int p = a.what - ASK_PLACE;
      part_ends(k, a.mb, occupy(k, sim_place_resource(k->t, p), a.at, b->w.routed[b->layer].place[p]));
    }
  }
  if (until < INT64_MAX && until > k->now) k->now = until;
  return false;
}

int64_t sim_walk_now(const sim_walk *k) {
  return k->now;
}

void sim_walk_skip(sim_walk *k, int64_t ns) {
  k->now += ns;
  for (int i = 0; i < k->n; i++) k->ask[i].at += ns;
  for (int r = 0; r < SIM_N_RESOURCES; r++) k->free_at[r] += ns;
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) k->mb[i].through += ns;
}

int64_t sim_walk_busy_ns(const sim_walk *k, int resource) {
  return k->busy[resource];
}
