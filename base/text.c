#include "base/text.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

int hf_utf8(const char *s, size_t n, uint32_t *cp) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000}; /* what a shorter sequence cannot say */
  const unsigned char *u = (const unsigned char *)s;
  if (n == 0) return 0;
  int length = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf5 ? 4 : 0;
  if (length == 0 || (size_t)length > n) return 0;
  uint32_t c = length == 1 ? u[0] : u[0] & (0xffu >> (length + 1));
  for (int i = 1; i < length; i++) {
    if ((u[i] & 0xc0) != 0x80) return 0;
    c = c << 6 | (u[i] & 0x3f);
  }
  if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
  if (cp) *cp = c;
  return length;
}

void hf_printable(char *s) {
  for (unsigned char *u = (unsigned char *)s; *u; u++) {
    if (*u < 0x20 || *u == 0x7f) *u = *u == '\n' || *u == '\t' ? ' ' : '?';
    else if (u[0] == 0xc2 && u[1] >= 0x80 && u[1] < 0xa0) u[0] = u[1] = '?';
  }
}

/* Levenshtein's table with neighbours that changed places as one change: three rows of it at a time. */
int hf_edit_distance(const char *a, size_t n_a, const char *b) {
  int rows[3][HF_EDIT_MAX + 1], *row = rows[0], *last = rows[1], *above = rows[2]; /* above: the row before the last */
  size_t n_b = strnlen(b, HF_EDIT_MAX + 1);
  if (n_a > HF_EDIT_MAX || n_b > HF_EDIT_MAX) return HF_EDIT_FAR;
  for (size_t j = 0; j <= n_b; j++) row[j] = (int)j;
  for (size_t i = 1; i <= n_a; i++) {
    int *free_row = above;
    above = last;
    last = row;
    row = free_row;
    row[0] = (int)i;
    for (size_t j = 1; j <= n_b; j++) {
      int change = last[j - 1] + (strncasecmp(&a[i - 1], &b[j - 1], 1) != 0);
      int gap = (last[j] < row[j - 1] ? last[j] : row[j - 1]) + 1;
      row[j] = change < gap ? change : gap;
      bool swapped = i > 1 && j > 1 && strncasecmp(&a[i - 1], &b[j - 2], 1) == 0 && strncasecmp(&a[i - 2], &b[j - 1], 1) == 0;
      if (swapped && above[j - 2] + 1 < row[j]) row[j] = above[j - 2] + 1;
    }
  }
  return row[n_b];
}
