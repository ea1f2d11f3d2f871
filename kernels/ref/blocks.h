/* blocks.h: one block of a quantised row taken apart, the common definition of dequantisation, of the reference products and of exact mode:
 *
 *     weight i = scale[i / group] * q[i] - min[i / group]
 *
 * with the product and the difference rounded to f32 each; formats without minima leave out the difference. Private to kernels. */
#ifndef HF_KERNELS_REF_BLOCKS_H
#define HF_KERNELS_REF_BLOCKS_H

#include "kernels/kernels.h"

enum { REF_BLOCK_MAX = 256 };

typedef struct {
  int8_t q[REF_BLOCK_MAX];
  float scale[16], min[16];
} ref_block;

typedef void ref_decode(const uint8_t *p, ref_block *b);

/* How a format's blocks are taken apart; decode NULL: the format has no blocks. */
typedef struct {
  ref_decode *decode;
  int group;
  bool has_min;
} ref_blocks;
const ref_blocks *ref_blocks_of(kern_format f);

/* blocks_32.c */
ref_decode ref_q8_0, ref_q4_0, ref_q4_1, ref_q5_0, ref_q5_1, ref_iq4_nl, ref_int4;
/* blocks_fp4.c */
ref_decode ref_mxfp4, ref_nvfp4;
/* blocks_k.c */
ref_decode ref_q2_k, ref_q3_k, ref_q4_k, ref_q5_k, ref_q6_k, ref_iq4_xs;
/* blocks_ternary.c */
ref_decode ref_tq1_0, ref_tq2_0;
/* blocks_iq.c */
ref_decode ref_iq1_s, ref_iq1_m, ref_iq2_xxs, ref_iq2_xs, ref_iq2_s, ref_iq3_xxs, ref_iq3_s;

/* The sixteen values of IQ4_NL and IQ4_XS. */
extern const int8_t ref_iq4_values[16];

/* The points of a codebook one after another, eight values each, those of IQ3 four. IQ1_S and IQ1_M share one; its values are eighths. */
typedef enum { BOOK_IQ1, BOOK_IQ2_XXS, BOOK_IQ2_XS, BOOK_IQ2_S, BOOK_IQ3_XXS, BOOK_IQ3_S, BOOK_N } ref_book;
const int8_t *ref_codebook(ref_book b);

#endif
