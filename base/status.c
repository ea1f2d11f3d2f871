#include "base/status.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TRAIL_BYTES = 1024 };

static _Thread_local char trail[TRAIL_BYTES];

/* No control character gets through, nor half a UTF-8 sequence left by cutting the line short. */
static void make_printable(char *s) {
  hf_printable(s);
  size_t n = strlen(s);
  if (n + 1 < TRAIL_BYTES) return;
  size_t lead = n;
  while (lead > 0 && ((unsigned char)s[lead - 1] & 0xc0) == 0x80) lead--;
  if (lead > 0 && (unsigned char)s[lead - 1] >= 0xc0) s[lead - 1] = '\0';
}

static void format(char out[TRAIL_BYTES], const char *fmt, va_list args) {
  if (vsnprintf(out, TRAIL_BYTES, fmt, args) < 0) snprintf(out, TRAIL_BYTES, "(unprintable message)");
}

hf_status(hf_fail)(hf_status code, const char *fmt, ...) {
  char message[TRAIL_BYTES]; /* apart from the trail: an argument may be hf_error_line() itself */
  va_list args;
  va_start(args, fmt);
  format(message, fmt, args);
  va_end(args);
  make_printable(message);
  memcpy(trail, message, sizeof trail);
  return code == HF_OK ? HF_MACHINE : code; /* hf_never_ok relies on it */
}

hf_status hf_note(hf_status code, const char *fmt, ...) {
  if (code == HF_OK) return code;
  char message[TRAIL_BYTES], joined[2 * TRAIL_BYTES + 2];
  va_list args;
  va_start(args, fmt);
  format(message, fmt, args);
  va_end(args);
  snprintf(joined, sizeof joined, "%s%s%s", message, trail[0] ? ": " : "", trail);
  memcpy(trail, joined, TRAIL_BYTES - 1);
  trail[TRAIL_BYTES - 1] = '\0';
  make_printable(trail);
  return code;
}

const char *hf_error_line(void) {
  return trail;
}

void hf_clear_error(void) {
  trail[0] = '\0';
}

int hf_exit_status(hf_status code) {
  switch (code) {
    case HF_OK: return 0;
    case HF_NO: return 1;
    case HF_INPUT:
    case HF_NOT_FOUND:
    case HF_UNSUPPORTED: return 2;
    case HF_MACHINE:
    case HF_LOST:
    case HF_TIMEOUT: return 3;
  }
  return 3;
}
