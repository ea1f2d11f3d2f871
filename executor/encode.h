/* encode.h: all tensors of an export (model/export.h) into one file, by all threads of a pool, with the error of each part. */
#ifndef HF_EXECUTOR_ENCODE_H
#define HF_EXECUTOR_ENCODE_H

#include <signal.h>

#include "kernels/mem/pool.h"
#include "model/export.h"

/* Error of a tensor: root of (sum of squared differences / sum of squares), both over what was encoded; copied bytes have none. */
typedef struct {
  double diff2, sum2;
  bool copied;
} encode_error;

/* HF_UNSUPPORTED for a tensor that would have to be turned into a format that cannot be written, or out of one that cannot be read. */
HF_MUST hf_status encode_check(const model_export *e);
/* Writes every tensor of e at its offset of fd. err [model_export_count]. Memory: per thread two pieces of 4 MiB, or twice the largest matrix
 * that can only be read whole; encode_buffer_bytes says how much. HF_INPUT: a value that is no number or does not fit the format, with file and tensor;
 * HF_MACHINE: reading or writing failed, or *stop was set. */
HF_MUST hf_status encode_run(const model_export *e, pool *p, int fd, const char *path, const volatile sig_atomic_t *stop,
                             encode_error *err);
int64_t encode_buffer_bytes(const model_export *e, int threads);
#endif
