/* runtime.h: a CUDA runtime that stands in for the real one (kernels/cuda/runtime.h) where there is no GPU: streams are queues, each run by a thread
 * of its own at random paces, so streams meet in any order that events allow; kernels run through kernels/cuda/host, one at a time, with their
 * memory checked. Errors are sticky, as the real ones are; hangs end when the test says so. */
#ifndef HF_TESTS_CUDA_STAND_IN_RUNTIME_H
#define HF_TESTS_CUDA_STAND_IN_RUNTIME_H

#include "kernels/cuda/runtime.h"

typedef struct stand_in stand_in;

stand_in *stand_in_open(unsigned seed, cuda_runtime *rt);
/* Item number n (from 1, over all streams, kernels, copies and host nodes; 0: never) ends with this error, or does not end. From now on. */
void stand_in_fail(stand_in *x, int64_t n, int error);
void stand_in_hang(stand_in *x, int64_t n);
void stand_in_refuse(stand_in *x, int64_t n); /* allocation number n finds no memory */
int64_t stand_in_items(stand_in *x);          /* run so far */
int64_t stand_in_graphs(stand_in *x);         /* recorded so far */
/* Ends hangs and all threads. What the device left unfreed: allocations, streams, events and graphs; it is freed here. */
int stand_in_close(stand_in *x);

#endif
