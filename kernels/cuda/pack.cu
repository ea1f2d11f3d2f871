/* pack.cu: rows rounded as a weight format wants its activations. 4 bytes read and about 1.3 (Q8B32), 2 or 4 written a number; limit: latency of a
 * launch at decode. */
#include "kernels/cuda/pack.cuh"

static __global__ __launch_bounds__(256) void pack_rows(hfc_pack a) {
  const int t = (int)blockIdx.x;
  if (a.count && t >= *a.count) return;
  const float *x = a.x + (size_t)t * a.x_stride;
  pack_row(a.act, a.n, (char *)a.packed + (size_t)t * a.packed_bytes, [x](int i) { return x[i]; });
}

extern "C" int hfc_pack_rows(const hfc_pack *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1 || a->act < HFC_F32 || a->act > HFC_Q8B32) return HFC_INVALID;
  return HFC_LAUNCH(pack_rows, dim3((unsigned)a->n_tok), dim3(256), 0, stream, *a);
}
