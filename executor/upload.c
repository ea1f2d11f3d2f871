/* upload.c: experts of the CPU that a prompt's step has sent to the device instead (device.h): which layers do, and the slots that they go through. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "executor/engine_int.h"

static const double NEARLY_ALL = 0.95;

/* Experts on other ranks are computed there, from what the CPU is signalled: such a layer asks the CPU for the others, too. */
static bool some_away(const engine_options *o, const model_config *c, int l) {
  for (int x = 0; x < c->n_experts; x++)
    if (expert_away(o, c->n_experts, l, x)) return true;
  return false;
}

static bool asks_for_upload(const engine_options *o, const model_config *c, int l) {
  if (o->upload_tokens <= 0 || !c->layer_is_moe[l]) return false;
  return !o->placement || strcmp(o->placement->layer[l].prefill, "upload") == 0;
}

bool layer_uploads(const engine_options *o, const model_config *c, int l) {
  return asks_for_upload(o, c, l) && !some_away(o, c, l);
}

bool any_slots(const engine *e) {
  for (int k = 0; k < e->n_devices; k++)
    if (e->device[k].ctx.slots) return true;
  return false;
}

bool engine_uploads(const engine *e, int tokens, bool prefills) {
  return prefills && e->o.upload_tokens > 0 && tokens >= e->o.upload_tokens && any_slots(e);
}

void uploads_need_whole_experts(engine *e) {
  if (e->nodes.parts.n == 1 || e->o.upload_tokens == 0) return;
  hf_log(HF_LOG_INFO, "experts are cut over %d NUMA nodes and cannot be sent to the device: the CPU computes prompts, too",
         e->nodes.parts.n);
  e->o.upload_tokens = 0;
}

/* What is asked for and not done. */
static void tell_not_uploaded(engine *e) {
  for (int l = 0; l < e->c.n_layers; l++) e->not_uploaded += asks_for_upload(&e->o, &e->c, l) && some_away(&e->o, &e->c, l);
  if (e->not_uploaded > 0)
    hf_log(HF_LOG_WARN, "prompts are not uploaded in %d layers: other ranks have experts of theirs", e->not_uploaded);
}

/* Slots of a device for experts of the layers that are at home there. */
static hf_status open_slots(engine *e, int k) {
  const model_config *c = &e->c;
  const size_t n = (size_t)c->n_experts;
  engine_device *v = &e->device[k];
  dev_context *x = &v->ctx;
  size_t largest = 0;
  for (int l = 0; l < c->n_layers; l++) {
    if (e->home[l] != k) continue;
    layer_weights *w = &e->layer[l];
    w->uploads = w->has_cpu_experts && layer_uploads(&e->o, c, l);
    for (size_t i = (size_t)l * n; w->uploads && i < ((size_t)l + 1) * n; i++) {
      const size_t bytes = e->host_experts[i].gate.data ? dev_slot_bytes(&e->host_experts[i], c->d_model, c->d_ff_expert) : 0;
      if (bytes > largest) largest = bytes;
    }
  }
  if (largest == 0) return HF_OK;
  HF_TRY(hf_alloc(&x->likely, (size_t)c->n_layers * n, 1, "experts to send"));
  /* before anything was routed: all, where a step that uploads leaves next to none out */
  if (expert_hit((double)c->top_k / c->n_experts, e->o.upload_tokens) >= NEARLY_ALL)
    memset(x->likely, 1, (size_t)c->n_layers * n);
  x->host_experts = e->host_experts;
  x->n_slots = e->o.upload_slots;
  x->slot_bytes = largest;
  const size_t all = largest * (size_t)x->n_slots * (size_t)e->o.depth;
  HF_TRY(dev_alloc(v->d, all, "slots for experts that are sent", &x->slots));
  return own_add_at(e, k, x->slots, all);
}

hf_status open_uploads(engine *e) {
  if (!engine_has_device(&e->o)) return HF_OK;
  tell_not_uploaded(e);
  for (int k = 0; k < e->n_devices; k++)
    if (!dev_is_host(e->device[k].d)) HF_TRY(open_slots(e, k));
  return HF_OK;
}
