/* blocks.h: random weights in block formats. Random bytes are valid quants in every one of them; their scales are not, so those are put in. */
#ifndef HF_BASE_BLOCKS_H
#define HF_BASE_BLOCKS_H
#include <stdbool.h>
#include <stdint.h>

/* row: n_cols weights (a multiple of the block) of random bytes in the format `name` ("q4_k", as in the database). Replaces the scales by
 * finite ones, drawn from the bytes that were there, so that the weights spread over about ±half. half: 1e-4 to 1e2. false: the format has no
 * blocks or is not known here; the row is as it was. */
bool hf_block_scales(const char *name, uint8_t *row, int64_t n_cols, float half);
/* First block of row (n_cols weights) whose scale is no finite number, or -1. *known false: the format is not known here. */
int64_t hf_block_bad(const char *name, const uint8_t *row, int64_t n_cols, bool *known);
#endif
