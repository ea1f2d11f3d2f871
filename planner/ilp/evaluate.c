/* evaluate.c: the one definition of the objective, and the checks of a problem. */
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <string.h>

const char *ilp_binding_name(ilp_binding b) {
  static const char *const name[] = {"cpu", "gpu", "path", "remote"};
  return name[b];
}

int ilp_n_places(const stage_table *t) {
  return 1 + (t->one_resource ? 0 : t->n_devices) + t->n_remotes;
}

/* Devices come after the CPU, other machines after the devices. */
static ilp_binding binding_of_place(const stage_table *t, int place) {
  int devices = t->one_resource ? 0 : t->n_devices;
  return place == 0 ? ILP_BIND_CPU : place <= devices ? ILP_BIND_GPU : ILP_BIND_REMOTE;
}

double ilp_way_ns(const stage_table *t, int layer, const layer_times *times, ilp_binding *binding) {
  double side = times->shared_ns + times->dexp_ns, cpu = times->hand_ns + times->cexp_ns, most;
  ilp_binding b = ILP_BIND_GPU;
  if (t->one_resource) {
    b = ILP_BIND_CPU;
    most = times->shared_ns + times->cexp_ns;
  } else {
    if (cpu > side) b = ILP_BIND_CPU;
    most = t->layer[layer].moe ? stage_overlap_ns(t, side, cpu) : side;
  }
  for (int q = 1; q < ilp_n_places(t); q++) {
    if (!(times->place_ns[q] > most)) continue;
    most = times->place_ns[q];
    b = binding_of_place(t, q);
  }
  if (binding != NULL) *binding = b;
  return times->attn_ns + most;
}

/* ---- checks ---- */

static hf_status check_popularity(const ilp_problem *p) {
  const stage_table *t = p->table;
  for (int l = 0; l < t->n_layers; l++) {
    if (!t->layer[l].moe) continue;
    for (int e = 0; e < t->n_experts; e++) {
      size_t at = (size_t)l * (size_t)t->n_experts + (size_t)e;
      double v = p->pop->p[at], w = p->pop->prefill != NULL ? p->pop->prefill[at] : v;
      if (!(v >= 0 && v <= 1 && w >= 0 && w <= 1))
        return hf_fail(HF_INPUT, "popularity: layer %d expert %d: %g is no probability between 0 and 1", l, e,
                       v >= 0 && v <= 1 ? w : v);
    }
    if (p->expert_bytes[l] < 1)
      return hf_fail(HF_INPUT, "expert_bytes: layer %d: %lld is no size; an expert has at least 1 byte", l,
                     (long long)p->expert_bytes[l]);
  }
  return HF_OK;
}

static hf_status check_places(const ilp_problem *p) {
  const stage_table *t = p->table;
  int devices = t->one_resource ? 0 : t->n_devices;
  if (p->n_devices < 0) return hf_fail(HF_INPUT, "n_devices: %d is below the least allowed, 0", p->n_devices);
  if (p->n_devices > devices && !t->one_resource)
    return hf_fail(HF_INPUT, "n_devices: %d devices, but the stage table has %d", p->n_devices, devices);
  if (ilp_n_places(t) > STAGE_MAX_PLACES || devices < 0 || t->n_remotes < 0)
    return hf_fail(HF_INPUT, "stage table: %d devices and %d other machines are more than can be planned", devices, t->n_remotes);
  if (ilp_n_places(t) > 2 && t->place == NULL)
    return hf_fail(HF_INPUT, "stage table: %d devices and %d other machines without times of their places", devices,
                   t->n_remotes);
  for (int l = 0; devices > 0 && l < t->n_layers; l++)
    if (t->layer[l].home < 0 || t->layer[l].home >= devices)
      return hf_fail(HF_INPUT, "stage table: layer %d: home %d is none of %d devices", l, t->layer[l].home, devices);
  return HF_OK;
}

static hf_status check_prefill(const ilp_problem *p) {
  const ilp_prefill *f = &p->prefill;
  if (!(f->weight >= 0) || isinf(f->weight)) return hf_fail(HF_INPUT, "prefill.weight: %g is no share of prompts", f->weight);
  if (f->weight > 0 && f->load.tokens < 1)
    return hf_fail(HF_INPUT, "prefill.load: %d tokens of a chunk; at least 1 is needed", f->load.tokens);
  const ilp_limits *l = &p->limit;
  if (!(l->step_ns >= 0) || isinf(l->step_ns)) return hf_fail(HF_INPUT, "limit.step_ns: %g is no limit of a step", l->step_ns);
  if (!(l->ttft_ns >= 0) || isinf(l->ttft_ns)) return hf_fail(HF_INPUT, "limit.ttft_ns: %g is no limit of a prompt", l->ttft_ns);
  if (l->ttft_ns > 0 && (!(l->chunks > 0) || isinf(l->chunks)))
    return hf_fail(HF_INPUT, "limit.chunks: %g; a prompt has at least one chunk", l->chunks);
  if (l->ttft_ns > 0 && f->load.tokens < 1)
    return hf_fail(HF_INPUT, "prefill.load: %d tokens of a chunk; limit.ttft_ns needs at least 1", f->load.tokens);
  return HF_OK;
}

double ilp_chunk_limit(const ilp_problem *p) {
  return p->limit.ttft_ns > 0 ? p->limit.ttft_ns / p->limit.chunks : 0;
}

/* Sums in another order may differ in their last digits. */
static const double ROUNDING = 1e-9;

static void check_limits(const ilp_problem *p, ilp_evaluation *r) {
  const ilp_limits *l = &p->limit;
  if (l->ttft_ns > 0) r->ttft_ns = l->chunks * r->chunk_ns;
  r->step_over_ns = l->step_ns > 0 ? fmax(0, r->step_ns - l->step_ns) : 0;
  r->ttft_over_ns = l->ttft_ns > 0 ? fmax(0, r->ttft_ns - l->ttft_ns) : 0;
  r->keeps_limits = r->step_over_ns <= ROUNDING * l->step_ns && r->ttft_over_ns <= ROUNDING * l->ttft_ns;
}

hf_status ilp_check_problem(const ilp_problem *p) {
  const stage_table *t = p->table;
  if (t == NULL || p->pop == NULL || p->expert_bytes == NULL || t->layer == NULL)
    return hf_fail(HF_INPUT, "placement problem: stage table, popularity and expert_bytes must all be given");
  if (t->n_layers < 1 || t->n_layers > ILP_MAX_LAYERS || t->n_experts < 0 || t->n_experts > ILP_MAX_EXPERTS)
    return hf_fail(HF_INPUT, "stage table: %d layers of %d experts; at most %d of %d can be planned", t->n_layers, t->n_experts,
                   (int)ILP_MAX_LAYERS, (int)ILP_MAX_EXPERTS);
  if (p->pop->n_layers != t->n_layers || p->pop->n_experts != t->n_experts)
    return hf_fail(HF_INPUT, "popularity: %d layers of %d experts, but the stage table has %d of %d", p->pop->n_layers,
                   p->pop->n_experts, t->n_layers, t->n_experts);
  if (p->users < 1) return hf_fail(HF_INPUT, "users: %d is below the least allowed, 1", p->users);
  if (!(p->context >= 0) || isinf(p->context)) return hf_fail(HF_INPUT, "context: %g is no number of tokens", p->context);
  HF_TRY(check_places(p));
  HF_TRY(check_prefill(p));
  for (int i = 0; p->pin != NULL && i < t->n_layers * t->n_experts; i++)
    if (p->pin[i] > ILP_PIN_CPU)
      return hf_fail(HF_INPUT, "pin: layer %d expert %d: %d is no ilp_pin", i / t->n_experts, i % t->n_experts, p->pin[i]);
  return check_popularity(p);
}

int64_t ilp_place_room(const ilp_problem *p, int place, int depth) {
  const stage_table *t = p->table;
  int devices = t->one_resource ? 0 : t->n_devices;
  if (place == 0) return p->cpu_bytes > 0 ? p->cpu_bytes : INT64_MAX;
  if (place <= devices) return place <= p->n_devices ? p->device[place - 1].expert_bytes_free[depth - 1] : 0;
  int64_t remote = p->remote_bytes[place - 1 - devices];
  return remote == 0 ? INT64_MAX : remote > 0 ? remote : 0;
}

/* ---- the objective ---- */

typedef struct {
  const ilp_problem *p;
  const uint8_t *place;
  int depth, most, least, n_most; /* tokens of micro-batches: n_most of `most`, the others of `least` */
  double chunk;                   /* of a prompt, sum over layers */
} walk;

static const uint8_t *row_of(const walk *w, int layer) {
  const stage_table *t = w->p->table;
  return w->place != NULL && t->layer[layer].moe ? w->place + (size_t)layer * (size_t)t->n_experts : NULL;
}

void ilp_add_work(const stage_table *t, int layer, const layer_times *y, double times, double work[STAGE_MAX_PLACES]) {
  int home = t->one_resource ? 0 : 1 + t->layer[layer].home;
  work[home] += times * (y->attn_ns + y->shared_ns + y->dexp_ns);
  work[0] += times * y->cexp_ns;
  for (int q = 1; q < ilp_n_places(t); q++) work[q] += times * y->place_ns[q];
}

double ilp_chunk_ns(const stage_table *t, int layer, const layer_times *y, bool upload) {
  if (!upload) return ilp_way_ns(t, layer, y, NULL);
  double most = y->shared_ns + y->dexp_ns;
  for (int q = 1; q < ilp_n_places(t); q++) most = fmax(most, y->place_ns[q]);
  return fmax(y->attn_ns + most, y->upload_ns);
}

static void chunk_of_layer(walk *w, int layer, ilp_layer *y) {
  const ilp_problem *p = w->p;
  if (p->prefill.load.tokens <= 0) return;
  stage_load load = p->prefill.load;
  load.upload = false;
  popularity prompts = popularity_of_prompts(p->pop);
  layer_times times = stage_layer_times_load(p->table, &prompts, layer, &load, row_of(w, layer));
  double ns = ilp_chunk_ns(p->table, layer, &times, false);
  if (p->prefill.upload && p->table->layer[layer].moe && p->table->layer[layer].upload_ns > 0 && !p->table->one_resource) {
    load.upload = true;
    times = stage_layer_times_load(p->table, &prompts, layer, &load, row_of(w, layer));
    double up = times.upload_ns > 0 ? ilp_chunk_ns(p->table, layer, &times, true)
                                    : INFINITY; /* else nothing is sent: none lives on the CPU, or some elsewhere */
    y->upload = up < ns;
    ns = fmin(ns, up);
  }
  w->chunk += ns;
}

/* What sending the CPU's experts saves, over all layers marked, when a prompt's step has so many of the chunk's tokens. */
static double upload_saves_ns(const ilp_problem *p, const uint8_t *place, const uint8_t *upload, int tokens) {
  const stage_table *t = p->table;
  popularity prompts = popularity_of_prompts(p->pop);
  walk w = {.p = p, .place = place};
  stage_load load = p->prefill.load;
  double part = (double)tokens / load.tokens, saved = 0;
  load.tokens = tokens;
  load.query_context *= part;
  load.seq_context *= part;
  load.query_window *= part;
  load.seq_window *= part;
  for (int l = 0; l < t->n_layers; l++) {
    if (!upload[l]) continue;
    for (int up = 0; up < 2; up++) {
      load.upload = up == 1;
      layer_times y = stage_layer_times_load(t, &prompts, l, &load, row_of(&w, l));
      saved += (up == 1 ? -1 : 1) * ilp_chunk_ns(t, l, &y, up == 1);
    }
  }
  return saved;
}

int ilp_upload_tokens(const ilp_problem *p, const uint8_t *place, const uint8_t *upload) {
  int lo = 0, hi = p->prefill.load.tokens; /* with hi it pays: that is how the layers were marked */
  while (hi - lo > 1) {
    int mid = lo + (hi - lo) / 2;
    if (upload_saves_ns(p, place, upload, mid) > 0) hi = mid;
    else lo = mid;
  }
  return hi;
}

/* Finds what limits the step, and fills step_ns, binding, binding_place. share: of contention, added to each layer's part. */
static void limit_step(const stage_table *t, int depth, ilp_evaluation *r) {
  r->step_ns = r->path_ns;
  r->binding = ILP_BIND_PATH;
  r->binding_place = -1;
  if (depth == 1) return;
  for (int q = 1; q < ilp_n_places(t); q++)
    if (r->place_ns[q] > r->step_ns) {
      r->step_ns = r->place_ns[q];
      r->binding = binding_of_place(t, q);
      r->binding_place = q;
    }
  if (r->place_ns[0] > r->step_ns) {
    r->step_ns = r->place_ns[0];
    r->binding = ILP_BIND_CPU;
    r->binding_place = 0;
  }
}

/* Devices and the CPU disturb each other: work of layers at home there, not that done for other devices. */
static void limit_contended(const stage_table *t, const double *home_work, ilp_evaluation *r) {
  for (int q = 1; t->contend > 1 && q <= t->n_devices; q++) {
    double both = stage_overlap_ns(t, home_work[q], r->place_ns[0]);
    if (!(both > r->step_ns)) continue;
    r->step_ns = both;
    r->binding = home_work[q] > r->place_ns[0] ? ILP_BIND_GPU : ILP_BIND_CPU;
    r->binding_place = home_work[q] > r->place_ns[0] ? q : 0;
  }
}

static hf_status count_places(const walk *w, int layer, ilp_layer *y, ilp_evaluation *r) {
  const ilp_problem *p = w->p;
  const stage_table *t = p->table;
  size_t row = (size_t)layer * (size_t)t->n_experts;
  int devices = t->one_resource ? 0 : t->n_devices;
  for (int e = 0; t->layer[layer].moe && e < t->n_experts; e++) {
    int place = w->place != NULL ? w->place[row + (size_t)e] : 0, pin = p->pin != NULL ? p->pin[row + (size_t)e] : ILP_FREE;
    if (place >= ilp_n_places(t))
      return hf_fail(HF_INPUT, "placement: layer %d expert %d: place %d, but the stage table has %d", layer, e, place,
                     ilp_n_places(t));
    bool device = place > 0 && place <= devices;
    y->resident += device;
    r->place_bytes[place] += p->expert_bytes[layer];
    r->pins_broken += (pin == ILP_PIN_CPU && place != 0) || (pin == ILP_PIN_DEVICE && !device);
  }
  return HF_OK;
}

static void check_room(const ilp_problem *p, int depth, ilp_evaluation *r) {
  int devices = p->table->one_resource ? 0 : p->table->n_devices;
  r->over_place = -1;
  for (int q = 0; q < ilp_n_places(p->table); q++) {
    int64_t room = ilp_place_room(p, q, depth);
    if (r->place_bytes[q] > room && r->over_place < 0) r->over_place = q;
    if (q == 0 || q > devices) continue;
    r->bytes_used += r->place_bytes[q];
    r->bytes_limit += room;
  }
  r->fits = r->over_place < 0;
}

/* What each layer contributes to the limit, so that the parts add up. */
static void share_out(const walk *w, const ilp_evaluation *r, ilp_layer *layers) {
  const stage_table *t = w->p->table;
  for (int l = 0; l < t->n_layers && r->binding != ILP_BIND_PATH; l++) {
    double part = 0;
    for (int i = 0; i < 2; i++) {
      int times = i == 0 ? w->n_most : w->depth - w->n_most;
      if (times == 0) continue;
      double work[STAGE_MAX_PLACES] = {0};
      layer_times y = stage_layer_times(t, w->p->pop, l, i == 0 ? w->most : w->least, w->p->context, row_of(w, l));
      ilp_add_work(t, l, &y, times, work);
      part += work[r->binding_place];
    }
    layers[l].ns = part;
    layers[l].binding = r->binding;
  }
}

hf_status ilp_evaluate(const ilp_problem *p, const uint8_t *on_device, int depth, ilp_layer *layers, ilp_evaluation *out) {
  HF_TRY(ilp_check_problem(p));
  const stage_table *t = p->table;
  if (depth < 1 || depth > ILP_MAX_DEPTH || (t->one_resource && depth != 1))
    return hf_fail(HF_INPUT, "depth: %d is not between 1 and %d", depth, t->one_resource ? 1 : (int)ILP_MAX_DEPTH);
  walk w = {.p = p, .place = on_device, .depth = depth};
  ilp_evaluation r = {0};
  double home_work[STAGE_MAX_PLACES] = {0};
  w.most = (p->users + depth - 1) / depth;
  w.least = p->users / depth;
  w.n_most = w.most == w.least ? depth : p->users - depth * w.least;
  r.path_ns = t->step_fixed_ns + stage_curve_at(&t->head, w.most);
  for (int l = 0; l < t->n_layers; l++) {
    ilp_layer y = {0};
    HF_TRY(count_places(&w, l, &y, &r));
    y.times = stage_layer_times(t, p->pop, l, w.most, p->context, row_of(&w, l));
    y.ns = ilp_way_ns(t, l, &y.times, &y.binding);
    r.path_ns += y.ns;
    chunk_of_layer(&w, l, &y);
    if (layers != NULL) layers[l] = y;
    double work[STAGE_MAX_PLACES] = {0};
    ilp_add_work(t, l, &y.times, w.n_most, work);
    if (w.n_most < depth && w.least > 0) {
      layer_times less = stage_layer_times(t, p->pop, l, w.least, p->context, row_of(&w, l));
      ilp_add_work(t, l, &less, depth - w.n_most, work);
    }
    for (int q = 0; q < ilp_n_places(t); q++) r.place_ns[q] += work[q];
    home_work[1 + t->layer[l].home] += t->one_resource ? 0 : work[1 + t->layer[l].home];
  }
  int last = t->one_resource ? 0 : 1 + t->layer[t->n_layers - 1].home;
  double heads = w.n_most * stage_curve_at(&t->head, w.most);
  if (w.n_most < depth && w.least > 0) heads += (depth - w.n_most) * stage_curve_at(&t->head, w.least);
  r.place_ns[last] += heads;
  home_work[last] += heads;
  limit_step(t, depth, &r);
  if (depth > 1) limit_contended(t, home_work, &r);
  if (layers != NULL) share_out(&w, &r, layers);
  check_room(p, depth, &r);
  if (p->prefill.weight > 0 || p->limit.ttft_ns > 0) r.chunk_ns = t->step_fixed_ns + stage_curve_at(&t->head, 1) + w.chunk;
  r.objective_ns = r.step_ns + p->prefill.weight * r.chunk_ns;
  check_limits(p, &r);
  r.tok_per_s = r.step_ns > 0 ? p->users / (r.step_ns * 1e-9) : 0;
  *out = r;
  return HF_OK;
}
