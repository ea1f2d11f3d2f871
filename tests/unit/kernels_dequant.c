/* Rows to f32 bit for bit as the reference data has them, and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/blocks.h"
#include "base/json.h"
#include "kernels/kernels.h"

enum { VALUES = 2048 };

static char *read_golden(const char *type, const char *ending, size_t *n) {
  char path[512];
  char *data = NULL;
  snprintf(path, sizeof path, "%s/tests/golden/dequant/%s.%s", HF_SOURCE_DIR, type, ending);
  assert_int_equal(hf_read_file(path, 1 << 20, &data, n), HF_OK);
  return data;
}

static void golden_rows_are_bit_exact(void **state) {
  (void)state;
  static const struct {
    const char *type;
    kern_format format;
  } types[] = {{"F32", KF_F32},     {"F16", KF_F16},        {"BF16", KF_BF16},       {"Q8_0", KF_Q8_0},
               {"Q4_0", KF_Q4_0},   {"Q4_1", KF_Q4_1},      {"Q5_0", KF_Q5_0},       {"Q5_1", KF_Q5_1},
               {"Q2_K", KF_Q2_K},   {"Q3_K", KF_Q3_K},      {"Q4_K", KF_Q4_K},       {"Q5_K", KF_Q5_K},
               {"Q6_K", KF_Q6_K},   {"IQ4_NL", KF_IQ4_NL},  {"IQ4_XS", KF_IQ4_XS},   {"MXFP4", KF_MXFP4},
               {"NVFP4", KF_NVFP4}, {"TQ1_0", KF_TQ1_0},    {"TQ2_0", KF_TQ2_0},     {"IQ1_S", KF_IQ1_S},
               {"IQ1_M", KF_IQ1_M}, {"IQ2_XS", KF_IQ2_XS},  {"IQ2_XXS", KF_IQ2_XXS}, {"IQ2_S", KF_IQ2_S},
               {"IQ3_S", KF_IQ3_S}, {"IQ3_XXS", KF_IQ3_XXS}};
  assert_int_equal(sizeof types / sizeof types[0], KF_N - 2); /* INT4 and FP8 are no GGUF types: tests of their own */
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    size_t n_raw, n_want;
    char *raw = read_golden(types[i].type, "bin", &n_raw), *want = read_golden(types[i].type, "f32", &n_want);
    float got[VALUES];
    assert_int_equal(n_want, sizeof got);
    assert_int_equal(n_raw, kern_row_bytes(types[i].format, VALUES));
    kern_dequant_row(types[i].format, raw, VALUES, got);
    for (int k = 0; k < VALUES; k++)
      if (memcmp(&got[k], want + 4 * k, 4))
        fail_msg("%s: value %d is %.9g, %.9g was expected", types[i].type, k, (double)got[k], (double)((float *)(void *)want)[k]);
    free(raw);
    free(want);
  }
}

typedef struct {
  kern_format format;
  int points, width; /* of the codebook; values of a point */
  int level[8];      /* magnitudes, rising, in units of `unit` */
  int n_levels;
  float unit;
} book;
static const book books[] = {
    {KF_IQ1_S, 2048, 8, {-8, 0, 8}, 3, 0.125f},
    {KF_IQ1_M, 2048, 8, {-8, 0, 8}, 3, 0.125f},
    {KF_IQ2_XXS, 256, 8, {8, 25, 43}, 3, 0.125f},
    {KF_IQ2_XS, 512, 8, {8, 25, 43}, 3, 0.125f},
    {KF_IQ2_S, 1024, 8, {8, 25, 43}, 3, 0.125f},
    {KF_IQ3_XXS, 256, 4, {4, 12, 20, 28, 36, 44, 52, 62}, 8, 0.25f},
    {KF_IQ3_S, 512, 4, {1, 3, 5, 7, 9, 11, 13, 15}, 8, 1.0f},
};
enum { N_BOOKS = sizeof books / sizeof books[0] };

/* Place i of a block gets the point `index`; all other bits stay. */
static void put_index(kern_format f, uint8_t *p, int i, int index) {
  unsigned high = (unsigned)index >> 8;
  uint16_t word;
  switch (f) {
    case KF_IQ1_S:
      p[2 + i] = (uint8_t)index;
      memcpy(&word, p + 34 + i / 4 * 2, 2);
      word = (uint16_t)((word & ~(7u << i % 4 * 3)) | high << i % 4 * 3);
      memcpy(p + 34 + i / 4 * 2, &word, 2);
      return;
    case KF_IQ1_M:
      p[i] = (uint8_t)index;
      p[32 + i / 2] = (uint8_t)((p[32 + i / 2] & ~(7u << i % 2 * 4)) | high << i % 2 * 4);
      return;
    case KF_IQ2_XXS: p[2 + i / 4 * 8 + i % 4] = (uint8_t)index; return;
    case KF_IQ2_XS:
      memcpy(&word, p + 2 + 2 * i, 2);
      word = (uint16_t)((word & 0xfe00) | index);
      memcpy(p + 2 + 2 * i, &word, 2);
      return;
    case KF_IQ2_S:
      p[2 + i] = (uint8_t)index;
      p[66 + i / 4] = (uint8_t)((p[66 + i / 4] & ~(3u << i % 4 * 2)) | high << i % 4 * 2);
      return;
    case KF_IQ3_XXS: p[2 + i] = (uint8_t)index; return;
    default: /* IQ3_S */ p[2 + i] = (uint8_t)index; p[66 + i / 8] = (uint8_t)((p[66 + i / 8] & ~(1u << i % 8)) | high << i % 8);
  }
}

/* A scale of one, small scales of their least, no minus sign. */
static void plain_block(const book *k, uint8_t *p) {
  const uint16_t one = 0x3c00;
  memset(p, 0, kern_row_bytes(k->format, 256));
  if (k->format == KF_IQ1_M) p[53] = 0xc0, p[55] = 0x30;
  else memcpy(p, &one, 2);
}

/* What place i holds as a number whose digits are levels, the first value counting least; -1: a value is no level. */
static int number_of(const book *k, const float *v) {
  int number = 0, moved = k->format == KF_IQ1_S || k->format == KF_IQ1_M;
  for (int i = k->width - 1; i >= 0; i--) {
    int digit = 0;
    while (digit < k->n_levels && v[i] != (float)(k->level[digit] + moved) * k->unit) digit++;
    if (digit == k->n_levels) return -1;
    number = number * k->n_levels + digit;
  }
  return number;
}

/* Points have only levels of their format as values, no two are the same, and they rise with the index, in every place of a block. */
static void codebooks_are_rising_sets_of_levels(void **state) {
  (void)state;
  for (int b = 0; b < N_BOOKS; b++) {
    const book *k = &books[b];
    uint8_t block[128];
    float v[256];
    int before = -1;
    for (int index = 0; index < k->points; index++) {
      int i = index * 7 % (256 / k->width);
      plain_block(k, block);
      put_index(k->format, block, i, index);
      kern_dequant_row(k->format, block, 256, v);
      int number = number_of(k, v + i * k->width);
      if (number <= before) fail_msg("%s: point %d is %d after %d", kern_format_name(k->format), index, number, before);
      before = number;
    }
  }
}

static uint64_t hash(const void *data, size_t n) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
  return h;
}

/* An index that is there already changes nothing when it is put again. */
static void mark_indices(kern_format f, const char *block, bool seen[2048]) {
  const book *k = books;
  size_t bytes = kern_row_bytes(f, 256);
  uint8_t copy[128];
  while (k->format != f) k++;
  for (int i = 0; i < 256 / k->width; i++) {
    for (int index = 0; index < k->points; index++) {
      memcpy(copy, block, bytes);
      put_index(f, copy, i, index);
      if (memcmp(copy, block, bytes) == 0) seen[index] = true;
    }
  }
}

/* tests/golden/dequant/codebooks.*: every index of every type, among any signs and scales. */
static void every_point_of_every_codebook_is_bit_exact(void **state) {
  (void)state;
  size_t n_raw, n_sums, at = 0;
  char *raw = read_golden("codebooks", "bin", &n_raw), *sums = read_golden("codebooks", "sum", &n_sums), *line = sums;
  static bool seen[KF_N][2048];
  int blocks = 0;
  for (; *line; line = strchr(line, '\n') + 1, blocks++) {
    char name[16];
    unsigned long long want;
    float got[256];
    kern_format f;
    assert_int_equal(sscanf(line, "%15s %llx", name, &want), 2);
    for (char *c = name; *c; c++) *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    assert_true(kern_format_parse(name, &f));
    assert_true(at + kern_row_bytes(f, 256) <= n_raw);
    kern_dequant_row(f, raw + at, 256, got);
    if (hash(got, sizeof got) != want) fail_msg("%s: block %d differs from the reference", name, blocks);
    mark_indices(f, raw + at, seen[f]);
    at += kern_row_bytes(f, 256);
  }
  assert_int_equal(at, n_raw);
  assert_int_equal(blocks, (2048 + 2048 + 256 + 512 + 1024) / 32 + (256 + 512) / 64);
  for (int b = 0; b < N_BOOKS; b++)
    for (int i = 0; i < books[b].points; i++) assert_true(seen[books[b].format][i]);
  free(raw);
  free(sums);
}

/* BF16 scale 0.5, then byte j holds weights j and j + 16, 8 standing for zero. */
static void int4_of_known_values(void **state) {
  (void)state;
  const uint8_t row[18] = {0x00, 0x3f, 0x80, 0xf7, 0x08, 0x88, 0x88, 0x88, 0x88,
                           0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x98};
  float v[32];
  kern_dequant_row(KF_INT4, row, 32, v);
  const float head[3] = {-4.0f, -0.5f, 0.0f}, tail[3] = {0.0f, 3.5f, -4.0f};
  for (int i = 0; i < 3; i++) {
    assert_float_equal(v[i], head[i], 0);
    assert_float_equal(v[16 + i], tail[i], 0);
  }
  for (int i = 3; i < 31; i++)
    if (i < 16 || i > 18) assert_float_equal(v[i], 0, 0);
  assert_float_equal(v[31], 0.5f, 0);
}

/* Of any bytes: a block is called bad exactly when its weights are no finite numbers. INT4 can overflow with a good scale, MXFP4 and NVFP4 read bad ones
 * as numbers. */
static void bad_blocks_are_those_without_numbers(void **state) {
  (void)state;
  uint64_t random = 7;
  for (int f = 0; f < KF_N; f++) {
    const int block = kern_block((kern_format)f);
    const size_t bytes = kern_row_bytes((kern_format)f, block);
    int bad = 0, good = 0;
    if (block == 1 || f == KF_INT4 || f == KF_MXFP4 || f == KF_NVFP4) continue;
    for (int i = 0; i < 1000; i++) {
      uint8_t p[512];
      float w[256];
      bool finite = true, known;
      for (size_t k = 0; k < bytes; k++) p[k] = (uint8_t)((random = random * 6364136223846793005u + 1442695040888963407u) >> 56);
      kern_dequant_row((kern_format)f, p, block, w);
      for (int k = 0; k < block; k++) finite = finite && isfinite(w[k]);
      bool called_bad = hf_block_bad(kern_format_name((kern_format)f), p, block, &known) == 0;
      if (!known || called_bad == finite) fail_msg("%s: finite %d, bad %d", kern_format_name((kern_format)f), finite, called_bad);
      if (finite) good++;
      else bad++;
    }
    assert_true(bad > 5 && good > 500);
  }
}

/* Random weights fill their range and no more than a little beyond, and are the same for the same seed. */
static void random_rows_spread_over_their_range(void **state) {
  (void)state;
  for (int f = 0; f < KF_N; f++) {
    static char a[4 * 4096], b[4 * 4096];
    float w[4096];
    double sum = 0, most = 0;
    kern_random_row((kern_format)f, 5, 0.25f, 4096, a);
    kern_random_row((kern_format)f, 5, 0.25f, 4096, b);
    assert_memory_equal(a, b, kern_row_bytes((kern_format)f, 4096));
    kern_dequant_row((kern_format)f, a, 4096, w);
    for (int i = 0; i < 4096; i++) {
      sum += w[i];
      most = fmax(most, fabs((double)w[i]));
    }
    if (!(most > 0.15 && most < 1.25 && fabs(sum / 4096) < 0.15 * most + 0.04))
      fail_msg("%s: largest %g, mean %g", kern_format_name((kern_format)f), most, sum / 4096);
  }
}

/* d = 127/127 = 1: values are their own quants; halves go away from zero. The second block is all zero. */
static void q8_0_of_known_values(void **state) {
  (void)state;
  float x[64] = {127, -127, 1, -1, 2.5f, -2.5f, 0.4f, -0.4f}, back[64];
  const float want[8] = {127, -127, 1, -1, 3, -3, 0, 0};
  char row[68];
  kern_quant_row(KF_Q8_0, x, 64, row);
  kern_dequant_row(KF_Q8_0, row, 64, back);
  for (int i = 0; i < 8; i++) assert_float_equal(back[i], want[i], 0);
  for (int i = 8; i < 64; i++) assert_float_equal(back[i], 0, 0);
}

static void small_numbers_survive_the_quantiser(void **state) {
  (void)state;
  float x[32], back[32];
  char row[34];
  for (int i = 0; i < 32; i++) x[i] = (float)(i - 16) * 0x1p-149f;
  kern_quant_row(KF_Q8_0, x, 32, row);
  kern_dequant_row(KF_Q8_0, row, 32, back);
  for (int i = 0; i < 32; i++) assert_float_equal(back[i], 0, 1e-30);
}

/* Every E4M3 number by its definition; the last block of a row is shorter. */
static void fp8_of_known_values(void **state) {
  (void)state;
  uint8_t row[4 + 128 + 4 + 128 + 4 + 4];
  const float scale[3] = {1.0f, 0.375f, -2.0f};
  float got[260];
  assert_int_equal(kern_row_bytes(KF_FP8, 260), sizeof row);
  for (int i = 0; i < 260; i++) row[i + 4 + i / 128 * 4] = (uint8_t)(i % 256);
  for (int b = 0; b < 3; b++) memcpy(row + (size_t)b * 132, &scale[b], 4);
  kern_dequant_row(KF_FP8, row, 260, got);
  for (int i = 0; i < 260; i++) {
    int code = i % 256, e = code >> 3 & 15, m = code & 7;
    double v = (e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m / 8.0, -6)) * (code & 128 ? -1 : 1) * (double)scale[i / 128];
    if ((code & 127) == 127) assert_true(isnan(got[i]));
    else if (got[i] != (float)v || !!signbit(got[i]) != !!signbit(v))
      fail_msg("code %d: %.9g, not %.9g", code, (double)got[i], v);
  }
  float x[4] = {448.0f, -448.0f, 1.0625f, 0.0009765625f}, back[4]; /* scale 1; halves to even: 1, 0 */
  uint8_t small[8];
  kern_quant_row(KF_FP8, x, 4, small);
  kern_dequant_row(KF_FP8, small, 4, back);
  const float want[4] = {448.0f, -448.0f, 1.0f, 0.0f};
  for (int i = 0; i < 4; i++) assert_float_equal(back[i], want[i], 0);
  for (int code = 0; code < 256; code++) { /* every number comes back */
    if ((code & 127) == 127) continue;
    float v[2] = {448.0f, 0}, again[2];
    uint8_t two[6] = {0, 0, 0x80, 0x3f, 0x7e, (uint8_t)code};
    kern_dequant_row(KF_FP8, two, 2, v);
    kern_quant_row(KF_FP8, v, 2, small);
    kern_dequant_row(KF_FP8, small, 2, again);
    assert_memory_equal(v, again, sizeof v);
  }
}

static void halves_round_to_nearest_even(void **state) {
  (void)state;
  static const struct {
    kern_format f;
    float x, want;
  } cases[] = {
      {KF_F16, 2049, 2048},         {KF_F16, 2051, 2052},  {KF_F16, 65519.0f, 65504},      {KF_F16, 65520.0f, INFINITY},
      {KF_F16, 0x1p-24f, 0x1p-24f}, {KF_F16, 0x1p-25f, 0}, {KF_F16, 0x1.8p-24f, 0x1p-23f}, {KF_F16, -0x1.1p-25f, -0x1p-24f},
      {KF_BF16, 257, 256},          {KF_BF16, 259, 260},   {KF_BF16, 3.4e38f, INFINITY},   {KF_BF16, 0x1p-133f, 0x1p-133f},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float got;
    char h[4];
    kern_quant_row(cases[i].f, &cases[i].x, 1, h);
    kern_dequant_row(cases[i].f, h, 1, &got);
    assert_true(got == cases[i].want);
  }
}

static void every_half_goes_there_and_back(void **state) {
  (void)state;
  for (int f = KF_F16; f <= KF_BF16; f++) {
    for (int i = 0; i < 65536; i++) {
      uint16_t h = (uint16_t)i, back;
      float v;
      kern_dequant_row((kern_format)f, &h, 1, &v);
      kern_quant_row((kern_format)f, &v, 1, &back);
      if (isnan(v)) {
        float again;
        kern_dequant_row((kern_format)f, &back, 1, &again);
        assert_true(isnan(again));
      } else {
        assert_int_equal(back, h);
      }
    }
  }
}

static void names_and_sizes(void **state) {
  (void)state;
  for (int f = 0; f < KF_N; f++) {
    kern_format back;
    assert_true(kern_format_parse(kern_format_name((kern_format)f), &back));
    assert_int_equal(back, f);
    assert_int_equal(kern_act_of((kern_format)f, true), KA_F32);
  }
  kern_format none;
  assert_false(kern_format_parse("q9_9", &none));
  assert_int_equal(kern_row_bytes(KF_Q8_0, 96), 102);
  assert_int_equal(kern_block(KF_Q8_0), 32);
  assert_int_equal(kern_act_of(KF_Q8_0, false), KA_Q8B32);
  for (int a = 0; a < KA_N; a++) {
    for (int n = 1; n < 300; n++) assert_int_equal(kern_act_bytes((kern_act)a, n) % 64, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(golden_rows_are_bit_exact),
      cmocka_unit_test(codebooks_are_rising_sets_of_levels),
      cmocka_unit_test(every_point_of_every_codebook_is_bit_exact),
      cmocka_unit_test(q8_0_of_known_values),
      cmocka_unit_test(small_numbers_survive_the_quantiser),
      cmocka_unit_test(halves_round_to_nearest_even),
      cmocka_unit_test(every_half_goes_there_and_back),
      cmocka_unit_test(names_and_sizes),
      cmocka_unit_test(int4_of_known_values),
      cmocka_unit_test(fp8_of_known_values),
      cmocka_unit_test(bad_blocks_are_those_without_numbers),
      cmocka_unit_test(random_rows_spread_over_their_range),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
