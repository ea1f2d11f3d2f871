/* evaluate.c: the one definition of the objective, and the checks of a problem. */
#include "planner/ilp/ilp_int.h"

#include <math.h>

const char *ilp_binding_name(ilp_binding b) {
  return b == ILP_BIND_CPU ? "cpu" : b == ILP_BIND_GPU ? "gpu" : "path";
}

double ilp_layer_ns(const stage_table *t, const layer_times *times, bool moe, int depth, ilp_binding *binding) {
  double attn = times->attn_ns, side = times->shared_ns + times->dexp_ns, cpu = times->hand_ns + times->cexp_ns;
  ilp_binding b = ILP_BIND_GPU;
  double ns;
  if (t->one_resource) {
    b = ILP_BIND_CPU;
    ns = depth * (attn + times->shared_ns + times->cexp_ns);
  } else if (!moe) {
    ns = depth * (attn + times->shared_ns);
  } else if (depth == 1) {
    if (cpu > side) b = ILP_BIND_CPU;
    ns = attn + fmax(side, cpu);
  } else {
    ns = depth * (attn + side);
    if (depth * times->cexp_ns > ns) {
      b = ILP_BIND_CPU;
      ns = depth * times->cexp_ns;
    }
    double path = attn + fmax(side, cpu);
    if (path > ns) {
      b = ILP_BIND_PATH;
      ns = path;
    }
  }
  if (binding != NULL) *binding = b;
  return ns;
}

static hf_status check_popularity(const ilp_problem *p) {
  const stage_table *t = p->table;
  for (int l = 0; l < t->n_layers; l++) {
    if (!t->layer[l].moe) continue;
    for (int e = 0; e < t->n_experts; e++) {
      double v = p->pop->p[(size_t)l * (size_t)t->n_experts + (size_t)e];
      if (!(v >= 0 && v <= 1))
        return hf_fail(HF_INPUT, "popularity: layer %d expert %d: %g is no probability between 0 and 1", l, e, v);
    }
    if (p->expert_bytes[l] < 1)
      return hf_fail(HF_INPUT, "expert_bytes: layer %d: %lld is no size; an expert has at least 1 byte", l,
                     (long long)p->expert_bytes[l]);
  }
  return HF_OK;
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
  if (p->n_devices < 0) return hf_fail(HF_INPUT, "n_devices: %d is below the least allowed, 0", p->n_devices);
  if (p->n_devices > ILP_MAX_DEVICES)
    return hf_fail(HF_UNSUPPORTED, "n_devices: %d devices; experts are placed on at most %d", p->n_devices, (int)ILP_MAX_DEVICES);
  for (int i = 0; p->pin != NULL && i < t->n_layers * t->n_experts; i++)
    if (p->pin[i] > ILP_PIN_CPU)
      return hf_fail(HF_INPUT, "pin: layer %d expert %d: %d is no ilp_pin", i / t->n_experts, i % t->n_experts, p->pin[i]);
  return check_popularity(p);
}

int64_t ilp_capacity_bytes(const ilp_problem *p, int depth) {
  return p->n_devices == 0 || p->table->one_resource ? 0 : p->device[0].expert_bytes_free[depth - 1];
}

hf_status ilp_evaluate(const ilp_problem *p, const uint8_t *on_device, int depth, ilp_layer *layers, ilp_evaluation *out) {
  HF_TRY(ilp_check_problem(p));
  const stage_table *t = p->table;
  if (depth < 1 || depth > ILP_MAX_DEPTH || (t->one_resource && depth != 1))
    return hf_fail(HF_INPUT, "depth: %d is not between 1 and %d", depth, t->one_resource ? 1 : (int)ILP_MAX_DEPTH);
  ilp_evaluation r = {.bytes_limit = ilp_capacity_bytes(p, depth)};
  int tokens = (p->users + depth - 1) / depth;
  double sum = t->step_fixed_ns + stage_curve_at(&t->head, p->users);
  for (int l = 0; l < t->n_layers; l++) {
    size_t row = (size_t)l * (size_t)t->n_experts;
    bool moe = t->layer[l].moe;
    ilp_layer y = {0};
    for (int e = 0; moe && e < t->n_experts; e++) {
      bool dev = on_device != NULL && on_device[row + (size_t)e] != 0;
      int pin = p->pin != NULL ? p->pin[row + (size_t)e] : ILP_FREE;
      y.resident += dev;
      r.pins_broken += dev ? pin == ILP_PIN_CPU : pin == ILP_PIN_DEVICE;
    }
    if (t->one_resource && y.resident > 0)
      return hf_fail(HF_INPUT, "placement: layer %d: %d experts on a device, but the stage table has none", l, y.resident);
    y.times = stage_layer_times(t, p->pop, l, tokens, p->context, moe && on_device != NULL ? on_device + row : NULL);
    y.ns = ilp_layer_ns(t, &y.times, moe, depth, &y.binding);
    r.bytes_used += moe ? y.resident * p->expert_bytes[l] : 0;
    sum += y.ns;
    if (layers != NULL) layers[l] = y;
  }
  r.objective_ns = sum;
  r.tok_per_s = sum > 0 ? p->users / (sum * 1e-9) : 0;
  r.fits = r.bytes_used <= r.bytes_limit;
  *out = r;
  return HF_OK;
}
