#include "planner/sim/chrome.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void sim_chrome_add(void *user, const rec_trace *r) {
  sim_chrome *c = user;
  if (c->failed != HF_OK) return;
  if (c->n == SIM_CHROME_EVENTS) {
    c->left_out++;
    return;
  }
  if (c->n == c->cap) {
    const int64_t cap = c->cap ? 2 * c->cap : 4096;
    c->failed = hf_realloc(&c->ev, (size_t)cap, sizeof *c->ev, "trace events");
    if (c->failed != HF_OK) {
      snprintf(c->why, sizeof c->why, "%s", hf_error_line());
      return;
    }
    c->cap = cap;
  }
  c->ev[c->n++] = *r;
}

hf_status sim_chrome_write(sim_chrome *c, const char *path) {
  if (c->failed != HF_OK) return hf_fail(c->failed, "%s", c->why);
  const bool whole_steps = c->n > 0 && strcmp(c->ev[0].resource, TIMELINE_STEPS) == 0;
  if (!whole_steps) HF_TRY(idle_account_of(c->ev, c->n, &c->idle));
  return timeline_write(c->ev, c->n, 0, &c->idle, path);
}

void sim_chrome_free(sim_chrome *c) {
  idle_account_free(&c->idle);
  free(c->ev);
  *c = (sim_chrome){0};
}
