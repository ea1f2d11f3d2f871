/* bind.c: what both binders share: slots and the check of a stored tensor against the canonical shape. */
#include <stdio.h>

#include "model/internal.h"

hf_status slots_alloc(model *m) {
  return hf_alloc(&m->slots, (size_t)(m->c.n_layers + 1) * MT_N, sizeof *m->slots, "tensor index");
}

/* "[16, 64]" */
static const char *dims_text(const raw_tensor *t, char *buf, size_t n) {
  size_t k = 0;
  for (int i = 0; i < t->n_dims && k < n; i++)
    k += (size_t)snprintf(buf + k, n - k, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
  return buf;
}

fmt slots_expert_format(const model *m) {
  int i = 0;
  while (i + 1 < m->c.n_layers && !m->c.layer_is_moe[i]) i++; /* config_check: some layer has experts */
  return model_slot(m, m->c.n_experts > 0 ? MT_EXP_GATE : MT_GATE, i)->format;
}

hf_status slot_set(model *m, tensor_slot *s, const raw_tensor *t, model_tensor_id id, int64_t rows, int64_t cols) {
  const char *path = m->set.files[t->file].path;
  if (t->format < 0 || t->format >= FMT_N)
    return hf_fail(HF_INPUT, "%s: tensor %s: dtype %s holds no weights", path, t->name, t->dtype);
  int64_t inner = t->n_dims ? t->dims[t->n_dims - 1] : 1, outer = 1;
  for (int i = 0; i + 1 < t->n_dims; i++) outer *= t->dims[i]; /* no overflow: raw_bytes */
  int64_t n = tensor_is_expert(id) && s->expert_stride ? m->c.n_experts : 1;
  if (inner != cols || outer != rows * n) {
    char buf[128];
    return hf_fail(HF_INPUT, "%s: tensor %s: shape [%s], the config demands [%s%lld, %lld]", path, t->name,
                   dims_text(t, buf, sizeof buf), n > 1 ? "experts, " : "", (long long)rows, (long long)cols);
  }
  s->present = true;
  s->how = READ_DIRECT;
  s->format = s->stored = t->format;
  s->rows = rows;
  s->cols = cols;
  s->bytes = (uint64_t)rows * fmt_row_bytes(t->format, cols);
  s->file = t->file;
  s->offset = t->offset;
  if (s->expert_stride) s->expert_stride = s->bytes;
  return HF_OK;
}
