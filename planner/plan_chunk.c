/* plan_chunk.c: how many tokens of prompts go into one step.
 *
 * A long chunk reads each of the CPU's experts, or sends them to the device, once for many tokens; but its buffers take room from experts of the
 * device. Both are weighed before anything is placed, with experts spread evenly over what room there is: what the chunk decides is far larger
 * than what the placement changes of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/plan_make.h"

/* As good as another: no longer than this many times. */
static const double AS_GOOD = 1.01;

/* Of each layer the same share of experts on its home device, as far as the devices have room at depth 1. */
static void spread_evenly(const plan_inputs *in, const plan_eval *v, uint8_t *place) {
  double all[STAGE_MAX_DEVICES] = {0};
  int layers = v->table->n_layers, n = v->table->n_experts;
  for (int l = 0; l < layers; l++)
    if (v->table->layer[l].moe) all[in->home[l]] += (double)v->expert_bytes[l] * n;
  for (int l = 0; l < layers && v->n_devices > 0; l++) {
    int d = in->home[l];
    double share = all[d] > 0 ? fmax(0, (double)v->room[d][0] / all[d]) : 0;
    for (int e = 0; v->table->layer[l].moe && e < n && e + 1 <= share * n; e++)
      place[(size_t)l * (size_t)n + (size_t)e] = 1 + (uint8_t)d;
  }
}

/* What a request asks of each place and of the link. */
typedef struct {
  double place_ns[STAGE_MAX_PLACES], link_ns;
} demand;

/* Tokens of one prompt that go into a step together, `times` such steps; uploads: whatever of the CPU's can be sent is. */
static void add_piece(const plan_inputs *in, const plan_eval *v, const uint8_t *place, int64_t tokens, double times, bool uploads,
                      demand *d) {
  const stage_table *t = v->table;
  popularity prompts = popularity_of_prompts(v->pop);
  stage_load load = {.upload = uploads};
  stage_load_add(&load, t, (in->req.prompt_tokens - tokens) / 2, tokens);
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y =
        stage_layer_times_load(t, &prompts, l, &load, t->layer[l].moe ? place + (size_t)l * (size_t)t->n_experts : NULL);
    ilp_add_work(t, l, &y, times, d->place_ns);
    d->link_ns += times * y.upload_ns;
  }
}

/* The same pieces one after another, each layer by the CPU or sent, whichever is less. */
static hf_status piece_alone_ns(const plan_inputs *in, const plan_eval *v, const uint8_t *place, int64_t tokens,
                                ilp_evaluation *e) {
  ilp_problem prob = plan_eval_problem(v, 1);
  prob.limit = (ilp_limits){0};
  prob.prefill = (ilp_prefill){.weight = 1, .upload = v->prefill.upload};
  stage_load_add(&prob.prefill.load, prob.table, (in->req.prompt_tokens - tokens) / 2, tokens);
  return ilp_evaluate(&prob, place, 1, NULL, e);
}

static double busiest_ns(const demand *d) {
  double most = d->link_ns;
  for (int q = 0; q < STAGE_MAX_PLACES; q++) most = fmax(most, d->place_ns[q]);
  return most;
}

/* The time of a request under the chunk set. Alone: its prompt's chunks and its share of the steps of all users. Where micro-batches overlap,
 * the busiest resource's share in both, for what can be sent is whatever leaves it less busy. */
static hf_status request_ns(const plan_inputs *in, const plan_eval *v, bool overlap, uint8_t *place, double *prompt_ns,
                            double *alone_ns, double *ns) {
  const plan_request *r = &in->req;
  int64_t prompt = r->prompt_tokens, chunk = in->chunk_tokens < prompt ? in->chunk_tokens : prompt, last = prompt % chunk;
  double steps = (double)r->output_tokens / (double)r->users, whole = (double)(prompt / chunk), least = INFINITY;
  ilp_evaluation e, rest = {0};
  memset(place, 0, (size_t)v->table->n_layers * (size_t)v->table->n_experts);
  spread_evenly(in, v, place);
  HF_TRY(piece_alone_ns(in, v, place, chunk, &e));
  if (last > 0) HF_TRY(piece_alone_ns(in, v, place, last, &rest));
  *prompt_ns = whole * e.chunk_ns + rest.chunk_ns;
  *ns = *alone_ns = *prompt_ns + steps * e.step_ns;
  for (int uploads = 0; overlap && uploads <= (v->prefill.upload ? 1 : 0); uploads++) {
    demand d = {0};
    for (int q = 0; q < ilp_n_places(v->table); q++) d.place_ns[q] = steps * e.place_ns[q];
    add_piece(in, v, place, chunk, whole, uploads == 1, &d);
    if (last > 0) add_piece(in, v, place, last, 1, uploads == 1, &d);
    least = fmin(least, busiest_ns(&d));
  }
  if (overlap) *ns = least;
  return HF_OK;
}

/* Of chunks with which a request takes as good as the least time the one with the shortest prompt, for the first token's sake; of those the shortest,
 * which holds up others for less long. */
static int best_chunk(const planned *p, const double *prompt_ns) {
  double least = INFINITY, prompt = INFINITY;
  int best = 0;
  for (int i = 0; i < p->n_chunks; i++) least = fmin(least, p->chunk_ns[i]);
  for (int i = 0; i < p->n_chunks; i++)
    if (p->chunk_ns[i] <= AS_GOOD * least) prompt = fmin(prompt, prompt_ns[i]);
  for (int i = 0; i < p->n_chunks; i++)
    if (p->chunk_ns[i] <= AS_GOOD * least && prompt_ns[i] <= AS_GOOD * prompt) best = i;
  return best;
}

hf_status plan_choose_chunk(plan_inputs *in, const planned_options *o, plan_sizes *s, planned *p) {
  plan_eval *v = p->eval;
  uint8_t *place = NULL;
  int best;
  bool overlap = in->gpu.kind != GPU_NONE && (in->req.depth > 0 ? in->req.depth : in->req.users) > 1;
  double prompt_ns[PLAN_CHUNKS];
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&place, (size_t)v->table->n_layers * (size_t)v->table->n_experts + 1, 1, "choice of a chunk"));
  int longest = in->req.chunk_tokens > 0 ? (int)in->req.chunk_tokens : in->chunk_most;
  for (int c = longest, k = 0; k == 0 || (c >= PLAN_CHUNK_LEAST && p->n_chunks < PLAN_CHUNKS);
       c = k++ % 2 == 0 ? c / 4 * 3 : c / 3 * 2) {
    HF_GO(done, plan_set_chunk(in, o, c, s, v));
    if (plan_can_fit(in, s, plan_first_depth(in))) {
      HF_GO(done, request_ns(in, v, overlap, place, &prompt_ns[p->n_chunks], &p->chunk_alone_ns[p->n_chunks],
                             &p->chunk_ns[p->n_chunks]));
      p->chunk[p->n_chunks++] = c;
    }
    if (in->req.chunk_tokens > 0) break;
  }
  best = best_chunk(p, prompt_ns);
  if (p->n_chunks > 0) {
    p->prompt_ns = prompt_ns[best];
    st = plan_set_chunk(in, o, p->chunk[best], s, v);
  }
done:
  free(place);
  return st;
}
