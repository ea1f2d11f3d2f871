/* shim_kernels.h: kernels that the test of the shim runs; most of them are wrong on purpose. */
#ifndef HF_TESTS_CUDA_SHIM_KERNELS_H
#define HF_TESTS_CUDA_SHIM_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

/* out[block] = sum of a block's 256 numbers through shared memory; out: one a block. */
int shim_reduce(const float *x, int n, float *out);
/* Inclusive sums of 32 numbers, by shuffles. */
int shim_scan(const int *x, int *out);
/* Lanes whose number is above 0, by a vote; counts also through an atomic. */
int shim_vote(const int *x, unsigned *ballot, int *count);
/* Values through dynamic shared memory, back to front. */
int shim_reverse(const int *x, int n, int *out);

typedef enum {
  SHIM_GOOD,
  SHIM_READ_PAST,    /* thread 63 of block 1 reads one number too far */
  SHIM_WRITE_BEFORE, /* thread 0 of block 0 writes one too early */
  SHIM_WRITE_CONSTANT,
  SHIM_MISALIGNED,  /* a word at an odd address */
  SHIM_SHARED_PAST, /* one element behind a shared array */
  SHIM_DYNAMIC_PAST,
  SHIM_TABLE_PAST,   /* one behind a constant table */
  SHIM_WILD,         /* address 64 */
  SHIM_DIVERGENT,    /* half of the block misses a barrier */
  SHIM_TWO_BARRIERS, /* halves of the block wait at different ones */
  SHIM_MISSING_LANE, /* lane 5 does not come to a shuffle */
  SHIM_FOREIGN_LANE, /* a shuffle from outside its mask */
  SHIM_RACE,         /* written and read with no barrier between, across warps */
  SHIM_RACE_IN_WARP,
  SHIM_UNWRITTEN, /* shared memory that nobody wrote: NaN comes out, no fault */
  SHIM_N
} shim_mistake;
/* x, out: 128 numbers, two blocks of 64 threads. */
int shim_wrong(shim_mistake what, const float *x, float *out);

#ifdef __cplusplus
}
#endif
#endif
