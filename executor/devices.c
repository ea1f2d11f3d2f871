/* devices.c: see devices.h. */
#include "executor/devices.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

static bool has_device(const engine_options *o) {
  return strcmp(o->gpu, "none") != 0;
}

int devices_of(const engine_options *o) {
  return has_device(o) ? 1 + o->more_devices : 1;
}

int64_t device_size(const engine_options *o, int k) {
  return k == 0 ? o->device_bytes : o->more_bytes[k - 1];
}

void device_name(int k, char out[8]) {
  snprintf(out, 8, "gpu%d", k);
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
  return o->placement ? o->placement->layer[layer].home : by_sizes(c, o, layer);
}

/* The plan's, or an even spread of a percentage per layer. */
int device_of_expert(const model_config *c, const engine_options *o, int l, int x) {
  if (!has_device(o)) return -1;
  if (o->placement) {
    const int16_t *device = o->placement->layer[l].device;
    return device && device[x] >= 0 && !plan_rank(o->placement, device[x]) ? device[x] : -1;
  }
  int n = (int)(o->experts_on_gpu_percent / 100.0 * c->n_experts + 0.5);
  const bool there = (int64_t)(x + 1) * n / c->n_experts > (int64_t)x * n / c->n_experts;
  return there ? device_of_layer(c, o, l) : -1;
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

hf_status devices_check(const model_config *c, const engine_options *o) {
  int parts = 0;
  if (o->more_devices < 0 || o->more_devices > ENGINE_DEVICES - 1)
    return hf_fail(HF_INPUT, "engine: %d devices: 1 to %d are possible", 1 + o->more_devices, (int)ENGINE_DEVICES);
  for (int l = 0; l < c->n_layers; l++) {
    const int home = device_of_layer(c, o, l);
    if (home < 0 || home >= devices_of(o))
      return hf_fail(HF_INPUT, "plan: layers[%d].home: gpu%d, but there are %d devices (--gpu)", l, home, devices_of(o));
    for (int x = 0; c->layer_is_moe[l] && x < c->n_experts; x++) {
      const int k = device_of_expert(c, o, l, x);
      if (k >= 0 && k != home)
        return hf_fail(
            HF_UNSUPPORTED,
            "plan: placement[%d]: expert %d is on gpu%d and the layer on gpu%d: experts run on their layer's device or on a CPU",
            l, x, k, home);
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

hf_status part_launch(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  mb->answered = mb->beats = 0;
  mb->step.goes_on = mb->part > 0;
  if (mb->part == 0) mb->traced = 0;
  const hf_status st = dev_launch(device_at_work(e, i)->d, mb->rec[mb->part], &mb->step);
  return st == HF_LOST ? engine_lost(e) : st;
}

bool part_end(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  for (; mb->traced < mb->step.n_trace; mb->traced++) mb->step.trace[mb->traced].device = e->part[mb->part].device;
  if (mb->part + 1 == e->n_parts) return true;
  mb->part++;
  return false;
}
