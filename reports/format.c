#include "reports/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NBSP "\xc2\xa0" /* a unit does not leave its number at the end of a line */

/* Digits after the point so that `digits` significant ones are shown, without an exponent. */
static int decimals(double v, int digits) {
  if (v == 0) return 0;
  int before = (int)floor(log10(fabs(v) * (1 + 0.5 * pow(10, -digits)))) + 1; /* 0.9999 is going to be 1.00 */
  int d = digits - before;
  return d < 0 ? 0 : d > 12 ? 12 : d;
}

/* Thousands are grouped by commas; the sign is the true minus. */
static void grouped(double v, int n_decimals, char out[FORMAT_MAX]) {
  char plain[FORMAT_MAX];
  if (fabs(v) >= 1e15) {
    snprintf(out, FORMAT_MAX, "%.3g", v);
    return;
  }
  int n = snprintf(plain, sizeof plain, "%.*f", n_decimals, fabs(v));
  int whole = (int)strcspn(plain, "."), o = 0;
  if (v < 0 && strspn(plain, "0.") < (size_t)n) o = snprintf(out, FORMAT_MAX, "−");
  for (int i = 0; i < n && o < FORMAT_MAX - 2; i++) {
    if (i > 0 && i < whole && (whole - i) % 3 == 0) out[o++] = ',';
    out[o++] = plain[i];
  }
  out[o] = 0;
}

typedef struct {
  double least;
  const char *unit;
} scale;

static void scaled(double v, const scale *table, int n, char out[FORMAT_MAX]) {
  char number[FORMAT_MAX];
  int i = n - 1;
  if (v == 0) { /* nothing has no scale: the plain unit */
    while (table[i].least > 1) i--;
    snprintf(out, FORMAT_MAX, "0" NBSP "%s", table[i].unit);
    return;
  }
  while (i > 0 && fabs(v) < table[i].least * 0.9995) i--;
  double x = v / table[i].least;
  grouped(x, decimals(x, 3), number);
  snprintf(out, FORMAT_MAX, "%.30s" NBSP "%s", number, table[i].unit);
}

#define SCALED(v, table, out) scaled(v, table, (int)(sizeof(table) / sizeof(table)[0]), out)

static void percent(double v, int n_decimals, const char *plus, char out[FORMAT_MAX]) {
  char number[FORMAT_MAX];
  grouped(100 * v, n_decimals, number);
  snprintf(out, FORMAT_MAX, "%s%.30s" NBSP "%%", v >= 0 ? plus : "", number);
}

static void significant(double v, char out[FORMAT_MAX]) {
  if (v == floor(v) && fabs(v) < 1e15) grouped(v, 0, out);
  else grouped(v, decimals(v, 4), out);
}

static void with_unit(double v, const char *unit, char out[FORMAT_MAX]) {
  char number[FORMAT_MAX];
  significant(v, number);
  snprintf(out, FORMAT_MAX, "%.30s" NBSP "%s", number, unit);
}

void format_number(double v, rep_format f, char out[FORMAT_MAX]) {
  static const scale bytes[] = {{1, "B"}, {1024.0, "KiB"}, {1048576.0, "MiB"}, {1073741824.0, "GiB"}, {1099511627776.0, "TiB"}};
  static const scale rate[] = {{1, "B/s"}, {1e3, "kB/s"}, {1e6, "MB/s"}, {1e9, "GB/s"}, {1e12, "TB/s"}};
  static const scale flops[] = {{1, "FLOP/s"}, {1e6, "MFLOP/s"}, {1e9, "GFLOP/s"}, {1e12, "TFLOP/s"}, {1e15, "PFLOP/s"}};
  static const scale ops[] = {{1, "OP/s"}, {1e6, "MOP/s"}, {1e9, "GOP/s"}, {1e12, "TOP/s"}, {1e15, "POP/s"}};
  static const scale transfers[] = {{1, "T/s"}, {1e6, "MT/s"}, {1e9, "GT/s"}};
  static const scale times[] = {{1e-9, "ns"}, {1e-6, "µs"}, {1e-3, "ms"}, {1, "s"}};
  if (!isfinite(v)) {
    snprintf(out, FORMAT_MAX, "–");
    return;
  }
  switch (f) {
    case FMT_INT: grouped(round(v), 0, out); return;
    case FMT_BYTES: SCALED(v, bytes, out); return;
    case FMT_RATE: SCALED(v, rate, out); return;
    case FMT_FLOPS: SCALED(v, flops, out); return;
    case FMT_OPS: SCALED(v, ops, out); return;
    case FMT_TRANSFERS: SCALED(v, transfers, out); return;
    case FMT_WATTS: with_unit(v, "W", out); return;
    case FMT_USD: with_unit(v, "USD", out); return;
    case FMT_NS: SCALED(1e-9 * v, times, out); return;
    case FMT_SECONDS: SCALED(v, times, out); return;
    case FMT_TOK_S: grouped(v, decimals(v, 3), out); return;
    case FMT_SHARE: percent(v, 1, "", out); return;
    case FMT_SIGNED: percent(v, 1, "+", out); return;
    case FMT_GAP:
      if (v > 0 && v < 1e-6) snprintf(out, FORMAT_MAX, "<" NBSP "0.0001" NBSP "%%");
      else percent(v, v == 0 ? 0 : 4, "", out);
      return;
    case FMT_TEXT:
    case FMT_NUM: significant(v, out); return;
  }
}

rep_format format_of_unit(const char *unit) {
  static const struct {
    const char *unit;
    rep_format f;
  } known[] = {{"B/s", FMT_RATE},     {"B", FMT_BYTES},        {"ns", FMT_NS},   {"s", FMT_SECONDS}, {"OP/s", FMT_OPS},
               {"FLOP/s", FMT_FLOPS}, {"tokens/s", FMT_TOK_S}, {"W", FMT_WATTS}, {"USD", FMT_USD}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(unit, known[i].unit) == 0) return known[i].f;
  return FMT_NUM;
}

void format_date(int64_t wall_ns, char out[FORMAT_MAX]) {
  time_t t = (time_t)(wall_ns / 1000000000);
  struct tm tm;
  if (wall_ns <= 0 || gmtime_r(&t, &tm) == NULL || strftime(out, FORMAT_MAX, "%Y-%m-%d %H:%M UTC", &tm) == 0)
    snprintf(out, FORMAT_MAX, "–");
}
