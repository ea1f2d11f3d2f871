/* mla.h: which form latent attention (MLA) takes for a piece of a sequence. The executor chooses by it token by token; the planner, which knows pieces
 * but not where a prompt ends, prices a whole piece by what pays for it: a last piece that is no multiple of MLA_BLOCK is priced plain in all,
 * though its rest is absorbed. Pure arithmetic.
 *
 * A piece is n tokens of one sequence in one step, behind `start` tokens of context; pairs = n * start + n (n + 1) / 2. Work of a head, in
 * multiply-adds of f32 as attention does them:
 *
 *   absorbed   queries are turned into latents, attention is over latents, sums are turned back:
 *              n * lora * (nope + v) / 1.65  +  (pairs + 45 n) * (2 lora + rope)
 *   plain      keys and values of the head are expanded from the latents of the whole context, attention is that of an ordinary head:
 *              (start + n) * lora * (nope + v) / 2.2  +  (pairs + 80 n) * (nope + rope + v)  +  lora * nope * 140
 *
 * Prompts are taken in blocks of MLA_BLOCK tokens, counted from their beginning; a whole block is computed plain where that is less work for
 * its n = MLA_BLOCK tokens behind `start`, which it is for DeepSeek's dimensions (512, 128, 64, 128) anywhere: the crossing is at about 110 tokens at the
 * beginning of a sequence and 70 far behind it. What is left of a prompt, and every token of decode, is absorbed; so is everything where chunks are
 * shorter than a block, as every piece would expand the context anew. The constants were measured (docs/measurements.md, "Latent attention of
 * prompts"): products of weights run 1.65 and 2.2 times as fast as attention, a query costs as much as so many more tokens of context (rows
 * change into lanes and back), and the weights of keys are transposed once a step.
 *
 * The choice goes by a token's place in its prompt alone: it depends on no machine, format or number of threads, on no other sequence and, from
 * MLA_BLOCK on, on no length of chunks (but for shared pages, below), so that neighbours and chunks may cut a prompt anywhere: a token's result does not depend on what shares the
 * call, and bits are the same. Both forms are the same function; chunks shorter than a block, and pages shared with a prompt that ended in the
 * middle of a block, mean another rounding: 1e-5 of a logit with exact activations, what rounding activations costs anyway with fast ones. */
#ifndef HF_SCHED_MLA_H
#define HF_SCHED_MLA_H
#include <stdbool.h>

enum { MLA_BLOCK = 128 };

typedef struct {
  int lora, nope, rope, v;
} mla_shape;

/* Work of a head in the plain form: what grows with the context that is expanded, transposing the weights, and attention itself. */
typedef struct {
  double expand, turn, attend;
} mla_work;
mla_work mla_plain_work(const mla_shape *s, double start, double n);
/* For a piece of n tokens: of at least a block, and a block there is less work plain. */
bool mla_plain_pays(const mla_shape *s, double start, double n);
/* The executor's choice for the token at `pos` of a prompt that is cut into chunks of so many tokens. */
bool mla_plain_token(const mla_shape *s, int pos, int prompt, int chunk);
#endif
