#include "planner/sim/steps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"
#include "planner/sim/walk.h"

/* ENDS: ends of steps remembered of each micro-batch. CYCLE: most steps of the first one in a cycle. */
enum { ENDS = 64, CYCLE = 31 };
/* A cycle is one when everybody comes round within this share of it. */
static const double TOLERANCE = 1.0 / 8192;
/* A jump is over before contexts have made its steps longer by this share: what grows comes to meet in another order some time. */
static const double GROWTH = 1.0 / 16384;
/* Runs end, and nothing is jumped over, beyond: 73 years, and no sum overflows. */

typedef struct {
  double first, rise; /* ns of the first step of a run, and by how much each exceeds the one before */
} evenly;

typedef struct {
  bool active, run, uploads;
  bool was;      /* active when time passed last */
  int n, done;   /* steps of a run, and how many are over */
  int64_t began; /* the step under way */
  sim_work w;
  const int64_t *first; /* [n_layers] attention of a run's first step, of the caller's */
  int64_t *attn;        /* [n_layers] of a run's step under way */
  double *rise;         /* [n_layers] of a run, per step */
  double growth;        /* sum of rise */
  bool alone_known;
  evenly ns, busy[SIM_N_RESOURCES]; /* alone */
  int64_t end[ENDS];                /* of its last steps in this company, jumps taken out */
  int n_ends;
} batch;

struct sim_steps {
  const stage_table *t;
  int depth;
  sim_trace_fn *trace;
  void *user;
  sim_walk *walk; /* one of the two. Its clock stands still while somebody is alone */
  sim_machine *machine;
  int in_machine;                          /* steps that have begun in it */
  int n_waiting, waiting[SCHED_MAX_DEPTH]; /* micro-batches whose step has not, in order of time */
  int64_t now, walked;
  int64_t jumped, busy[SIM_N_RESOURCES]; /* time jumped over; occupied in it and by steps alone */
  bool fresh;                            /* the first active micro-batch has just ended a step */
  int64_t used[ENDS][SIM_N_RESOURCES];   /* occupied when it ended its last steps */
  int cycle_steps;                       /* of the cycle seen last in this company, in steps of the first; 0: none */
  int64_t cycle_ns, since;               /* its length; steps of the first since */
  batch mb[SCHED_MAX_DEPTH];
};

/* ---- the machine ---- */

static int64_t machine_now(const sim_steps *s) {
  return s->walk != NULL ? sim_walk_now(s->walk) : sim_machine_now(s->machine);
}

static void machine_skip(sim_steps *s, int64_t ns) {
  if (s->walk != NULL) sim_walk_skip(s->walk, ns);
  else sim_machine_skip(s->machine, ns);
}

static void machine_start(sim_steps *s, int mb, const sim_work *w) {
  if (s->walk != NULL) sim_walk_start(s->walk, mb, w);
  else sim_machine_start(s->machine, mb, w);
}

static bool machine_advance(sim_steps *s, int64_t until, int *ended) {
  return s->walk != NULL ? sim_walk_advance(s->walk, until, ended) : sim_machine_advance(s->machine, until, ended);
}

static int64_t machine_busy_ns(const sim_steps *s, int resource) {
  return s->walk != NULL ? sim_walk_busy_ns(s->walk, resource) : sim_machine_busy_ns(s->machine, resource);
}

/* ---- a step alone ---- */

static int64_t layer_alone(const stage_table *t, int l, const sim_work *w, int64_t busy[]) {
  const sim_layer_ns *r = &w->routed[l];
  int64_t attn = w->attn[l], side = r->shared + r->dexp, longest = side, both = 0;
  if (t->one_resource) {
    busy[SIM_CPU] += attn + side + r->cexp;
    return attn + side + r->cexp;
  }
  if (r->cexp >
      0) { /* they slow each other until the first is through; what the CPU's side loses in the hand-over occupies nothing */
    int64_t cpu = r->hand + r->cexp, less = side < cpu ? side : cpu;
    both = sim_round((t->contend - 1) * (double)less);
    longest = (side > cpu ? side : cpu) + both;
    busy[SIM_CPU] += r->cexp + (less > r->hand ? sim_round((t->contend - 1) * (double)(less - r->hand)) : 0);
  }
  busy[t->layer[l].home] += attn + side + both;
  for (int p = 1; r->elsewhere && p < STAGE_MAX_PLACES; p++) {
    if (r->place[p] == 0) continue;
    busy[sim_place_resource(t, p)] += r->place[p];
    if (r->place[p] > longest) longest = r->place[p];
  }
  return attn + longest;
}

static int64_t step_alone(const stage_table *t, const sim_work *w, int64_t busy[SIM_N_RESOURCES]) {
  int64_t sum = w->fixed + w->head;
  busy[t->one_resource ? (int)SIM_CPU : t->layer[t->n_layers - 1].home] += w->head;
  for (int l = 0; l < t->n_layers; l++) sum += layer_alone(t, l, w, busy);
  return sum;
}

/* Attention of a run's step. */
static void set_attn(const sim_steps *s, batch *b, int step) {
  if (!b->run) return;
  for (int l = 0; l < s->t->n_layers; l++) b->attn[l] = b->first[l] + (int64_t)(b->rise[l] * step + 0.5);
}

static void know_alone(const sim_steps *s, batch *b) {
  int64_t ns[2], busy[2][SIM_N_RESOURCES] = {{0}};
  if (b->alone_known) return;
  b->alone_known = true;
  for (int i = 0; i < 2; i++) {
    set_attn(s, b, i * (b->n - 1));
    ns[i] = step_alone(s->t, &b->w, busy[i]);
  }
  double more = b->n > 1 ? b->n - 1 : 1;
  b->ns = (evenly){(double)ns[0], (double)(ns[1] - ns[0]) / more};
  for (int r = 0; r < SIM_N_RESOURCES; r++) b->busy[r] = (evenly){(double)busy[0][r], (double)(busy[1][r] - busy[0][r]) / more};
}

/* Together, the first n. */
static double sum_of(const evenly *e, int n) {
  return n * e->first + e->rise * (0.5 * n * (n - 1));
}

/* When the first n steps of a run alone are over. */
static int64_t alone_until(const batch *b, int n) {
  return b->began + sim_round(sum_of(&b->ns, n) - sum_of(&b->ns, b->done));
}

/* The micro-batch that is alone since its step began; -1: none. Its steps are counted; when somebody comes the one under way is simulated. */
static int who_is_alone(const sim_steps *s) {
  if (s->in_machine > 0 || s->n_waiting != 1) return -1;
  return s->mb[s->waiting[0]].uploads ? -1 : s->waiting[0];
}

/* Steps of a micro-batch that nobody disturbs until `until`; true when its run ends. */
static bool go_alone(sim_steps *s, int mb, int64_t until) {
  batch *b = &s->mb[mb];
  know_alone(s, b);
  int lo = b->done, hi = b->n;
  while (lo < hi) { /* the most steps that are over by then */
    int mid = hi - (hi - lo) / 2;
    if (alone_until(b, mid) <= until) lo = mid;
    else hi = mid - 1;
  }
  int64_t end = alone_until(b, lo);
  for (int r = 0; r < SIM_N_RESOURCES; r++) s->busy[r] += sim_round(sum_of(&b->busy[r], lo) - sum_of(&b->busy[r], b->done));
  if (lo > b->done && end == until) b->n = lo;
  b->done = lo;
  b->began = end;
  if (b->done < b->n) return false;
  s->now = end;
  return true;
}

/* ---- cycles ---- */

static int64_t end_of(const batch *b, int back) {
  return b->end[(b->n_ends - 1 - back) & (ENDS - 1)];
}

/* How many steps of b are as long as ns, give or take `slack`; 0 when none are. */
static int steps_within(const batch *b, int64_t ns, double slack) {
  for (int k = 1; k < ENDS && k < b->n_ends; k++) {
    double longer = (double)(end_of(b, 0) - end_of(b, k) - ns);
    if (longer >= -slack) return longer <= slack ? k : 0;
  }
  return 0;
}

static int first_active(const sim_steps *s) {
  for (int i = 0; i < s->depth; i++)
    if (s->mb[i].active) return i;
  return -1;
}

/* Everybody has come round in the last `steps` steps of the first one, ref: k[i] steps each, but for `growth` that contexts may add. */
static bool cycle_of(const sim_steps *s, int ref, int steps, double growth, int k[]) {
  const batch *r = &s->mb[ref];
  if (steps >= r->n_ends) return false;
  int64_t ns = end_of(r, 0) - end_of(r, steps);
  for (int i = ref; i < s->depth; i++) {
    if (!s->mb[i].active) continue;
    k[i] = i == ref ? steps : steps_within(&s->mb[i], ns, TOLERANCE * (double)ns + growth);
    if (k[i] == 0) return false;
  }
  return true;
}

/* The most cycles of k[i] steps each that nobody's end, `until` or growth forbid. */
static int64_t most_cycles(const sim_steps *s, int64_t ns, const int k[], int64_t until) {
  int64_t end = until < SIM_MOST_NOW ? until : SIM_MOST_NOW, cycles = (end - s->now) / (ns + 1 + (int64_t)(GROWTH * (double)ns));
  double more = 0;
  int most_steps = 1;
  for (int i = 0; i < s->depth; i++) {
    const batch *b = &s->mb[i];
    if (!b->active) continue;
    int64_t most = (b->n - b->done - 1) / k[i];
    if (most < cycles) cycles = most;
    if (k[i] > most_steps) most_steps = k[i];
    more += k[i] * b->growth;
  }
  double all = GROWTH * (double)ns / most_steps;
  return more * (double)cycles > all ? (int64_t)(all / more) : cycles;
}

/* How much longer a cycle becomes with each step of the first micro-batch, by the cycle seen before; false when there was none like it. */
static bool rise_of(sim_steps *s, int64_t ns, int steps, double growth, double *rise) {
  double more = (double)(ns - s->cycle_ns), since = (double)s->since;
  bool known = s->cycle_steps == steps && fabs(more) <= TOLERANCE * (double)ns + growth * since;
  if (known) *rise = more / since;
  s->cycle_ns = ns;
  s->cycle_steps = steps;
  s->since = 0;
  return known;
}

/* Steps of everybody under way are so many further; so is the time. */
static void skip(sim_steps *s, const int k[], int64_t cycles, int64_t ns) {
  for (int i = 0; i < s->depth; i++) {
    batch *b = &s->mb[i];
    if (!b->active) continue;
    b->done += (int)cycles * k[i];
    set_attn(s, b, b->done);
  }
  machine_skip(s, ns);
  s->jumped += ns;
  s->now += ns;
}

/* Steady motion repeats itself: as many cycles as fit before anything changes are counted instead of simulated. */
static void jump(sim_steps *s, int64_t until) {
  int ref = first_active(s), k[SCHED_MAX_DEPTH] = {0}, steps = 1;
  double growth = 0, rise = 0;
  if (ref < 0) return;
  for (int i = ref; i < s->depth; i++) {
    if (!s->mb[i].active) continue;
    if (!s->mb[i].run || s->mb[i].n_ends < 2) return;
    growth += 2 * s->mb[i].growth;
  }
  while (steps <= CYCLE && !cycle_of(s, ref, steps, growth * steps, k)) steps++;
  if (steps > CYCLE) return;
  const batch *r = &s->mb[ref];
  int64_t ns = end_of(r, 0) - end_of(r, steps);
  if (!rise_of(s, ns, steps, growth * steps, &rise)) return;
  int64_t cycles = most_cycles(s, ns, k, until);
  int64_t all = cycles * ns + sim_round(rise * steps * 0.5 * (double)cycles * (double)(cycles + 1));
  if (cycles < 1 || (until < INT64_MAX && all > until - s->now)) return;
  const int64_t *then = s->used[(r->n_ends - 1 - steps) & (ENDS - 1)];
  for (int i = 0; i < SIM_N_RESOURCES; i++) s->busy[i] += cycles * (machine_busy_ns(s, i) - then[i]);
  skip(s, k, cycles, all);
  s->since += cycles * steps;
}

/* What was seen holds in another company no more. */
static void forget_cycles(sim_steps *s) {
  for (int i = 0; i < s->depth; i++) s->mb[i].n_ends = 0;
  s->cycle_steps = 0;
}

/* ---- interface ---- */

hf_status sim_steps_new(const stage_table *table, int depth, bool uploads, sim_trace_fn *trace, void *user, sim_steps **out) {
  sim_steps *s = NULL;
  size_t n = (size_t)table->n_layers;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "simulated steps"));
  s->t = table;
  s->depth = depth;
  s->trace = trace;
  s->user = user;
  hf_status st =
      !uploads && sim_walk_can(table) ? sim_walk_new(table, &s->walk) : sim_machine_new(table, NULL, NULL, &s->machine);
  for (int i = 0; i < depth && st == HF_OK; i++) {
    st = hf_alloc(&s->mb[i].attn, n, sizeof *s->mb[i].attn, "simulated steps");
    if (st == HF_OK) st = hf_alloc(&s->mb[i].rise, n, sizeof *s->mb[i].rise, "simulated steps");
  }
  if (st != HF_OK) sim_steps_free(s);
  else *out = s;
  return st;
}

void sim_steps_free(sim_steps *s) {
  if (s == NULL) return;
  for (int i = 0; i < s->depth; i++) {
    free(s->mb[i].attn);
    free(s->mb[i].rise);
  }
  sim_machine_free(s->machine);
  sim_walk_free(s->walk);
  free(s);
}

static void begins(sim_steps *s, int mb) {
  batch *b = &s->mb[mb];
  b->began = s->now;
  s->waiting[s->n_waiting++] = mb;
}

void sim_steps_start(sim_steps *s, int mb, const sim_work *w) {
  batch *b = &s->mb[mb];
  b->active = true;
  b->run = b->uploads = b->alone_known = false;
  b->n = 1;
  b->done = 0;
  b->w = *w;
  for (int l = 0; l < s->t->n_layers && !b->uploads; l++) b->uploads = w->routed[l].upload > 0;
  forget_cycles(s);
  begins(s, mb);
}

void sim_steps_start_run(sim_steps *s, int mb, const sim_work *first, const sim_work *last, int more) {
  batch *b = &s->mb[mb];
  bool goes_on = b->was && b->run && b->w.tokens == first->tokens;
  b->active = b->run = true;
  b->uploads = b->alone_known = false;
  b->n = 1 + more;
  b->done = 0;
  b->w = *first;
  b->first = first->attn;
  b->w.attn = b->attn;
  b->growth = 0;
  for (int l = 0; l < s->t->n_layers; l++) {
    b->rise[l] = (double)(last->attn[l] - first->attn[l]) / more;
    b->growth += b->rise[l];
  }
  if (!goes_on) forget_cycles(s);
  begins(s, mb);
}

void sim_steps_cut(sim_steps *s) {
  for (int i = 0; i < s->depth; i++)
    if (s->mb[i].active) s->mb[i].n = s->mb[i].done + 1;
}

int sim_steps_done(const sim_steps *s, int mb) {
  return s->mb[mb].done;
}

static void emit(const sim_steps *s, int mb, int64_t end) {
  if (s->trace == NULL) return;
  const batch *b = &s->mb[mb];
  rec_trace r = {
      .step = (int)b->w.number, .micro_batch = mb, .layer = -1, .start_ns = b->began, .end_ns = end, .tokens = b->w.tokens};
  memcpy(r.source, "sim", 4);
  memcpy(r.stage, "step", 5);
  memcpy(r.resource, "all", 4);
  s->trace(s->user, &r);
}

/* A step of micro-batch mb has ended in the machine; true when its run has, or when it is time to look who has come. */
static bool step_ended(sim_steps *s, int mb, int64_t until) {
  batch *b = &s->mb[mb];
  s->in_machine--;
  s->walked++;
  if (machine_now(s) > s->now) s->now = machine_now(s);
  emit(s, mb, s->now);
  b->done++;
  b->end[b->n_ends++ & (ENDS - 1)] = s->now - s->jumped;
  if (mb == first_active(s)) {
    s->fresh = true;
    s->since++;
    for (int r = 0; r < SIM_N_RESOURCES; r++) s->used[(b->n_ends - 1) & (ENDS - 1)][r] = machine_busy_ns(s, r);
  }
  if (s->now == until || s->now > SIM_MOST_NOW) b->n = b->done;
  if (b->done < b->n) begins(s, mb);
  return b->done == b->n;
}

/* Starts what waits to start: at its time, which is past where a step began alone. True when a step (*mb) has ended before. */
static bool start_waiting(sim_steps *s, int *mb) {
  while (s->n_waiting > 0) {
    batch *b = &s->mb[s->waiting[0]];
    int64_t late = b->began - machine_now(s);
    if (s->in_machine == 0) machine_skip(s, late);
    else if (late > 0 && machine_advance(s, b->began, mb)) return true;
    set_attn(s, b, b->done);
    machine_start(s, s->waiting[0], &b->w);
    s->in_machine++;
    memmove(s->waiting, s->waiting + 1, (size_t)--s->n_waiting * sizeof s->waiting[0]);
  }
  return false;
}

/* Who has gone for good leaves another company. */
static void look_round(sim_steps *s) {
  for (int i = 0; i < s->depth; i++) {
    batch *b = &s->mb[i];
    if (b->was && !b->active) forget_cycles(s);
    b->was = b->active;
  }
}

/* Until somebody's run ends, or the step that it is to end with (true), or `until`. */
static bool run_until(sim_steps *s, int64_t until, int *mb) {
  for (;;) {
    *mb = who_is_alone(s);
    if (*mb >= 0) {
      if (!go_alone(s, *mb, until)) return false;
      emit(s, *mb, s->now);
      s->n_waiting = 0;
      return true;
    }
    if (!start_waiting(s, mb)) {
      if (s->fresh) jump(s, until);
      s->fresh = false;
      if (!machine_advance(s, until, mb)) return false;
    }
    if (step_ended(s, *mb, until)) return true;
  }
}

bool sim_steps_advance(sim_steps *s, int64_t until, int *ended) {
  int mb = -1;
  look_round(s);
  if (!run_until(s, until, &mb)) {
    if (until < INT64_MAX && until > s->now) s->now = until;
    return false;
  }
  s->mb[mb].active = false;
  *ended = mb;
  return true;
}

int64_t sim_steps_now(const sim_steps *s) {
  return s->now;
}

int64_t sim_steps_busy_ns(const sim_steps *s, int which) {
  return s->busy[which] + machine_busy_ns(s, which);
}

int64_t sim_steps_walked(const sim_steps *s) {
  return s->walked;
}
