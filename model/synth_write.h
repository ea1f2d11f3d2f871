/* synth_write.h: pieces of the two writers of synthetic models. Private to model/. */
#ifndef HF_MODEL_SYNTH_WRITE_H
#define HF_MODEL_SYNTH_WRITE_H
#include <stdio.h>

#include "model/synth.h"

typedef struct {
  FILE *f;
  const char *path;
  uint8_t *chunk;
  uint64_t at; /* bytes written */
} synth_out;
HF_MUST hf_status sw_open(synth_out *o, const char *path);
/* Closes; after a failure (st or of closing) the file is removed. */
HF_MUST hf_status sw_close(synth_out *o, hf_status st);
HF_MUST hf_status sw_put(synth_out *o, const void *p, size_t n);
HF_MUST hf_status sw_pad(synth_out *o, uint64_t align); /* align <= 64 */
/* Rows of a canonical tensor as synth_read makes them. */
HF_MUST hf_status sw_rows(synth_out *o, const model *m, model_tensor_id id, int layer, int expert, int64_t row0, int64_t row1);

/* Token i of the minimal byte-level vocabulary: the 256 bytes in byte-level BPE's alphabet, " t" for its one merge, unused
 * fillers, begin and end last. kind: GGUF's token type, 1 normal, 3 control, 5 unused. */
void synth_token(int i, int vocab_size, char buf[32], int *kind);

/* m is a synthetic model (synth_model). */
HF_MUST hf_status synth_write_gguf(const model *m, const json *config, const char *where, const char *path);
HF_MUST hf_status synth_write_folder(const model *m, const json *config, const char *where, const model_synth_options *o,
                                     const char *folder);
#endif
