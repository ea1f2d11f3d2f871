#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LINE_BYTES = 2048, BAR_CELLS = 30, FIRST_DRAW_NS = 500000000, REDRAW_NS = 100000000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards everything below and what is on the terminal line */
static int level = -1;                                   /* -1: not chosen yet, ask the environment */
static hf_progress *shown;                               /* the bar that is running, drawn or not */
static bool on_screen;                                   /* its line is on the terminal now */

static int level_locked(void) {
  static const char *const names[] = {"error", "warn", "info", "debug"};
  if (level >= 0) return level;
  level = HF_LOG_INFO;
  const char *wanted = getenv("HF_LOG");
  for (int i = 0; wanted && i < 4; i++) {
    if (strcasecmp(wanted, names[i]) == 0) level = i;
  }
  return level;
}

void hf_log_set_level(hf_log_level new_level) {
  pthread_mutex_lock(&lock);
  level = (int)new_level;
  pthread_mutex_unlock(&lock);
}

hf_log_level hf_log_get_level(void) {
  pthread_mutex_lock(&lock);
  int now = level_locked();
  pthread_mutex_unlock(&lock);
  return (hf_log_level)now;
}

/* Best effort: a message that cannot be written has nowhere to be reported. */
static void write_all(const char *text, size_t n) {
  while (n > 0) {
    ssize_t done = write(STDERR_FILENO, text, n);
    if (done <= 0) return;
    text += done;
    n -= (size_t)done;
  }
}

static void amount(char out[32], int64_t n, const char *unit) {
  static const char prefix[] = " KMGT";
  if (strcmp(unit, "B") != 0) {
    snprintf(out, 32, "%lld", (long long)n);
    return;
  }
  double v = (double)n;
  int p = 0;
  for (; v >= 1024 && p < 4; p++) v /= 1024;
  if (p == 0) snprintf(out, 32, "%lld", (long long)n);
  else snprintf(out, 32, "%.1f%c", v, prefix[p]);
}

static void draw(hf_progress *p, int64_t now) {
  char line[LINE_BYTES], done[32], total[32], bar[BAR_CELLS + 1];
  const char *unit = p->unit ? p->unit : "";
  amount(done, p->done, unit);
  int n;
  if (p->total > 0) {
    double share = (double)p->done / (double)p->total;
    int full = share >= 1 ? BAR_CELLS : share <= 0 ? 0 : (int)(share * BAR_CELLS);
    memset(bar, '.', BAR_CELLS);
    memset(bar, '#', (size_t)full);
    bar[BAR_CELLS] = '\0';
    amount(total, p->total, unit);
    n = snprintf(line, sizeof line, "\r\033[K%s [%s] %s/%s %s", p->label, bar, done, total, unit);
  } else {
    n = snprintf(line, sizeof line, "\r\033[K%s %s %s", p->label, done, unit);
  }
  if (n < 0) return;
  write_all(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
  p->drawn_ns = now;
  on_screen = true;
}

static void clear_locked(void) {
  if (on_screen) write_all("\r\033[K", 4);
  on_screen = false;
}

void hf_log(hf_log_level message_level, const char *fmt, ...) {
  static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
  if (message_level > hf_log_get_level()) return;
  char line[LINE_BYTES];
  int head = snprintf(line, sizeof line, "%s", prefix[message_level]);
  va_list args;
  va_start(args, fmt);
  int body = vsnprintf(line + head, sizeof line - 1 - (size_t)head, fmt, args);
  va_end(args);
  if (body < 0) line[head] = '\0';
  hf_printable(line); /* one message is one line, and no terminal escapes from a file's contents */
  size_t n = strlen(line);
  line[n] = '\n';
  pthread_mutex_lock(&lock);
  bool redraw = on_screen;
  clear_locked();
  write_all(line, n + 1);
  if (redraw && shown) draw(shown, hf_now_ns());
  pthread_mutex_unlock(&lock);
}

void hf_progress_begin(hf_progress *p, const char *label, const char *unit, int64_t total) {
  *p = (hf_progress){.label = label, .unit = unit, .total = total, .started_ns = hf_now_ns()};
  pthread_mutex_lock(&lock);
  p->active = isatty(STDERR_FILENO) && level_locked() >= HF_LOG_INFO && !shown;
  if (p->active) shown = p;
  pthread_mutex_unlock(&lock);
}

void hf_progress_add(hf_progress *p, int64_t n) {
  pthread_mutex_lock(&lock);
  p->done += n;
  if (p->active) {
    int64_t now = hf_now_ns();
    if (now - p->started_ns >= FIRST_DRAW_NS && now - p->drawn_ns >= REDRAW_NS) draw(p, now);
  }
  pthread_mutex_unlock(&lock);
}

void hf_progress_end(hf_progress *p) {
  pthread_mutex_lock(&lock);
  if (p->active) {
    clear_locked();
    shown = NULL;
    p->active = false;
  }
  pthread_mutex_unlock(&lock);
}
