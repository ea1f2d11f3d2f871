/* products.h: candidates for matrix products that oneDNN computes; private to kernels. They take part in measurements, and where a plan or a profile
 * says that they are fastest, in the work; nothing takes them by itself.
 *
 *     f32, bf16    weights as they lie, BF16 in tiles copied into wider ones, a line at a time
 *     onednn       any other format: weights and activations turned into F32, 64 rows at a time: rounds as the format's contract says
 *     rounded      the same in BF16: weights and activations are rounded once more than the contract has it
 *
 * For many tokens; fewer than 16 are filled up with zeros. Whatever fails (no library, no memory, a shape that it has not or whose bits depend on the
 * place in a call) is computed by the own product that would have been taken otherwise. */
#ifndef HF_KERNELS_ONEDNN_PRODUCTS_H
#define HF_KERNELS_ONEDNN_PRODUCTS_H

#include "kernels/kernels.h"

kern_mm_fn kern_mm_f32_onednn, kern_mm_bf16_onednn, kern_mm_any_onednn, kern_mm_rounded_onednn;
/* Would fn compute columns of this number by the library (as far as is known before it was tried)? */
bool kern_onednn_accepts(kern_mm_fn *fn, int n_cols);

#endif
