/* hand.cu: the hand-over between a stream and the host by flags in host memory: a doorbell, and the wait that polls, one thread, with a deadline
 * by the device's clock. 4 bytes over the link a poll; limit: a round trip of the link, 1 to 2 us. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

static __global__ __launch_bounds__(1) void signal_host(hfc_signal a) {
  store_to_host(a.flag, a.value);
}

static __global__ __launch_bounds__(1) void wait_host(hfc_wait a) {
  const uint64_t start = device_clock_ns();
  while (load_from_host(a.flag) < a.value && load_from_host(a.error) == 0) {
    if (device_clock_ns() - start >= (uint64_t)*a.limit_ns) {
      store_to_host(a.error, a.value);
      return;
    }
    short_sleep();
  }
}

extern "C" int hfc_signal_host(const hfc_signal *a, void *stream) {
  return a->value < 1 ? HFC_INVALID : HFC_LAUNCH(signal_host, dim3(1), dim3(1), 0, stream, *a);
}

extern "C" int hfc_wait_host(const hfc_wait *a, void *stream) {
  return a->value < 1 ? HFC_INVALID : HFC_LAUNCH(wait_host, dim3(1), dim3(1), 0, stream, *a);
}
