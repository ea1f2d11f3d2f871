/* stages.h: how long each stage of a step takes, as tables. The pivot between the rooms:
 *   planner/cost fills it for (model, format, machine) from database rows;  the ILP tabulates T_l(k) from it;  the simulator and the
 *   paced device end stages by it. One struct, so that they cannot disagree. Pure: no clock, no I/O but JSON text.
 *
 * A step of a micro-batch with T tokens passes, per layer, through
 *   attn     device: norm, projections, rope, KV write, attention over context, output projection, residual, ffn norm, router
 *   hand     hand-over of activations device -> CPU and of results back (CPU experts needed only)
 *   shared   device: shared experts (or the dense FFN of a dense layer)
 *   dexp     device: resident routed experts
 *   cexp     CPU: the other routed experts, all workers
 *   upload   link: weights of the other routed experts, where a prompt's step has them sent to the device instead
 * and after the last layer `head` (final norm, logits, sampling). Times in ns, non-negative, non-decreasing in tokens.
 *
 * A routed expert lives in a place, one byte: 0 = this machine's CPU, 1 + d = device d, 1 + n_devices + r = the CPU of other machine r. Each
 * layer has a home device that holds its attention and shared parts; experts elsewhere work at the same time as the home device and the
 * CPU. With one device (n_devices 1, home 0) the byte says "resident" and nothing else is needed. */
#ifndef HF_SCHED_STAGES_H
#define HF_SCHED_STAGES_H
#include "base/json.h"
#include "sched/mla.h"

enum {
  STAGE_CURVE_MAX = 16,
  STAGE_PASS_MAX = 16,
  STAGE_MAX_DEVICES = 8,
  STAGE_MAX_REMOTES = 7,
  STAGE_MAX_PLACES = 1 + STAGE_MAX_DEVICES + STAGE_MAX_REMOTES
};
/* Piecewise linear over tokens, which rise. Below the first point: its ns; beyond the last: the last slope (n = 1: a constant).
 * A product that takes `pass` tokens at a time over its weights does not gain as much from a pass that is not full: r tokens of it take as long as
 * part[r] tokens of a full one, r <= part[r] <= pass, rising. Points beyond `pass` tokens are of full passes then. pass 0: nothing is known of that. */
typedef struct {
  int n;
  double tok[STAGE_CURVE_MAX], ns[STAGE_CURVE_MAX];
  int pass;
  double part[STAGE_PASS_MAX]; /* [pass]; part[0] = 0 */
} stage_curve;
double stage_curve_at(const stage_curve *c, double tokens);
/* The same at any number of tokens, by their points and passes. */
bool stage_curve_same(const stage_curve *a, const stage_curve *b);

/* Experts of a layer in a place other than the CPU and the layer's home device. */
typedef struct {
  stage_curve exp;             /* one expert, over M */
  double fixed_ns;             /* per layer that has experts there */
  double hand_ns, hand_tok_ns; /* activations there and results back: fixed, and per token of the micro-batch */
} stage_place;

typedef struct {
  bool moe;
  bool slides;            /* attention sees the last stage_table.window tokens only */
  int home;               /* device of attention and shared parts */
  stage_curve attn;       /* over T, context part not included */
  double attn_seq_ns;     /* per sequence: the first of its context, which no one has asked memory for yet */
  double attn_ctx_ns;     /* per query token and token of context */
  double attn_seq_ctx_ns; /* per sequence and token of context (KV bytes read once per sequence) */
  stage_curve shared;     /* shared experts or dense FFN, over T; n = 1, ns 0 when there is none */
  stage_curve dexp;       /* one resident expert, over its tokens M */
  stage_curve cexp;       /* one CPU expert on all workers, over M */
  double cexp_fixed_ns;   /* per layer that has CPU experts: wake, barriers */
  double dexp_fixed_ns;   /* per layer that has resident experts */
  double hand_ns;         /* per layer that has CPU experts: both directions, fixed */
  double hand_tok_ns;     /* per token of the micro-batch, both directions */
  double upload_ns;       /* one expert's weights over the link (prefill by upload); 0 = cannot be uploaded */
} stage_layer;

/* Attention of a piece of a prompt, more than one token of a sequence in a step, counted in what one query of decode takes over one token of context
 * (attn_ctx_ns), the same for every layer: pair * pairs + query * tokens; in the plain form of latent attention plain_attend,
 * plain_expand and plain_turn times the three parts of mla_plain_work, and plain_query a token, which is negative: its query is not turned into a latent, nor
 * its sums back, which `attn` has in it. */
typedef struct {
  double pair, query; /* 1, 0 unless something else is known */
  mla_shape mla;      /* lora 0: no latent attention, or always absorbed */
  double plain_attend, plain_expand, plain_turn, plain_query;
} stage_prompt;

typedef struct {
  int n_layers, n_experts, top_k;
  int n_devices, n_remotes; /* one_resource: 0 devices */
  stage_layer *layer;       /* [n_layers], owned */
  stage_place
      *place; /* [(n_devices + n_remotes) * n_layers], owned; entry of a layer's home device not read. NULL with at most one
                         * device and no other machine */
  stage_prompt prompt;
  double near_tokens,
      near_more;    /* each of the first near_tokens of a decoded token's context takes 1 + near_more times attn_ctx_ns: rows that
                                  * memory has not been asked for long enough */
  int window;       /* of sliding layers, in tokens, the query itself counted; 0 = none slides */
  stage_curve head; /* over tokens that want logits */
  double
      step_fixed_ns; /* per step, before its first layer, on the host: sampling of the last tokens, scheduling, launch and waking of who
                         * sleeps. Part of the step's time, but it occupies neither devices nor the CPU's workers: other micro-batches go on */
  bool one_resource;  /* no device: everything runs on the CPU, nothing overlaps */
  double contend;     /* 1..2: what overlapping work of the home device and the CPU costs both: a and b together last
                      * max(a, b) + (contend - 1) * min(a, b). 1 = they do not disturb each other */
  double contend_dma; /* 1..2: the same of uploads, which read the memory that the CPU's experts are in, and the CPU */
  char tag[16];       /* weakest tag among what went in: measured, scaled, spec, assumed */
} stage_table;

/* n_layers zeroed layers, one device, contend and contend_dma 1. */
HF_MUST hf_status stage_table_new(int n_layers, stage_table **out);
/* Makes room for further places (zeroed); before anything is read of them. */
HF_MUST hf_status stage_table_places(stage_table *t, int n_devices, int n_remotes);
/* Entry of a place (1 + d or 1 + n_devices + r) for a layer. */
stage_place *stage_place_of(const stage_table *t, int layer, int place);
bool stage_place_same(const stage_place *a, const stage_place *b);
/* a and b at the same time, on the home device and on the CPU. */
double stage_overlap_ns(const stage_table *t, double a, double b);
void stage_table_free(stage_table *t);
/* Members into parent. Equal neighbouring layers are written once with their count. */
HF_MUST hf_status stage_table_to_json(const stage_table *t, json *parent);
/* HF_INPUT unless tokens rise, times do not fall, are at most 1e18 ns and grow by at most that per token, and a MoE layer has
 * experts to choose from. */
HF_MUST hf_status stage_table_from_json(const json *obj, const char *where, stage_table **out);

/* Popularity of experts: p[layer][expert] = probability that a token chooses it (sums to top_k per layer). */
typedef struct {
  int n_layers, n_experts;
  double *p;       /* [n_layers * n_experts], owned */
  double *prefill; /* the same for tokens of prompts where they were counted apart, owned; NULL = as p */
  char source[64]; /* "uniform", "zipf:0.8", "run 12", "census" */
} popularity;
HF_MUST hf_status popularity_new(int n_layers, int n_experts, popularity **out);
HF_MUST hf_status popularity_copy(const popularity *from, popularity **out);
void popularity_free(popularity *p);
/* That of prompts, borrowed from p: for whatever takes a popularity. Not to be freed. */
popularity popularity_of_prompts(const popularity *p);
/* P(at least one of T tokens chooses it) = 1 - (1-p)^T, tokens independent; between whole T on the line between (a mixture of both). The same
 * bits on every machine, and so for all that follows. */
double expert_hit(double p, double tokens);
/* Expected time of one expert for T tokens of the micro-batch: sum over M of Binomial(T, p)(M) * curve(M); exact up to T = 64, beyond without what
 * is a hundred million times less likely than the likeliest M. */
double expert_time_ns(const stage_curve *c, double p, int tokens);

/* Device part and CPU part of layer l for a micro-batch of T tokens with mean context ctx, experts in on_device (one place byte each, or
 * NULL = all on the CPU). dexp: the layer's home device. place_ns[p]: experts of any other place p, its hand-over included. */
typedef struct {
  double attn_ns, hand_ns, shared_ns, dexp_ns, cexp_ns;
  double upload_ns; /* link time; then cexp and hand are 0 and dexp holds the uploaded experts too */
  double place_ns[STAGE_MAX_PLACES];
} layer_times;
layer_times stage_layer_times(const stage_table *t, const popularity *pop, int layer, int tokens, double ctx,
                              const uint8_t *on_device);
/* The same for any mixture of decode tokens and prompt pieces. stage_layer_times is the case of one token per sequence:
 * query_context = seq_context = tokens * ctx. */
typedef struct {
  int tokens;           /* of the micro-batch's step */
  double seqs;          /* sequences in it */
  double query_context; /* sum over its tokens of the context each attends to, those of prompts as stage_prompt counts them */
  double seq_context;   /* sum over its sequences of the context read */
  double query_window, seq_window; /* the same with each context cut at the table's window; read for sliding layers only */
  bool
      upload; /* experts that live on the CPU are sent to the home device for this step, in layers of which no other machine has any */
} stage_load;
/* Context of so many tokens as one decoded token sees it, in tokens that take attn_ctx_ns. */
double stage_context(const stage_table *t, double ctx);
/* Adds n tokens of one sequence that follow start tokens: the only way sums are made, so that window and context agree. */
void stage_load_add(stage_load *load, const stage_table *t, int64_t start, int64_t n);
double stage_attn_ns(const stage_table *t, int layer,
                     const stage_load *load); /* its attn part alone: the only one that sees context */
layer_times stage_layer_times_load(const stage_table *t, const popularity *pop, int layer, const stage_load *load,
                                   const uint8_t *on_device);
#endif
