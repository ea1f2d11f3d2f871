/* synth.h: weights made from (seed, tensor, row) alone, so that any row can be made again at any time, in any order, by any
 * thread. Private to model/. */
#ifndef HF_MODEL_SYNTH_H
#define HF_MODEL_SYNTH_H
#include "model/internal.h"

/* Slots of a synthetic model: matrices in `format` (F16 where a row is no multiple of the format's block), vectors and router
 * F32. */
HF_MUST hf_status synth_bind(model *m, uint64_t seed, fmt format);
/* Formats with synthetic weights: F32, F16, BF16 and those in blocks that base/blocks.h knows. */
bool synth_can(fmt f);
/* Rows [row0, row1) of one tensor, canonical layout. HF_UNSUPPORTED for formats without synthetic weights. */
HF_MUST hf_status synth_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t row0,
                             int64_t row1, void *dst);

/* "CONFIG,key=value,...": layers, experts, seed, format. */
typedef struct {
  char config[1024];
  int layers, experts;
  uint64_t seed;
  fmt format;
} synth_name;
HF_MUST hf_status synth_parse_name(const char *text, synth_name *out);
/* The config that `layers` and `experts` (0 = unchanged) make of another one; *out: json_free. */
HF_MUST hf_status synth_override_config(const json *config, const char *where, int layers, int experts, fmt format, json **out);
/* A model with slots and no weights yet; owned by the caller. */
HF_MUST hf_status synth_model(const json *config, const char *where, int layers, int experts, uint64_t seed, fmt format,
                              model **out);
#endif
