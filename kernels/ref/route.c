/* route.c: which experts a token goes to. Rules of the families: choose on score + bias, weigh with the score alone; groups
 * outside the best topk_group count as -infinity (biases may be negative, so 0 would be wrong); ties go to the lower index. */
#include <math.h>

#include "kernels/kernels.h"

enum { MAX_EXPERTS = 1024, MAX_TOP_K = 64 };

static void softmax(float *s, int n) {
  float max = -INFINITY, sum = 0.0f;
  for (int i = 0; i < n; i++) max = s[i] > max ? s[i] : max;
  for (int i = 0; i < n; i++) sum += s[i] = expf(s[i] - max);
  for (int i = 0; i < n; i++) s[i] /= sum;
}

/* Index of the largest value not yet taken, -1 when all are. "Greater" alone moves on, so a tie keeps the lower index. */
static int best_free(const float *v, const bool *taken, int n) {
  int best = -1;
  for (int i = 0; i < n; i++) {
    if (!taken[i] && (best < 0 || v[i] > v[best])) best = i;
  }
  return best;
}

static float group_score(const float *v, int n, int rule) {
  float first = -INFINITY, second = -INFINITY;
  for (int i = 0; i < n; i++) {
    if (v[i] > first) {
      second = first;
      first = v[i];
    } else if (v[i] > second) {
      second = v[i];
    }
  }
  return rule == 1 && n > 1 ? first + second : first;
}

static void mask_groups(const kern_router *r, float *choice) {
  int size = r->n_experts / r->n_group;
  float score[MAX_EXPERTS];
  bool kept[MAX_EXPERTS] = {false};
  for (int g = 0; g < r->n_group; g++) score[g] = group_score(choice + g * size, size, r->group);
  for (int k = 0; k < r->topk_group && k < r->n_group; k++) kept[best_free(score, kept, r->n_group)] = true;
  for (int e = 0; e < r->n_experts; e++) {
    if (e / size >= r->n_group || !kept[e / size]) choice[e] = -INFINITY;
  }
}

static void sort_ids(int32_t *ids, int n) {
  for (int i = 1; i < n; i++) {
    int32_t v = ids[i];
    int j = i;
    for (; j > 0 && ids[j - 1] > v; j--) ids[j] = ids[j - 1];
    ids[j] = v;
  }
}

void kern_route(const kern_router *r, const float *logits, int32_t *ids, float *weights) {
  int n = r->n_experts, k = r->top_k;
  float score[MAX_EXPERTS], choice[MAX_EXPERTS];
  bool taken[MAX_EXPERTS] = {false};
  for (int e = 0; e < n; e++) score[e] = r->score == 1 ? 1.0f / (1.0f + expf(-logits[e])) : logits[e];
  if (r->score == 0) softmax(score, n);
  for (int e = 0; e < n; e++) choice[e] = r->bias ? score[e] + r->bias[e] : score[e];
  if (r->group != 0 && r->n_group > 1) mask_groups(r, choice);
  for (int i = 0; i < k; i++) {
    ids[i] = best_free(choice, taken, n);
    taken[ids[i]] = true;
  }
  sort_ids(ids, k);
  float sum = 0.0f;
  for (int i = 0; i < k; i++) weights[i] = score[ids[i]];
  if (r->score == 2) softmax(weights, k);
  for (int i = 0; i < k; i++) sum += weights[i];
  for (int i = 0; i < k; i++) weights[i] = (r->norm ? weights[i] / (sum + 1e-20f) : weights[i]) * r->scale;
}
