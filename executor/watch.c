/* watch.c: see watch.h. */
#include "executor/watch.h"

static int size_of(int tokens) {
  int size = 0;
  while (size < WATCH_SIZES - 1 && tokens >> (size + 1)) size++;
  return size;
}

void watch_begin(watch *w, int step, int tokens) {
  w->step[step].on = true;
  w->step[step].tokens = tokens;
  w->step[step].silent_ns = w->step[step].most_ns = 0;
}

void watch_alive(watch *w, int step) {
  if (w->step[step].silent_ns > w->step[step].most_ns) w->step[step].most_ns = w->step[step].silent_ns;
  w->step[step].silent_ns = 0;
}

void watch_end(watch *w, int step) {
  if (!w->step[step].on) return;
  watch_alive(w, step);
  int64_t *longest = &w->longest_ns[size_of(w->step[step].tokens)];
  if (w->step[step].most_ns >= *longest) *longest = w->step[step].most_ns + 1; /* 0 means that none has ended */
  w->step[step].on = false;
}

int64_t watch_limit_ns(const watch *w, int tokens, int n_steps) {
  double most = -1;
  if (w->limit_ns > 0) return w->limit_ns;
  for (int i = 0; i < WATCH_SIZES; i++) {
    if (!w->longest_ns[i]) continue;
    const double times = tokens > 1 << i ? (double)tokens / (1 << i) : 1, ns = times * (double)w->longest_ns[i];
    if (ns > most) most = ns;
  }
  return most < 0 ? WATCH_FIRST_NS : WATCH_LEAST_NS + (int64_t)(WATCH_PATIENCE * n_steps * most);
}

int watch_look(watch *w, int64_t now_ns) {
  int64_t dt = w->looked_ns > 0 ? now_ns - w->looked_ns : 0;
  int n = 0, hung = -1;
  if (dt > WATCH_BLINK_NS) dt = WATCH_BLINK_NS;
  w->looked_ns = now_ns;
  for (int i = 0; i < WATCH_STEPS; i++) n += w->step[i].on;
  for (int i = 0; i < WATCH_STEPS; i++) {
    if (!w->step[i].on) continue;
    w->step[i].silent_ns += dt;
    if (w->step[i].silent_ns > watch_limit_ns(w, w->step[i].tokens, n)) hung = i;
  }
  return hung;
}

void watch_reset(watch *w) {
  for (int i = 0; i < WATCH_STEPS; i++) w->step[i].on = false;
  w->looked_ns = 0;
}
