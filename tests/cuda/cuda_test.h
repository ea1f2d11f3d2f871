/* cuda_test.h: what tests of the CUDA kernels share: numbers from a seed, device memory filled with them. */
#ifndef HF_TESTS_CUDA_CUDA_TEST_H
#define HF_TESTS_CUDA_CUDA_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/host/host.h"
#include "kernels/cuda/ops.h"
#include "kernels/kernels.h"

/* From -1 to 1. */
static inline float number(void) {
  static uint64_t s = 88172645463325252u;
  s ^= s << 13, s ^= s >> 7, s ^= s << 17;
  return (float)(int32_t)(s >> 32) * 0x1p-31f;
}

static inline void *device(size_t bytes, const char *name) {
  void *p = hfc_host_alloc(bytes, name);
  assert_non_null(p);
  return p;
}

static inline float *random_floats(int n, float by, const char *name) {
  float *p = device((size_t)n * sizeof *p, name);
  for (int i = 0; i < n; i++) p[i] = by * number();
  return p;
}

#define RUN(call)                                                  \
  do {                                                             \
    const int rc_ = (call);                                        \
    if (rc_) fail_msg("%s: %d: %s", #call, rc_, hfc_host_fault()); \
  } while (0)

static inline void assert_near(float got, float want, float by, const char *what, int i) {
  if (!(fabsf(got - want) <= by)) fail_msg("%s [%d]: %.9g, reference %.9g", what, i, (double)got, (double)want);
}
#endif
