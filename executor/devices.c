/* devices.c: see devices.h. */
#include "executor/devices.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

bool engine_has_device(const engine_options *o) {
  return strcmp(o->gpu, "none") != 0;
}

int devices_of(const engine_options *o) {
  return engine_has_device(o) ? 1 + o->more_devices : 1;
}

bool device_on_host(const engine_options *o, int k) {
  return !engine_has_device(o) || (o->lost_devices >> k & 1);
}

int devices_left(const engine_options *o) {
  int n = 0;
  for (int k = 0; k < devices_of(o); k++) n += !device_on_host(o, k);
  return n;
}

int64_t device_size(const engine_options *o, int k) {
  return k == 0 ? o->device_bytes : o->more_bytes[k - 1];
}

/* Without a plan: in proportion to the devices' memory, a layer where its middle falls. */
static int by_sizes(const model_config *c, const engine_options *o, int layer) {
  double all = 0, end = 0;
  int k = 0;
  for (int i = 0; i < devices_of(o); i++) all += (double)device_size(o, i);
  for (; k + 1 < devices_of(o); k++) {
    end += (double)device_size(o, k) / all;
    if ((layer + 0.5) / c->n_layers < end) break;
  }
  return k;
}

int device_of_layer(const model_config *c, const engine_options *o, int layer) {
  if (devices_of(o) == 1) return 0;
  if (o->placement) return o->placement->layer[layer].home;
  return o->pace ? o->pace->layer[layer].home : by_sizes(c, o, layer);
}

/* The plan's, or an even spread of a percentage per layer. */
static int placed_on(const model_config *c, const engine_options *o, int l, int x) {
  if (o->placement) {
    const int16_t *device = o->placement->layer[l].device;
    return device && device[x] >= 0 && !plan_rank(o->placement, device[x]) ? device[x] : -1;
  }
  int n = (int)(o->experts_on_gpu_percent / 100.0 * c->n_experts + 0.5);
  const bool there = (int64_t)(x + 1) * n / c->n_experts > (int64_t)x * n / c->n_experts;
  return there ? device_of_layer(c, o, l) : -1;
}

int device_of_expert(const model_config *c, const engine_options *o, int l, int x) {
  const int k = engine_has_device(o) ? placed_on(c, o, l, x) : -1;
  return k >= 0 && k < devices_of(o) && device_on_host(o, k) ? -1 : k;
}

bool device_has_guests(const model_config *c, const engine_options *o, int k) {
  for (int l = 0; l < c->n_layers && o->placement; l++)
    for (int x = 0; c->layer_is_moe[l] && x < c->n_experts && device_of_layer(c, o, l) != k; x++)
      if (device_of_expert(c, o, l, x) == k) return true;
  return false;
}

int parts_on(const model_config *c, const engine_options *o, int k) {
  int n = 0, before = -1;
  for (int l = 0; l < c->n_layers; l++) {
    const int home = device_of_layer(c, o, l);
    n += home == k && before != k;
    before = home;
  }
  return n;
}

static hf_status no_such(const engine_options *o, const char *what, int k) {
  if (devices_of(o) == 1) return hf_fail(HF_INPUT, "plan: %s gpu%d, but there is one device (--gpu)", what, k);
  return hf_fail(HF_INPUT, "plan: %s gpu%d, but there are %d devices (--gpu)", what, k, devices_of(o));
}

hf_status devices_check(const model_config *c, const engine_options *o) {
  int parts = 0;
  char what[64];
  if (o->more_devices < 0 || o->more_devices > ENGINE_DEVICES - 1)
    return hf_fail(HF_INPUT, "engine: %d devices: 1 to %d are possible", 1 + o->more_devices, (int)ENGINE_DEVICES);
  for (int l = 0; l < c->n_layers; l++) {
    /* the plan's own: with one device it would be taken for that one's */
    const int home = engine_has_device(o) && o->placement ? o->placement->layer[l].home : device_of_layer(c, o, l);
    if (o->pace && devices_of(o) > 1 && o->pace->layer[l].home != home)
      return hf_fail(HF_UNSUPPORTED,
                     "plan: layers[%d].home: gpu%d, the paced machine's times are for gpu%d: make the plan for this --gpu", l,
                     home, o->pace->layer[l].home);
    snprintf(what, sizeof what, "layers[%d].home:", l);
    if (home < 0 || home >= devices_of(o)) return no_such(o, what, home);
    for (int x = 0; c->layer_is_moe[l] && x < c->n_experts; x++) {
      const int k = device_of_expert(c, o, l, x);
      snprintf(what, sizeof what, "placement[%d]: expert %d is on", l, x);
      if (k >= devices_of(o)) return no_such(o, what, k);
    }
  }
  for (int k = 0; k < devices_of(o); k++) parts += parts_on(c, o, k);
  if (parts > ENGINE_PARTS)
    return hf_fail(HF_UNSUPPORTED, "plan: layers go from one device to another %d times in a step, at most %d are possible",
                   parts - 1, ENGINE_PARTS - 1);
  return HF_OK;
}

hf_status devices_share(engine *e) {
  e->n_devices = devices_of(&e->o);
  e->n_parts = 0;
  if (!e->home) HF_TRY(hf_alloc(&e->home, (size_t)e->c.n_layers, 1, "layers"));
  for (int l = 0; l < e->c.n_layers; l++) {
    e->home[l] = (uint8_t)device_of_layer(&e->c, &e->o, l);
    if (l == 0 || e->home[l] != e->home[l - 1]) e->part[e->n_parts++] = (step_part){.device = e->home[l], .first = l};
    e->part[e->n_parts - 1].end = l + 1;
  }
  return HF_OK;
}

engine_device *device_at_work(engine *e, int i) {
  return &e->device[e->part[e->mb[i].part].device];
}

/* Of a step that goes through devices, too, the layers that are at home on the host: nothing is sent for them. */
static hf_status host_launch(engine *e, micro_batch *mb, dev *d) {
  const bool upload = mb->step.upload;
  if (e->aside_now) {
    mb->held = true;
    return HF_OK;
  }
  mb->step.upload = false;
  e->in_line = HF_OK;
  const hf_status st = dev_launch(d, mb->rec[mb->part], &mb->step);
  mb->step.upload = upload;
  return st == HF_OK ? e->in_line : st;
}

hf_status part_launch(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  dev *d = device_at_work(e, i)->d;
  mb->answered = mb->beats = 0;
  mb->held = false;
  mb->step.goes_on = mb->part > 0;
  if (mb->part == 0) mb->traced = 0;
  if (dev_is_host(d)) return host_launch(e, mb, d);
  const hf_status st = dev_launch(d, mb->rec[mb->part], &mb->step);
  return st == HF_LOST ? engine_lost(e) : st;
}

/* Whether the step's trace has a record of resident or sent experts of the layer. */
static bool has_dexp(const dev_step *s, int layer) {
  for (int i = 0; i < s->n_trace; i++)
    if (s->trace[i].stage == DEV_STAGE_DEXP && s->trace[i].layer == layer) return true;
  return false;
}

/* The host's and the guests' records stand apart until then. Device experts of a layer are one stage, on however many devices. */
static void collect_trace(engine *e, micro_batch *mb) {
  dev_step *s = &mb->step;
  for (int l = 0; l < e->c.n_layers * (1 + e->n_devices); l++) {
    if (!mb->trace[l].end_ns) continue;
    if (mb->trace[l].stage == DEV_STAGE_DEXP) mb->trace[l].more = has_dexp(s, mb->trace[l].layer);
    if (s->n_trace < s->max_trace) s->trace[s->n_trace++] = mb->trace[l];
    mb->trace[l].end_ns = 0;
  }
  mb->traced = s->n_trace;
}

bool part_end(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  for (; mb->traced < mb->step.n_trace; mb->traced++) mb->step.trace[mb->traced].device = e->part[mb->part].device;
  collect_trace(e, mb);
  if (mb->part + 1 == e->n_parts) return true;
  mb->part++;
  return false;
}

/* ---- guests ---- */

hf_status guests_open(engine *e, micro_batch *mb) {
  const dev_step *s = &mb->step;
  bool any = false;
  for (int k = 0; k < e->n_devices; k++) {
    guest *g = &mb->guest[k];
    if (!g->rec) continue;
    any = true;
    g->step = (dev_step){.stream = s->stream,
                         .route_ids = s->route_ids,
                         .route_weights = s->route_weights,
                         .max_tok = s->max_tok,
                         .max_logits = s->max_logits,
                         .max_trace = 1};
    HF_TRY(hf_alloc(&g->step.host_x, (size_t)s->max_tok * (size_t)e->c.d_model, sizeof(float), "step"));
    HF_TRY(hf_alloc(&g->step.trace, 1, sizeof *g->step.trace, "trace"));
  }
  if (!any || s->host_guests) return HF_OK;
  return hf_alloc(&mb->step.host_guests, (size_t)s->max_tok * (size_t)e->c.d_model, sizeof(float), "step");
}

void guests_close(micro_batch *mb) {
  for (int k = 0; k < ENGINE_DEVICES; k++) {
    guest *g = &mb->guest[k];
    dev_recording_free(g->rec);
    free(g->step.host_x);
    free(g->step.trace);
    memset(g, 0, sizeof *g);
  }
  free(mb->step.host_guests);
  mb->step.host_guests = NULL;
}

/* Whether any token of the step chose an expert of the layer that is on the device. */
static bool wanted(const engine *e, const dev_step *s, int layer, int k) {
  const int32_t *ids = s->route_ids + (size_t)layer * (size_t)s->max_tok * (size_t)e->c.top_k;
  const uint8_t *resident = e->resident + (size_t)layer * (size_t)e->c.n_experts;
  for (int i = 0; i < s->n_tok * e->c.top_k; i++)
    if (resident[ids[i]] == 1 + k) return true;
  return false;
}

hf_status guests_launch(engine *e, micro_batch *mb, int layer) {
  const dev_step *s = &mb->step;
  for (int k = 0; k < e->n_devices; k++) {
    guest *g = &mb->guest[k];
    if (!g->rec || k == e->home[layer] || !wanted(e, s, layer, k)) continue;
    g->step.layer = layer;
    g->step.n_tok = s->n_tok;
    g->step.n_seq = s->n_seq;
    memcpy(g->step.host_x, s->host_x, (size_t)s->n_tok * (size_t)e->c.d_model * sizeof(float));
    const hf_status st = dev_launch(e->device[k].d, g->rec, &g->step);
    if (st != HF_OK) return st == HF_LOST ? engine_lost(e) : st;
    g->running = true;
    g->seen = 0;
    watch_begin(&e->guest_watch, k, s->n_tok);
  }
  return HF_OK;
}

/* A guest waits in turn behind what other micro-batches are at on its device: time that says nothing about the device but by their limits, and nothing
 * of which is learned. What they do meanwhile changes *seen. */
static int64_t others_ns(engine *e, const micro_batch *mb, int k, int *seen) {
  int64_t ns = 0;
  *seen = 0;
  for (int i = 0; i < e->o.depth; i++) {
    const micro_batch *other = &e->mb[i];
    if (other == mb || !other->running || e->part[other->part].device != k || dev_finished(e->device[k].d, i)) continue;
    const int ready = atomic_load_explicit(&other->step.ready, memory_order_acquire);
    if (ready > other->answered) continue; /* it waits for the host */
    ns += watch_limit_ns(&e->watch, other->step.n_tok, e->o.depth);
    *seen += 1 + ready + atomic_load_explicit(&other->step.beats, memory_order_relaxed) +
             65536 * (1 + i + SCHED_MAX_DEPTH * other->part);
  }
  return ns;
}

static hf_status look_at_guests(engine *e, micro_batch *mb) {
  int n = 0;
  for (int k = 0; k < e->n_devices; k++) n += mb->guest[k].running;
  (void)watch_look(&e->guest_watch, hf_now_ns());
  for (int k = 0; k < e->n_devices; k++) {
    guest *g = &mb->guest[k];
    int seen;
    if (!g->running) continue;
    const int64_t behind = others_ns(e, mb, k, &seen);
    if (seen != g->seen) watch_begin(&e->guest_watch, k, g->step.n_tok);
    g->seen = seen;
    if (e->guest_watch.step[k].silent_ns <= watch_limit_ns(&e->guest_watch, g->step.n_tok, n) + behind) continue;
    dev_give_up(e->device[k].d, "no sign of life while it computed experts");
    return engine_lost(e);
  }
  return HF_OK;
}

/* Those that have ended since. *n: how many have not. */
static hf_status look_for_ends(engine *e, micro_batch *mb, int *n) {
  *n = 0;
  for (int k = 0; k < e->n_devices; k++) {
    guest *g = &mb->guest[k];
    if (!g->running) continue;
    if (!dev_finished(e->device[k].d, mb->step.stream)) {
      ++*n;
      continue;
    }
    if (dev_lost(e->device[k].d)) return engine_lost(e);
    g->running = false;
    g->ended = true;
    watch_end(&e->guest_watch, k);
  }
  return HF_OK;
}

hf_status guests_collect(engine *e, micro_batch *mb, int layer, void (*aside)(void *user)) {
  dev_step *s = &mb->step;
  const size_t n = (size_t)s->n_tok * (size_t)e->c.d_model;
  int waiting;
  HF_TRY(look_for_ends(e, mb, &waiting));
  while (waiting > 0) { /* ends: a device without a sign of life is given up */
    HF_TRY(look_at_guests(e, mb));
    aside(e);
    sched_yield();
    HF_TRY(look_for_ends(e, mb, &waiting));
  }
  memset(s->host_guests, 0, n * sizeof *s->host_guests);
  for (int k = 0; k < e->n_devices; k++) {
    guest *g = &mb->guest[k];
    if (!g->ended) continue;
    g->ended = false;
    for (size_t i = 0; i < n; i++) s->host_guests[i] += g->step.host_x[i];
    dev_trace *t = &mb->trace[(size_t)(1 + k) * (size_t)e->c.n_layers + (size_t)layer];
    *t = g->step.trace[0];
    t->device = k;
  }
  return HF_OK;
}
