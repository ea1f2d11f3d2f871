/* gpus.c: the devices of a plan by default, and which layers each is home of. */
#include <stdio.h>
#include <string.h>

#include "planner/cost/cost.h"

hf_status gpu_set_default(const cost_rows *r, int most, gpu_set *out) {
  char text[GPU_TEXT] = "";
  int n = 0;
  for (int i = 0; i < STAGE_MAX_DEVICES && n < most; i++) {
    char device[GPU_NAME];
    gpu_name(i, device);
    if (cost_device(r, device) == NULL) continue;
    size_t at = strlen(text);
    snprintf(text + at, sizeof text - at, "%scuda:%d", n > 0 ? "+" : "", i);
    n++;
  }
  return gpu_set_parse(n > 0 ? text : "none", out);
}

/* ---- layers over devices ---- */

/* Walks the layers once with shares widened by `stretch`; true when no limit is exceeded. */
static bool split_once(const double *cost, const int64_t *bytes, int n_layers, const double *speed, const int64_t *limit, int n,
                       double stretch, uint8_t *home) {
  double all = 0, speeds = 0, done = 0, end = 0;
  int64_t used = 0;
  int d = 0;
  for (int l = 0; l < n_layers; l++) all += cost[l];
  for (int i = 0; i < n; i++) speeds += speed[i];
  end = stretch * all * speed[0] / speeds;
  for (int l = 0; l < n_layers; l++) {
    /* a layer goes where its middle falls; a full device hands on at once */
    while (d + 1 < n && (done + 0.5 * cost[l] > end || used + bytes[l] > limit[d])) {
      d++;
      end = (end < done ? end : done) + stretch * all * speed[d] / speeds;
      used = 0;
    }
    home[l] = (uint8_t)d;
    used += bytes[l];
    done += cost[l];
    if (used > limit[d]) return false;
  }
  return true;
}

void cost_split_layers(const double *cost, const int64_t *bytes, int n_layers, const double *speed, const int64_t *limit, int n,
                       uint8_t *home) {
  memset(home, 0, (size_t)n_layers);
  if (n < 2) return;
  /* Fair shares first; where a later device is too small, earlier ones take more until it fits. */
  for (double stretch = 1; stretch < 64; stretch *= 1.05)
    if (split_once(cost, bytes, n_layers, speed, limit, n, stretch, home)) return;
  /* Nothing fits: fair shares, so that the budget tells what is missing where. */
  int64_t unlimited[STAGE_MAX_DEVICES];
  for (int i = 0; i < n; i++) unlimited[i] = INT64_MAX / 4;
  split_once(cost, bytes, n_layers, speed, unlimited, n, 1, home);
}
