/* runtime.h: what the CUDA device (dev_cuda_new) asks of the CUDA runtime, as a table: filled by the runtime itself (cuda_runtime_open, where nvcc
 * built it) or by one that stands in for it in tests. Calls return the runtime's error number, 0 for none; after one that is sticky all fail.
 * None blocks for longer than the driver takes to queue work, but alloc, release and their like. Streams, events and graphs are the runtime's. */
#ifndef HF_KERNELS_CUDA_RUNTIME_H
#define HF_KERNELS_CUDA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_RT_NO_MEMORY = 2, CUDA_RT_NOT_READY = 600 };

/* An operation of ops.h behind one signature. */
typedef int cuda_call(const void *args, void *stream);

typedef struct {
  void *self;
  const char *(*text)(int error);
  int (*alloc)(void *self, size_t bytes, void **out); /* aligned to 256 */
  int (*release)(void *self, void *p);
  int (*host_alloc)(void *self, size_t bytes, void **out); /* page-locked, at the same address for both */
  int (*host_release)(void *self, void *p);
  int (*stream_new)(void *self, void **out);
  int (*stream_free)(void *self, void *stream);
  int (*event_new)(void *self, void **out);
  int (*event_free)(void *self, void *event);
  int (*event_record)(void *self, void *event, void *stream);
  int (*event_query)(void *self, void *event); /* CUDA_RT_NOT_READY: what was queued before it still runs */
  /* Queued on the stream, or between begin and end added to the recording; args are copied. */
  int (*call)(void *self, void *stream, cuda_call *fn, const void *args, size_t bytes);
  int (*wait)(void *self, void *stream,
              const void *args); /* hfc_wait_host: apart, as what stands in for a GPU lets other streams run meanwhile */
  int (*copy)(void *self, void *stream, void *dst, const void *src, size_t bytes);
  int (*host_call)(void *self, void *stream, void (*fn)(void *),
                   void *user); /* fn never blocks and calls nothing of this table */
  int (*record_begin)(void *self, void *stream);
  int (*record_end)(void *self, void *stream, void **graph); /* ends the recording whatever comes of it */
  int (*graph_launch)(void *self, void *graph, void *stream);
  int (*graph_free)(void *self, void *graph);
} cuda_runtime;

/* GPU number `device`; *bytes: its memory that is free. */
int cuda_runtime_open(int device, cuda_runtime *out, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
