#include "planner/sim/machine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"

/* A lane is what a micro-batch can have under way at once. */
enum { LANE_HOME, LANE_CPU, LANE_LINK, LANE_PLACE, N_LANES = LANE_PLACE + STAGE_MAX_PLACES, N_JOBS = N_LANES * SCHED_MAX_DEPTH };
typedef enum { PH_START, PH_ATTN, PH_SIDE, PH_LATE_DEXP, PH_HAND, PH_CEXP, PH_UPLOAD, PH_PLACE } phase;
typedef enum { SIDE_NONE, SIDE_DEVICE, SIDE_CPU, SIDE_LINK, N_SIDES } side;

typedef struct {
  phase ph;
  side side;
  bool running;
  int64_t work, since, start, end, order;
  double slow; /* since `since` */
} job;

typedef struct {
  int64_t end, order;
  int job;
} due;

typedef struct {
  bool busy;
  int queue[N_JOBS], n;
  int64_t since, busy_ns;
} resource;

typedef struct {
  sim_work w;
  int layer, parts; /* parts of the layer under way */
  bool head;
  int up_at, up_done, up_routed, up_used; /* layer that is sent; layers sent, whose routing is known, computed so far */
  int64_t up_sent;                        /* of layer up_at */
  bool sending;                           /* the link has work of this micro-batch, or it waits for the link */
  bool late;                              /* the last of dexp waits for its upload */
  bool asked;                             /* it came, and dexp waits for the device: asked for once, whatever else is uploaded */
} walk;

struct sim_machine {
  const stage_table *t;
  sim_trace_fn *trace;
  void *user;
  int64_t now, order;
  job job[N_JOBS];
  due due[N_JOBS]; /* jobs that run, the next to end last: they are few, and the next is wanted most */
  int n_due;
  resource res[SIM_N_RESOURCES];
  walk mb[SCHED_MAX_DEPTH];
  int at_work[N_SIDES];          /* running jobs per side */
  int64_t sent[SCHED_MAX_DEPTH]; /* by the link's job of each micro-batch */
  int ended;                     /* micro-batch whose step has just ended, -1: none */
};

/* ---- jobs in order of (end, creation) ---- */

static bool before(const due *a, const due *b) {
  return a->end != b->end ? a->end < b->end : a->order < b->order;
}

static void add_due(sim_machine *m, int j) {
  due d = {m->job[j].end, m->job[j].order, j};
  int i = m->n_due++;
  for (; i > 0 && before(&m->due[i - 1], &d); i--) m->due[i] = m->due[i - 1];
  m->due[i] = d;
}

/* Ends of some have changed. */
static void sort_due(sim_machine *m) {
  int n = m->n_due;
  for (m->n_due = 0; m->n_due < n;) add_due(m, m->due[m->n_due].job);
}

/* ---- jobs and contention ---- */

/* How much longer the work of a side takes now. */
static double slowness(const sim_machine *m, side s) {
  double device = m->t->contend, link = m->t->contend_dma, most = 1;
  if (s == SIDE_DEVICE && m->at_work[SIDE_CPU] > 0) most = device;
  if (s == SIDE_LINK && m->at_work[SIDE_CPU] > 0) most = link;
  if (s == SIDE_CPU && m->at_work[SIDE_DEVICE] > 0) most = device;
  if (s == SIDE_CPU && m->at_work[SIDE_LINK] > 0 && link > most) most = link;
  return most;
}

static void set_end(const sim_machine *m, job *k) {
  k->since = m->now;
  k->slow = slowness(m, k->side);
  k->end = m->now + (k->slow > 1 ? sim_round((double)k->work * k->slow) : k->work);
}

/* Jobs of one side go on at another rate from now on. */
static void change_rate(sim_machine *m, side s) {
  for (int i = 0; i < m->n_due; i++) {
    job *k = &m->job[m->due[i].job];
    if (k->side != s) continue;
    int64_t done = m->now - k->since;
    if (k->slow > 1) done = (int64_t)((double)done / k->slow);
    k->work = done < k->work ? k->work - done : 0;
    set_end(m, k);
  }
  sort_due(m);
}

static void count_side(sim_machine *m, side s, int delta) {
  bool contended = (m->t->contend > 1 || m->t->contend_dma > 1) && s != SIDE_NONE;
  double was[N_SIDES] = {0};
  if (!contended || (m->at_work[s] > 0) == (m->at_work[s] + delta > 0)) { /* nobody's rate changes */
    m->at_work[s] += s == SIDE_NONE ? 0 : delta;
    return;
  }
  for (side x = SIDE_DEVICE; x < N_SIDES; x++) was[x] = slowness(m, x);
  m->at_work[s] += delta;
  for (side x = SIDE_DEVICE; x < N_SIDES; x++)
    if (x != s && slowness(m, x) != was[x]) change_rate(m, x);
}

/* Job j is idle, or has just come to its end and goes on in another phase: the other side sees no pause then. */
static void begin(sim_machine *m, int j, phase ph, side s, int64_t work) {
  job *k = &m->job[j];
  bool goes_on = k->running;
  k->ph = ph;
  k->side = s;
  k->running = true;
  k->work = work;
  k->start = m->now;
  k->order = m->order++;
  if (!goes_on) count_side(m, s, 1);
  set_end(m, k);
  add_due(m, j);
}

static void finish(sim_machine *m, int j) {
  m->job[j].running = false;
  count_side(m, m->job[j].side, -1);
}

/* ---- resources ---- */

static int home_of(const sim_machine *m, const walk *b) {
  if (m->t->one_resource) return SIM_CPU;
  return m->t->layer[b->layer < m->t->n_layers ? b->layer : m->t->n_layers - 1].home;
}

int sim_place_resource(const stage_table *t, int place) {
  return place <= t->n_devices ? place - 1 : SIM_REMOTE + place - 1 - t->n_devices;
}

static const sim_layer_ns *routed(const walk *b) {
  return &b->w.routed[b->layer];
}

/* What may be sent now of layer up_at: the part ahead of its routing, then the rest. */
static int64_t part_to_send(const walk *b) {
  const sim_layer_ns *r = &b->w.routed[b->up_at];
  return b->up_sent < r->ahead ? r->ahead - b->up_sent : b->up_done < b->up_routed ? r->upload - b->up_sent : 0;
}

/* What job j does with the resource it has got. */
static void serve(sim_machine *m, int j) {
  int mb = j / N_LANES, lane = j % N_LANES;
  walk *b = &m->mb[mb];
  side device = m->t->one_resource ? SIDE_NONE : SIDE_DEVICE;
  if (lane == LANE_CPU) {
    begin(m, j, PH_CEXP, SIDE_CPU, routed(b)->cexp);
  } else if (lane == LANE_LINK) {
    m->sent[mb] = part_to_send(b);
    begin(m, j, PH_UPLOAD, m->t->one_resource ? SIDE_NONE : SIDE_LINK, m->sent[mb]);
  } else if (lane >= LANE_PLACE) {
    begin(m, j, PH_PLACE, SIDE_NONE, routed(b)->place[lane - LANE_PLACE]);
  } else if (b->late) {
    b->late = b->asked = false;
    begin(m, j, PH_LATE_DEXP, device, routed(b)->tail);
  } else {
    begin(m, j, PH_ATTN, device, b->head ? b->w.head : b->w.attn[b->layer]);
  }
}

static void take(sim_machine *m, int which, int j) {
  resource *r = &m->res[which];
  if (r->busy) {
    r->queue[r->n++] = j;
    return;
  }
  r->busy = true;
  r->since = m->now;
  serve(m, j);
}

static void release(sim_machine *m, int which) {
  resource *r = &m->res[which];
  r->busy_ns += m->now - r->since;
  r->busy = false;
  if (r->n == 0) return;
  int j = r->queue[0];
  r->n--;
  for (int i = 0; i < r->n; i++) r->queue[i] = r->queue[i + 1];
  take(m, which, j);
}

/* ---- trace ---- */

const char *sim_resource_name(int which) {
  static const char *const name[] = {"gpu0", "gpu1",  "gpu2",  "gpu3",  "gpu4",  "gpu5",  "gpu6",  "gpu7", "cpu",
                                     "link", "host1", "host2", "host3", "host4", "host5", "host6", "host7"};
  _Static_assert(sizeof name / sizeof *name == SIM_N_RESOURCES, "every resource has a name");
  return name[which];
}

static void emit(const sim_machine *m, int mb, const char *stage, const char *where, int64_t start, int64_t end) {
  if (m->trace == NULL || end <= start) return;
  const walk *b = &m->mb[mb];
  rec_trace r = {.step = (int)b->w.number,
                 .micro_batch = mb,
                 .layer = b->head ? -1 : b->layer,
                 .start_ns = start,
                 .end_ns = end,
                 .tokens = b->w.tokens};
  memcpy(r.source, "sim", 4);
  snprintf(r.stage, sizeof r.stage, "%s", stage);
  snprintf(r.resource, sizeof r.resource, "%.7s", where);
  m->trace(m->user, &r);
}

/* Shared experts, then resident ones, at one rate. */
static void emit_side(const sim_machine *m, int mb, const job *k, int64_t cexp) {
  if (m->trace == NULL) return;
  const walk *b = &m->mb[mb];
  const char *where = sim_resource_name(home_of(m, b));
  const int64_t dexp = routed(b)->dexp - (routed(b)->upload > 0 ? routed(b)->tail : 0);
  int64_t all = routed(b)->shared + dexp + cexp, length = m->now - k->start;
  if (all <= 0) return;
  int64_t a = k->start + sim_round((double)length * (double)routed(b)->shared / (double)all);
  int64_t c = cexp > 0 ? k->start + sim_round((double)length * (double)(routed(b)->shared + dexp) / (double)all) : m->now;
  emit(m, mb, "shared", where, k->start, a);
  emit(m, mb, "dexp", where, a, c);
  if (cexp > 0) emit(m, mb, "cexp", where, c, m->now);
}

/* ---- the walk ---- */

static void enter_layer(sim_machine *m, int mb) {
  walk *b = &m->mb[mb];
  b->head = b->layer == m->t->n_layers;
  b->parts = 1;
  take(m, home_of(m, b), mb * N_LANES + LANE_HOME);
}

/* The link takes what may be sent. The next layer's turn comes when the routing of the one before it is known, and all of that was sent. */
static void next_upload(sim_machine *m, int mb) {
  walk *b = &m->mb[mb];
  while (!b->sending && b->up_done <= b->up_routed) {
    while (b->up_at < m->t->n_layers && b->w.routed[b->up_at].upload == 0) b->up_at++;
    if (b->up_at == m->t->n_layers) return;
    if (part_to_send(b) > 0) {
      b->sending = true;
      take(m, SIM_LINK, mb * N_LANES + LANE_LINK);
      return;
    }
    if (b->up_sent < b->w.routed[b->up_at].upload) return;
    b->up_done++;
    b->up_at++;
    b->up_sent = 0;
  }
}

static void end_part(sim_machine *m, int mb) {
  walk *b = &m->mb[mb];
  if (--b->parts > 0) return;
  if (b->head) {
    m->ended = mb;
    return;
  }
  b->up_used += routed(b)->upload > 0;
  b->layer++;
  enter_layer(m, mb);
}

/* Attention is through: experts elsewhere start, the home device goes on. */
static void fork_layer(sim_machine *m, int mb) {
  walk *b = &m->mb[mb];
  const sim_layer_ns *r = routed(b);
  int j = mb * N_LANES;
  if (r->cexp > 0) {
    b->parts++;
    begin(m, j + LANE_CPU, PH_HAND, SIDE_CPU, r->hand);
  }
  for (int p = 1; r->elsewhere && p < STAGE_MAX_PLACES; p++) {
    if (r->place[p] == 0) continue;
    b->parts++;
    take(m, sim_place_resource(m->t, p), j + LANE_PLACE + p);
  }
}

static void attn_ended(sim_machine *m, int mb, int j) {
  walk *b = &m->mb[mb];
  int home = home_of(m, b);
  emit(m, mb, b->head ? "head" : "attn", sim_resource_name(home), m->job[j].start, m->now);
  if (b->head) {
    finish(m, j);
    release(m, home);
    end_part(m, mb);
    return;
  }
  const sim_layer_ns *r = routed(b);
  b->late = r->upload > 0;
  int64_t work = r->shared + r->dexp - (b->late ? r->tail : 0) + (m->t->one_resource ? r->cexp : 0);
  begin(m, j, PH_SIDE, m->job[j].side, work);
  if (b->late) {
    b->up_routed++;
    next_upload(m, mb);
  }
  if (!m->t->one_resource) fork_layer(m, mb);
}

static void side_ended(sim_machine *m, int mb, int j) {
  walk *b = &m->mb[mb];
  int home = home_of(m, b);
  emit_side(m, mb, &m->job[j], m->t->one_resource ? routed(b)->cexp : 0);
  finish(m, j);
  if (b->late && b->up_done > b->up_used) { /* the upload came meanwhile */
    b->late = false;
    begin(m, j, PH_LATE_DEXP, SIDE_DEVICE, routed(b)->tail);
    return;
  }
  release(m, home);
  if (!b->late) end_part(m, mb);
}

static void upload_ended(sim_machine *m, int mb, int j) {
  walk *b = &m->mb[mb];
  const sim_layer_ns *r = &b->w.routed[b->up_at];
  emit(m, mb, "upload", "link", m->job[j].start, m->now);
  finish(m, j);
  b->sending = false;
  b->up_sent += m->sent[mb];
  release(m, SIM_LINK);
  if (b->up_sent == r->upload) {
    b->up_done++;
    b->up_at++;
    b->up_sent = 0;
  }
  if (b->late && !b->asked && !m->job[mb * N_LANES + LANE_HOME].running && b->up_done > b->up_used) {
    b->asked = true;
    take(m, home_of(m, b), mb * N_LANES + LANE_HOME);
  }
  next_upload(m, mb);
}

static void handle(sim_machine *m, int j) {
  int mb = j / N_LANES, lane = j % N_LANES;
  job *k = &m->job[j];
  switch (k->ph) {
    case PH_START:
      finish(m, j);
      enter_layer(m, mb);
      return;
    case PH_ATTN: attn_ended(m, mb, j); return;
    case PH_SIDE: side_ended(m, mb, j); return;
    case PH_LATE_DEXP:
      emit(m, mb, "dexp", sim_resource_name(home_of(m, &m->mb[mb])), k->start, m->now);
      finish(m, j);
      release(m, home_of(m, &m->mb[mb]));
      end_part(m, mb);
      return;
    case PH_HAND:
      emit(m, mb, "hand", "link", k->start, m->now);
      if (m->res[SIM_CPU].busy) finish(m, j);
      take(m, SIM_CPU, j);
      return;
    case PH_CEXP:
      emit(m, mb, "cexp", "cpu", k->start, m->now);
      finish(m, j);
      release(m, SIM_CPU);
      end_part(m, mb);
      return;
    case PH_UPLOAD: upload_ended(m, mb, j); return;
    case PH_PLACE: {
      int which = sim_place_resource(m->t, lane - LANE_PLACE);
      emit(m, mb, "dexp", sim_resource_name(which), k->start, m->now);
      finish(m, j);
      release(m, which);
      end_part(m, mb);
      return;
    }
  }
}

/* ---- interface ---- */

hf_status sim_machine_new(const stage_table *table, sim_trace_fn *trace, void *user, sim_machine **out) {
  sim_machine *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "simulated machine"));
  m->t = table;
  m->trace = trace;
  m->user = user;
  m->ended = -1;
  *out = m;
  return HF_OK;
}

void sim_machine_free(sim_machine *m) {
  free(m);
}

void sim_machine_start(sim_machine *m, int mb, const sim_work *w) {
  m->mb[mb] = (walk){.w = *w};
  begin(m, mb * N_LANES + LANE_HOME, PH_START, SIDE_NONE, w->fixed);
  next_upload(m, mb);
}

bool sim_machine_advance(sim_machine *m, int64_t until, int *ended) {
  while (m->n_due > 0) {
    const due *next = &m->due[m->n_due - 1];
    if (next->end > until) break;
    assert(next->end >= m->now);
    m->now = next->end;
    m->n_due--;
    handle(m, next->job);
    if (m->ended < 0) continue;
    *ended = m->ended;
    m->ended = -1;
    return true;
  }
  if (until < INT64_MAX && until > m->now) m->now = until;
  return false;
}

int64_t sim_machine_now(const sim_machine *m) {
  return m->now;
}

void sim_machine_skip(sim_machine *m, int64_t ns) {
  m->now += ns;
  for (int i = 0; i < m->n_due; i++) {
    job *k = &m->job[m->due[i].job];
    k->since += ns;
    k->start += ns;
    k->end += ns;
    m->due[i].end += ns;
  }
  for (int r = 0; r < SIM_N_RESOURCES; r++) m->res[r].since += ns;
}

int64_t sim_machine_busy_ns(const sim_machine *m, int which) {
  const resource *r = &m->res[which];
  return r->busy_ns + (r->busy ? m->now - r->since : 0);
}
