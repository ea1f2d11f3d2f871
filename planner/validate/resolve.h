/* resolve.h: from the free text of a published row to what the planner understands: catalog model, weight format, machine parts, engine, placement,
 * lengths. By rules that hold for every row; where the text does not say enough, the row is declined with the reason.
 *
 *   model, cpu, gpu   the catalog entry whose name or alias stands in the text as whole words (the longest; punctuation and blanks alike);
 *                     "none" in gpu: no GPU
 *   model             a size in it ("235B") must be the model's
 *   cpu, gpu          "2x" or "dual" in front or "x2" behind: two sockets; several GPUs are declined. "N threads" in placement: so many of the
 *                     CPU's; "per socket" in placement: one socket of it
 *   memory            MRDIMM or DDRn and its speed name the modules; "N GB/s" is a read bandwidth somebody measured, and goes before modules and
 *                     speed; without a speed the fastest modules that the CPU takes
 *   weights_format    the first words that name a known format ("IQ4_K_R4", "UD-Q2_K_XL", "GGUF Q8", "INT8"); "CPU buffer N MiB" are the bytes of
 *                     the routed experts on the CPU
 *   engine            the name it begins with; ik_llama.cpp without row-interleaved weights (neither "rtr" nor a format in _R4/_R8) and
 *                     ktransformers with "no cuda graph" are modes of their own, with priors of their own
 *   placement         "layer A on GPU", "layers A-B on GPU": experts of these layers; "--n-cpu-moe N": the first N MoE layers on the CPU, the
 *                     others on the GPU; "N expert layers": the first N MoE layers on the GPU; else all experts on the CPU. "ub N": tokens
 *                     of a prompt's step; "op offload off": no weights are sent to the GPU for prompts; nor are they where they are
 *                     row-interleaved in a way that GPUs have no kernels for: all of "rtr", and k-quants in _R4 or _R8
 *   notes             "6 experts" in front: fewer experts per token than the model has; declined
 *   lengths           notes with "sweep-bench": prompt_tokens is the prompt's step, at the depth context_tokens, and decode at that depth
 *                     (what that tool measures). Else decode at the middle of context_tokens, without it behind the prompt, without that at 512
 *   ranks             "TPn" in the placement: n pools share each layer, with barriers of their own
 *   prefill           is declined without prompt_tokens, decode without decode_tok_s */
#ifndef HF_PLANNER_VALIDATE_RESOLVE_H
#define HF_PLANNER_VALIDATE_RESOLVE_H
#include "model/model.h"
#include "planner/validate/cases.h"
#include "planner/validate/engine.h"

enum { RESOLVED_TEXT = 200 };

typedef struct {
  const published_case *c;
  bool used;
  char why_not[RESOLVED_TEXT];    /* not used */
  char no_prefill[RESOLVED_TEXT]; /* used, but its prefill is not compared; "" when it is */
  char model[64], parts[256];     /* catalog name; text for catalog_parts_parse */
  char machine[96];               /* class of the machine: CPU, sockets and memory, without the GPU */
  char box[64];                   /* what is left out together: the CPU, whatever sockets and GPUs are used */
  char engine[32];
  fmt format;
  char format_name[32];
  engine_machine em;
  bool gpu, experts_on_cpu;
  int gpu_first, gpu_layers; /* layers whose experts are on the GPU */
  double expert_bytes;       /* of one routed expert, where stated; 0 = by format */
  int users;
  double context, prefill_start; /* of decode; tokens before the prompt's first */
  double prompt, chunk;          /* 0 = unknown */
  bool can_upload;               /* the engine has GPU kernels for weights stored so */
  fmt kv;                        /* type of the KV cache */
} resolved_case;

/* Catalog names and aliases of a kind, prepared for look-ups in text. */
typedef struct name_list name_list;
typedef struct {
  name_list *models, *cpus, *gpus;
} resolver;
HF_MUST hf_status resolver_new(resolver *r);
void resolver_free(resolver *r);

/* Never fails on what the row says: that makes it declined. */
HF_MUST hf_status resolve_case(const resolver *r, const published_case *c, resolved_case *out);

/* The entry whose name or alias stands in the text as whole words; NULL when none does. */
const char *resolve_name(const name_list *l, const char *text);
#endif
