/* failover.c: an engine that loses devices goes on on those that are left and on the CPU.
 *
 * What a lost device held comes from the model's file (or seed) once more, to where the options say; all other weights stay where they are, unless the
 * plan without the device has them elsewhere. KV pages begin empty: whoever serves computes them again from the tokens. Only then, with everything in place,
 * may steps be launched. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/devices.h"
#include "executor/probe.h"
#include "executor/rejoin.h"

static unsigned lost_now(const engine *e) {
  unsigned lost = 0;
  for (int k = 0; k < e->n_devices; k++)
    if (e->device[k].d && dev_lost(e->device[k].d)) lost |= 1u << k;
  return lost;
}

bool any_lost(const engine *e) {
  return lost_now(e) != 0;
}

/* ---- steps in flight ---- */

/* Devices that are left on which a micro-batch has something at work. *moved is set when it gave a sign of life. */
static unsigned at_work(engine *e, int i, bool *moved) {
  micro_batch *mb = &e->mb[i];
  unsigned busy = 0;
  for (int k = 0; k < e->n_devices; k++)
    if (mb->guest[k].running && !dev_finished(e->device[k].d, mb->step.stream) && !dev_lost(e->device[k].d)) busy |= 1u << k;
  dev *d = device_at_work(e, i)->d;
  if (!mb->running || mb->held || dev_is_host(d) || dev_finished(d, i) || dev_lost(d)) return busy;
  const int ready = atomic_load_explicit(&mb->step.ready, memory_order_acquire);
  const int beats = atomic_load_explicit(&mb->step.beats, memory_order_relaxed);
  *moved = *moved || ready > mb->answered || beats != mb->beats;
  if (ready > mb->answered) dev_host_done(&mb->step, ready - 1, 0);
  mb->answered = ready;
  mb->beats = beats;
  return busy | 1u << (device_at_work(e, i) - e->device);
}

static unsigned copies_at_work(engine *e) {
  int64_t begun, ended;
  unsigned busy = 0;
  for (int k = 0; k < e->n_devices; k++) {
    dev_copies_count(e->device[k].d, &begun, &ended);
    if (begun != ended && !dev_lost(e->device[k].d)) busy |= 1u << k;
  }
  return busy;
}

/* Steps on devices that are left come to an end, whatever they compute: nobody looks at it. One that does not get there is lost as well. */
static void settle(engine *e) {
  int64_t since = hf_now_ns();
  for (unsigned busy = 1; busy;) { /* ends: a device without a sign of life is given up */
    bool moved = false;
    busy = copies_at_work(e);
    for (int i = 0; i < e->o.depth; i++) busy |= at_work(e, i, &moved);
    const int64_t now = hf_now_ns();
    if (moved) since = now;
    for (int k = 0; k < e->n_devices && now - since > watch_limit_ns(&e->watch, e->o.max_tok, e->o.depth); k++)
      if (busy >> k & 1) dev_give_up(e->device[k].d, "no sign of life after another one was lost");
    if (busy) sched_yield();
  }
}

/* Recordings refer to devices, contexts and buffers. */
static void forget_steps(engine *e) {
  probe_close(e);
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) {
    micro_batch *mb = &e->mb[i];
    if (!mb->trace) continue; /* not opened */
    for (int p = 0; p < ENGINE_PARTS; p++) {
      dev_recording_free(mb->rec[p]);
      mb->rec[p] = NULL;
    }
    guests_close(mb);
    mb->running = mb->held = mb->checks = false;
    mb->answered = mb->part = 0;
    mb->over_ns = 0;
    for (int l = 0; l < e->c.n_layers * (1 + e->n_devices); l++) mb->trace[l].end_ns = 0;
  }
  e->aside = HF_OK;
}

/* ---- what is where ---- */

typedef struct {
  unsigned changed; /* devices whose memory is gone */
  int first, last;  /* device of the embedding, of the output matrix */
  uint8_t home[PLAN_MAX_LAYERS];
} before;

static bool gone(const before *b, int device) {
  return b->changed >> device & 1;
}

/* Nothing is known to be where it is not any more; homes and parts are the new ones. */
static void forget_dense(engine *e, const before *b) {
  const int first = e->part[0].device, last = e->part[e->n_parts - 1].device;
  for (int l = 0; l < e->c.n_layers; l++) {
    layer_weights *w = &e->layer[l];
    const int k = b->home[l];
    if (gone(b, k) || k != e->home[l]) {
      memset(w, 0, sizeof *w);
      e->device[k].ctx.kv[l] = e->device[k].ctx.router_bias[l] = 0;
    }
    w->has_host_experts = w->has_cpu_experts = w->has_guests = w->has_device_experts = w->uploads = false;
  }
  if (gone(b, b->last) || b->last != last) {
    e->output = (dev_mat){0};
    e->out_norm = 0;
  }
  if (gone(b, b->first) || b->first != first) e->embed = (dev_mat){0};
}

static void forget_experts(engine *e, const before *b) {
  const size_t ne = (size_t)e->c.n_experts, n = (size_t)e->c.n_layers * ne;
  for (size_t i = 0; i < n; i++) {
    const int was = e->resident[i];
    const int is = e->c.layer_is_moe[i / ne] ? 1 + device_of_expert(&e->c, &e->o, (int)(i / ne), (int)(i % ne)) : was;
    if (was > 0 && was != is) e->device[was - 1].ctx.experts[i] = (dev_expert){0};
    for (int p = 0; is > 0 && p < e->nodes.parts.n; p++)
      e->host_experts[(i / ne * (size_t)e->nodes.parts.n + (size_t)p) * ne + i % ne] = (moe_expert){0};
    e->resident[i] = (uint8_t)is;
  }
  for (int k = 0; k < ENGINE_DEVICES; k++) /* all, for one may have been on its way */
    if (gone(b, k)) memset(e->device[k].ctx.experts, 0, n * sizeof(dev_expert));
}

static void forget_buffers(engine *e, const before *b) {
  for (int k = 0; k < ENGINE_DEVICES; k++) {
    dev_context *x = &e->device[k].ctx;
    free(x->likely);
    x->likely = NULL;
    x->slots = 0;
    x->n_slots = 0;
    const bool away = gone(b, k) || k >= e->n_devices; /* the latter: in the host's memory, while there were others */
    if (away) x->rope_cos = x->rope_sin = 0;
    for (int i = 0; i < SCHED_MAX_DEPTH && away; i++) e->mb[i].buffers[k] = 0;
  }
}

/* ---- memory that nobody names any more ---- */

typedef struct {
  uint64_t *at;
  size_t n;
} live;

static void add_live(live *v, uint64_t at) {
  if (at) v->at[v->n++] = at;
}

static void add_live_experts(live *v, const engine *e) {
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  for (int k = 0; k < e->n_devices; k++)
    for (size_t i = 0; i < n; i++) {
      const dev_expert *x = &e->device[k].ctx.experts[i];
      add_live(v, x->gate.data);
      add_live(v, x->up.data);
      add_live(v, x->down.data);
      add_live(v, x->gate_bias);
    }
  for (size_t i = 0; i < n * (size_t)e->nodes.parts.n; i++) {
    const moe_expert *x = &e->host_experts[i];
    add_live(v, (uintptr_t)x->gate.data);
    add_live(v, (uintptr_t)x->up.data);
    add_live(v, (uintptr_t)x->down.data);
    add_live(v, (uintptr_t)x->gate_bias);
  }
}

static void add_live_dense(live *v, engine *e) {
  dev_addr *at[LAYER_TENSORS];
  for (int l = 0; l < e->c.n_layers; l++) {
    const int n = layer_tensors(&e->layer[l], at);
    for (int i = 0; i < n; i++) add_live(v, *at[i]);
  }
  add_live(v, e->embed.data);
  add_live(v, e->output.data);
  add_live(v, e->out_norm);
  for (int k = 0; k < e->n_devices; k++) {
    const dev_context *x = &e->device[k].ctx;
    add_live(v, x->rope_cos);
    for (int l = 0; l < e->c.n_layers; l++) add_live(v, x->kv[l]);
    for (int i = 0; i < SCHED_MAX_DEPTH; i++) add_live(v, e->mb[i].buffers[k]);
  }
}

static int by_address(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static bool is_live(const live *v, const owned *o) {
  size_t lo = 0, hi = v->n;
  while (lo < hi) { /* the first address that is not below the block */
    const size_t mid = (lo + hi) / 2;
    if (v->at[mid] < o->addr) lo = mid + 1;
    else hi = mid;
  }
  return lo < v->n && v->at[lo] < o->addr + o->bytes;
}

/* Backwards: small blocks are taken back from the end of their pieces (kernels/mem). */
static hf_status sweep(engine *e, const before *b) {
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  const size_t most = n * 4 * (size_t)(ENGINE_DEVICES + e->nodes.parts.n) +
                      (size_t)e->c.n_layers * (LAYER_TENSORS + ENGINE_DEVICES) + ENGINE_DEVICES * (1 + SCHED_MAX_DEPTH) + 3;
  live v = {0};
  int kept = 0;
  HF_TRY(hf_alloc(&v.at, most, sizeof *v.at, "list of what stays"));
  add_live_experts(&v, e);
  add_live_dense(&v, e);
  qsort(v.at, v.n, sizeof *v.at, by_address);
  for (int i = e->n_own - 1; i >= 0; i--) {
    owned *o = &e->own[i];
    if ((o->device < 0 || !gone(b, o->device)) && is_live(&v, o)) continue;
    own_release(e, o);
    o->bytes = 0;
  }
  for (int i = 0; i < e->n_own; i++)
    if (e->own[i].bytes > 0) e->own[kept++] = e->own[i];
  e->n_own = kept;
  free(v.at);
  return HF_OK;
}

/* Devices that are gone, and what computes on the CPU: there may be another number of workers from now on. */
static void let_go(engine *e, unsigned changed) {
  for (int k = 0; k < ENGINE_DEVICES; k++) {
    dev *d = e->device[k].d;
    if (!d || (!(changed >> k & 1) && !dev_is_host(d))) continue;
    dev_free(d);
    e->device[k].d = NULL;
  }
  moe_free(e->cpu_moe);
  e->cpu_moe = NULL;
  if (e->p) pool_free(e->p);
  e->p = NULL;
}

/* ---- a device that is filled already ---- */

/* KV of layers whose home is another one from now on, in host memory meanwhile. */
typedef struct {
  char *layer[PLAN_MAX_LAYERS];
} kept_kv;

static hf_status keep_kv(engine *e, const engine_options *o, unsigned changed, kept_kv *kv) {
  for (int l = 0; l < e->c.n_layers; l++) {
    const int k = e->home[l];
    if (!(changed >> k & 1) && device_of_layer(&e->c, o, l) == k) continue;
    HF_TRY(hf_alloc(&kv->layer[l], e->kv_layer_bytes, 1, "KV pages on their way"));
    HF_TRY(dev_read_back(e->device[k].d, kv->layer[l], e->device[k].ctx.kv[l], e->kv_layer_bytes));
  }
  return HF_OK;
}

static hf_status bring_kv(engine *e, const kept_kv *kv) {
  for (int l = 0; l < e->c.n_layers; l++) {
    const engine_device *v = &e->device[e->home[l]];
    if (kv->layer[l]) HF_TRY(dev_upload(v->d, v->ctx.kv[l], kv->layer[l], e->kv_layer_bytes));
  }
  return HF_OK;
}

/* The device and what is on it are the engine's from now on. */
static void adopt(engine *e, rejoin *r) {
  engine *s = &r->made;
  const int k = r->device;
  const dev_context *from = &s->device[k].ctx;
  dev_context *x = &e->device[k].ctx;
  e->device[k].d = s->device[k].d;
  s->device[k].d = NULL;
  memcpy(x->experts, from->experts, (size_t)e->c.n_layers * (size_t)e->c.n_experts * sizeof *x->experts);
  x->rope_cos = from->rope_cos;
  x->rope_sin = from->rope_sin;
  for (int l = 0; l < e->c.n_layers; l++) {
    if (e->home[l] != k) continue;
    e->layer[l] = s->layer[l];
    x->kv[l] = from->kv[l];
    x->router_bias[l] = from->router_bias[l];
  }
  if (s->embed.data) e->embed = s->embed;
  if (s->out_norm) e->out_norm = s->out_norm;
  if (s->output.data) e->output = s->output;
  memcpy(e->own + e->n_own, s->own, (size_t)s->n_own * sizeof *s->own); /* own_reserve */
  e->n_own += s->n_own;
  s->n_own = 0;
}

/* Nothing is at work. Everything goes to where these options say, from what `changed` has lost, and from wherever else; with: a device that comes back. */
static hf_status rearrange(engine *e, const engine_options *o, unsigned changed, rejoin *with) {
  before b = {.changed = changed, .first = e->part[0].device, .last = e->part[e->n_parts - 1].device};
  if (e->c.n_layers > PLAN_MAX_LAYERS) return hf_fail(HF_UNSUPPORTED, "a model of more than %d layers", (int)PLAN_MAX_LAYERS);
  memcpy(b.home, e->home, (size_t)e->c.n_layers);
  forget_steps(e);
  residency_close(e);
  e->o = *o;
  HF_TRY(devices_share(e));
  forget_dense(e, &b);
  forget_experts(e, &b);
  forget_buffers(e, &b);
  HF_TRY(sweep(e, &b));
  let_go(e, changed);
  if (with) adopt(e, with);
  HF_TRY(hf_note(engine_must_fit(e, &e->o), "the device is lost (%s), and without it the model", e->lost_reason));
  HF_TRY(open_device(e));
  HF_TRY(load_weights(e));
  HF_TRY(open_uploads(e));
  return open_steps(e);
}

/* ---- losses ---- */

void engine_options_without(const engine *e, const engine_options *base, unsigned lost, engine_options *o) {
  *o = *base;
  o->lost_devices |= lost;
  o->movable = false;
  if (devices_left(o) == 0) {
    engine_without_device(o);
    return;
  }
  int k = 0;
  while (k + 1 < ENGINE_DEVICES && !(o->lost_devices >> k & 1)) k++;
  if (o->lost_devices != 1u << k || !o->without[k] || o->ranks) return;
  engine_options planned = *o;
  planned.placement = o->without[k];
  hf_status st = devices_check(&e->c, &planned);
  if (st == HF_OK) st = engine_must_fit(e, &planned);
  if (st == HF_OK) *o = planned;
  else hf_log(HF_LOG_INFO, "the plan without gpu%d cannot be executed: %s", k, hf_error_line());
  hf_clear_error();
}

void engine_on_tight(engine *e, engine_tight_fn *fn, void *user) {
  e->tight = fn;
  e->tight_user = user;
}

/* True: these options fit once what stood beside the engine is gone, as it is now; or still do not. */
static bool made_room(engine *e, const engine_options *o) {
  const hf_status st = engine_must_fit(e, o);
  hf_clear_error(); /* said again by whoever needs the room */
  if (st != HF_NO || e->o.standby_bytes == 0 || !e->tight) return false;
  e->tight(e->tight_user);
  e->o.standby_bytes = 0;
  return true;
}

static hf_status without_lost(engine *e) {
  engine_options o;
  settle(e);
  const unsigned lost = lost_now(e);
  for (int k = 0; k < e->n_devices; k++)
    if (lost >> k & 1) {
      dev_quit(e->device[k].d);
      e->times_lost[k]++;
    }
  engine_options_without(e, &e->o, lost, &o);
  if (made_room(e, &o)) engine_options_without(e, &e->o, lost, &o);
  HF_TRY(rearrange(e, &o, lost, NULL));
  return check_learn(e);
}

/* The device goes on; KV pages are whole, but for what lost steps have written. */
static hf_status without_ranks(engine *e) {
  if (!any_slots(e)) e->o.upload_tokens = 0; /* layers that had experts away are recorded without uploads, and stay so */
  (void)made_room(e, &e->o);
  HF_TRY(hf_note(engine_must_fit(e, &e->o), "%s, and with its experts the model", e->lost_reason));
  HF_TRY(load_experts_alone(e, NULL, NULL));
  return check_learn(e); /* sums are rounded in another order from now on */
}

/* The check that is learned anew may be what finds the next loss. Ends: each time there is a device or a rank less. */
hf_status engine_fail_over(engine *e) {
  hf_status st = HF_LOST;
  e->lost_wrong = false;
  for (bool more = true; st == HF_LOST && more;) {
    char why[sizeof e->lost_reason];
    hf_clear_error();
    if (e->o.ranks) ranks_forget(e->o.ranks);
    st = any_lost(e) ? without_lost(e) : without_ranks(e);
    more = any_lost(e) || (e->o.ranks && ranks_lost(e->o.ranks, why, sizeof why));
    if (st == HF_LOST && more)
      hf_log(HF_LOG_WARN, "%s was lost, too (%s)", e->lost_rank ? "another machine" : "the device", e->lost_reason);
  }
  if (st == HF_OK) rejoin_begin(e);
  return st;
}

/* ---- coming back ---- */

static hf_status move_back(engine *e, rejoin *r) {
  kept_kv *kv = NULL;
  hf_status st;
  HF_TRY(hf_alloc(&kv, 1, sizeof *kv, "KV pages on their way"));
  HF_GO(end, own_reserve(e, r->made.n_own));
  HF_GO(end, keep_kv(e, &r->target, 1u << r->device, kv));
  HF_GO(end, rearrange(e, &r->target, 1u << r->device, r));
  st = bring_kv(e, kv);
end:
  for (int l = 0; l < e->c.n_layers; l++) free(kv->layer[l]);
  free(kv);
  return st;
}

/* The check was learned when nothing was lost yet, or from devices that have been found good since: one that comes back may differ from that by rounding. */
hf_status engine_take_back(engine *e, engine_return *out) {
  rejoin *r = e->rejoin;
  *out = (engine_return){.device = r->device, .probes = r->probes[r->device], .loaded_bytes = r->loaded_bytes};
  hf_status st = move_back(e, r);
  rejoin_stop(e);
  if (st == HF_OK) st = check_again(e);
  if (st == HF_LOST && !any_lost(e)) dev_give_up(e->device[out->device].d, "it failed when it was taken back");
  if (st == HF_LOST) st = engine_lost(e);
  if (st == HF_OK) rejoin_begin(e);
  return st;
}
