/* check.h: what the parts of check_kernels share: a seeded generator, memory that ends at a forbidden page, counters. */
#ifndef HF_TESTS_KERNELS_CHECK_H
#define HF_TESTS_KERNELS_CHECK_H

#include "kernels/kernels.h"

/* Kinds of data; every check runs over all of them. */
typedef enum { DATA_RANDOM, DATA_EXTREME, DATA_ZERO, DATA_SUBNORMAL, DATA_LARGEST, DATA_N } data_kind;
const char *data_name(data_kind k);

uint32_t rnd(void);
int rnd_between(int lo, int hi); /* both included */
float rnd_value(data_kind k);

/* n bytes that end exactly where a page begins that may not be touched, so that one byte too far is a crash at the culprit.
 * Aligned to `align` when n is a multiple of it. */
void *guarded(size_t n);
void guarded_free(void *p, size_t n);

/* Floats with a band of canaries on both sides; canary_broken() says whether any changed. */
enum { CANARIES = 32 };
float *canary_new(int n);
bool canary_broken(const float *p, int n);
void canary_free(float *p);

/* Counts a check; prints the message when it failed. Returns ok. */
bool expect(bool ok, const char *fmt, ...) HF_PRINTF(2, 3);
int checks_failed(void);
long checks_made(void);

/* One product against sums in double over all shapes, and its batch invariance. */
void check_candidate(const kern_mm_candidate *c);
/* Two products of one format and layout give the same bits. */
void check_same_bits(const kern_mm_candidate *a, const kern_mm_candidate *b);
void check_products(unsigned mask, const char *only);
void check_amx(unsigned have, const char *only);
void check_operations(unsigned mask, const char *mask_name);
void time_everything(const char *only);

#endif
