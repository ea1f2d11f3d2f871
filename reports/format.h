/* format.h: numbers as people read them. The same quantity is always shown in the same manner; CSV and JSON get the plain SI number.
 * Private to reports. */
#ifndef HF_REPORTS_FORMAT_H
#define HF_REPORTS_FORMAT_H
#include <stddef.h>
#include <stdint.h>

typedef enum {
  FMT_TEXT,
  FMT_INT,       /* 12,345 */
  FMT_NUM,       /* four significant digits */
  FMT_BYTES,     /* binary: 1.25 GiB */
  FMT_RATE,      /* bytes per second, decimal: 21.3 GB/s */
  FMT_FLOPS,     /* 1.2 TFLOP/s */
  FMT_OPS,       /* 352 TOP/s */
  FMT_TRANSFERS, /* 8.00 GT/s */
  FMT_WATTS,     /* 315 W */
  FMT_USD,       /* 4,608 USD */
  FMT_NS,        /* nanoseconds: 12.5 µs */
  FMT_SECONDS,   /* seconds: 12.5 ms */
  FMT_TOK_S,     /* 51.3; the column says tokens/s */
  FMT_SHARE,     /* 0.25 -> 25.0 % */
  FMT_SIGNED,    /* 0.094 -> +9.4 % */
  FMT_GAP,       /* 0.00034 -> 0.034 % */
} rep_format;

enum { FORMAT_MAX = 48 };

/* UTF-8 into out[FORMAT_MAX]; "–" for a number that is not finite (nothing known). FMT_TEXT counts as FMT_NUM. */
void format_number(double v, rep_format f, char out[FORMAT_MAX]);
/* The format that belongs to a unit as the database writes it: "B/s", "ns", "B", "FLOP/s", "W", ...; FMT_NUM for others. */
rep_format format_of_unit(const char *unit);
/* "2026-11-22 15:40 UTC"; "–" for 0. */
void format_date(int64_t wall_ns, char out[FORMAT_MAX]);
#endif
