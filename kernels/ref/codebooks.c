/* codebooks.c: from the sets of points to the points, once, when the first block asks. */
#include <pthread.h>

#include "kernels/ref/blocks.h"
#include "kernels/ref/codebook_tables.h"

static const int8_t eighths[] = {-8, 0, 8}, three[] = {8, 25, 43}, eight[] = {4, 12, 20, 28, 36, 44, 52, 62},
                    odd[] = {1, 3, 5, 7, 9, 11, 13, 15};

static int8_t iq1[2048 * 8], iq2_xxs[256 * 8], iq2_xs[512 * 8], iq2_s[1024 * 8], iq3_xxs[256 * 4], iq3_s[512 * 4];

static const struct {
  int8_t *points;
  const uint64_t *members;
  const int8_t *level; /* what a digit stands for */
  int base, width;     /* digits 0..base-1, so many a point, the first one counting least */
} books[BOOK_N] = {
    [BOOK_IQ1] = {iq1, iq1_members, eighths, 3, 8},           [BOOK_IQ2_XXS] = {iq2_xxs, iq2_xxs_members, three, 3, 8},
    [BOOK_IQ2_XS] = {iq2_xs, iq2_xs_members, three, 3, 8},    [BOOK_IQ2_S] = {iq2_s, iq2_s_members, three, 3, 8},
    [BOOK_IQ3_XXS] = {iq3_xxs, iq3_xxs_members, eight, 8, 4}, [BOOK_IQ3_S] = {iq3_s, iq3_s_members, odd, 8, 4},
};

static void unfold(void) {
  for (int b = 0; b < BOOK_N; b++) {
    int8_t *to = books[b].points;
    int numbers = 1;
    for (int i = 0; i < books[b].width; i++) numbers *= books[b].base;
    for (int n = 0; n < numbers; n++) {
      if (!(books[b].members[n / 64] >> n % 64 & 1)) continue;
      for (int i = 0, rest = n; i < books[b].width; i++, rest /= books[b].base) *to++ = books[b].level[rest % books[b].base];
    }
  }
}

const int8_t *ref_codebook(ref_book b) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, unfold);
  return books[b].points;
}
