/* tokenizer_nfc.c: Unicode normalisation form C (Unicode Standard Annex 15): decompose, order the combining marks, compose. */
#include "base/text.h"
#include "model/tokenizer_int.h"

#include "model/tokenizer_nfc_table.h"

#include <stdlib.h>
#include <string.h>

enum {
  N_DECOMP = sizeof nfc_decomp / sizeof *nfc_decomp,
  N_COMP = sizeof nfc_comp / sizeof *nfc_comp,
  N_CLASS = sizeof nfc_class / sizeof *nfc_class
};
/* Hangul syllables are laid out so that arithmetic composes them. */
enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_N = 19, V_N = 21, T_N = 28, S_N = L_N * V_N * T_N };

typedef struct {
  uint32_t *cp;
  size_t n, cap;
} points;

static hf_status push(points *p, uint32_t cp) {
  if (p->n == p->cap) {
    size_t cap = p->cap ? 2 * p->cap : 256;
    HF_TRY(hf_realloc(&p->cp, cap, sizeof *p->cp, "a text to normalise"));
    p->cap = cap;
  }
  p->cp[p->n++] = cp;
  return HF_OK;
}

static uint32_t class_of(uint32_t cp) {
  if (cp < 0x300) return 0;
  size_t lo = 0, hi = N_CLASS;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (nfc_class[mid].last < cp) lo = mid + 1;
    else hi = mid;
  }
  return lo < N_CLASS && nfc_class[lo].first <= cp ? nfc_class[lo].ccc : 0;
}

static hf_status decompose(points *p, uint32_t cp) {
  if (cp < 0xc0) return push(p, cp);
  if (cp - S_BASE < S_N) {
    uint32_t s = cp - S_BASE;
    HF_TRY(push(p, L_BASE + s / (V_N * T_N)));
    HF_TRY(push(p, V_BASE + s % (V_N * T_N) / T_N));
    return s % T_N ? push(p, T_BASE + s % T_N) : HF_OK;
  }
  size_t lo = 0, hi = N_DECOMP;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (nfc_decomp[mid].cp < cp) lo = mid + 1;
    else hi = mid;
  }
  if (lo == N_DECOMP || nfc_decomp[lo].cp != cp) return push(p, cp);
  HF_TRY(decompose(p, nfc_decomp[lo].a)); /* the table is at most four deep, only through a */
  return nfc_decomp[lo].b ? decompose(p, nfc_decomp[lo].b) : HF_OK;
}

/* Stable by class, linear however long the run of marks is. */
static hf_status order_run(uint32_t *cp, size_t n) {
  uint32_t start[257] = {0};
  uint32_t *sorted = NULL;
  HF_TRY(hf_alloc(&sorted, n, sizeof *sorted, "combining marks"));
  for (size_t i = 0; i < n; i++) start[class_of(cp[i]) + 1]++;
  for (int c = 1; c < 257; c++) start[c] += start[c - 1];
  for (size_t i = 0; i < n; i++) sorted[start[class_of(cp[i])]++] = cp[i];
  memcpy(cp, sorted, n * sizeof *cp);
  free(sorted);
  return HF_OK;
}

static hf_status order_marks(points *p) {
  for (size_t i = 0; i < p->n;) {
    size_t end = i;
    bool sorted = true;
    uint32_t before = 0;
    for (uint32_t c; end < p->n && (c = class_of(p->cp[end])) != 0; end++, before = c) sorted &= before <= c;
    if (!sorted) HF_TRY(order_run(p->cp + i, end - i));
    i = end > i ? end : i + 1;
  }
  return HF_OK;
}

/* 0 = the two do not compose */
static uint32_t compose_pair(uint32_t a, uint32_t b) {
  if (a - L_BASE < L_N && b - V_BASE < V_N) return S_BASE + ((a - L_BASE) * V_N + (b - V_BASE)) * T_N;
  if (a - S_BASE < S_N && (a - S_BASE) % T_N == 0 && b > T_BASE && b < T_BASE + T_N) return a + (b - T_BASE);
  size_t lo = 0, hi = N_COMP;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    uint32_t x = nfc_decomp[nfc_comp[mid]].a, y = nfc_decomp[nfc_comp[mid]].b;
    if (x < a || (x == a && y < b)) lo = mid + 1;
    else hi = mid;
  }
  if (lo == N_COMP || nfc_decomp[nfc_comp[lo]].a != a || nfc_decomp[nfc_comp[lo]].b != b) return 0;
  return nfc_decomp[nfc_comp[lo]].cp;
}

/* A mark joins the last starter unless one of the same or a higher class stands between them. */
static void compose(points *p) {
  size_t out = 0, starter = 0;
  bool have = false;
  uint32_t last = 0; /* class of the last character kept after the starter */
  for (size_t i = 0; i < p->n; i++) {
    uint32_t cp = p->cp[i], c = class_of(cp);
    bool next_to = have && out == starter + 1;
    uint32_t joined = have && (next_to || last < c) ? compose_pair(p->cp[starter], cp) : 0;
    if (joined) {
      p->cp[starter] = joined;
      continue;
    }
    if (c == 0) {
      starter = out;
      have = true;
    }
    last = c;
    p->cp[out++] = cp;
  }
  p->n = out;
}

static hf_status put_utf8(hf_buf *out, uint32_t c) {
  char s[4];
  size_t n;
  if (c < 0x80) n = 1, s[0] = (char)c;
  else if (c < 0x800) n = 2, s[0] = (char)(0xc0 | c >> 6);
  else if (c < 0x10000) n = 3, s[0] = (char)(0xe0 | c >> 12);
  else n = 4, s[0] = (char)(0xf0 | c >> 18);
  for (size_t i = 1; i < n; i++) s[i] = (char)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
  return hf_buf_add(out, s, n);
}

hf_status tok_nfc(const char *text, size_t n, hf_buf *out, bool *same) {
  points p = {NULL, 0, 0};
  hf_status st = HF_OK;
  size_t at = 0;
  uint32_t cp = 0;
  *same = true;
  /* below U+0300 nothing decomposes for good or composes, so most texts end here */
  for (int len; at < n && (len = hf_utf8(text + at, n - at, &cp)) > 0 && cp < 0x300;) at += (size_t)len;
  if (at == n) return HF_OK;
  at = 0;
  for (int len; at < n && (len = hf_utf8(text + at, n - at, &cp)) > 0; at += (size_t)len) HF_GO(out, decompose(&p, cp));
  HF_GO(out, order_marks(&p));
  compose(&p);
  size_t before = out->len;
  for (size_t i = 0; i < p.n; i++) HF_GO(out, put_utf8(out, p.cp[i]));
  *same = out->len - before == n && memcmp(out->data + before, text, n) == 0;
  if (*same) out->len = before;
out:
  free(p.cp);
  return st;
}
