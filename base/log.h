/* log.h: messages for people, on standard error. Standard output belongs to results.
 * Level by --quiet / --verbose or HF_LOG=error|warn|info|debug (default info). Each message is one line, written with one
 * write(2); thread-safe. A running progress bar is cleared first and redrawn afterwards. */
#ifndef HF_BASE_LOG_H
#define HF_BASE_LOG_H
#include "base/status.h"
typedef enum { HF_LOG_ERROR, HF_LOG_WARN, HF_LOG_INFO, HF_LOG_DEBUG } hf_log_level;
void hf_log_set_level(hf_log_level level);
hf_log_level hf_log_get_level(void);
void hf_log(hf_log_level level, const char *fmt, ...) HF_PRINTF(2, 3);

/* Progress bar for work over two seconds: drawn on standard error only when that is a terminal, first after 0.5 s,
 * at most 10 times a second. label must outlive the bar. total 0 = unknown (a counter is shown). One bar at a time. */
typedef struct {
  const char *label, *unit; /* unit "B" prints K/M/G */
  int64_t total, done, started_ns, drawn_ns;
  bool active;
} hf_progress;
void hf_progress_begin(hf_progress *p, const char *label, const char *unit, int64_t total);
void hf_progress_add(hf_progress *p, int64_t n);
void hf_progress_end(hf_progress *p); /* clears the line */
#endif
