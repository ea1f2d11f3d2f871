/* mla.h: which form latent attention (MLA) takes for a piece of a sequence. The executor chooses by it and the planner prices by it. Pure arithmetic.
 *
 * A piece is n tokens of one sequence in one step, behind `start` tokens of context; pairs = n * start + n (n + 1) / 2. Work of a head, in
 * multiply-adds of f32 as attention does them:
 *
 *   absorbed   queries are turned into latents, attention is over latents, sums are turned back:
 *              n * lora * (nope + v) / 1.65  +  (pairs + 45 n) * (2 lora + rope)
 *   plain      keys and values of the head are expanded from the latents of the whole context, attention is that of an ordinary head:
 *              (start + n) * lora * (nope + v) / 2.2  +  (pairs + 80 n) * (nope + rope + v)  +  lora * nope * 140
 *
 * The plain form is taken where that is less: for DeepSeek's dimensions (512, 128, 64, 128) from about 110 tokens on at the beginning of a sequence, from
 * 70 on far behind it; one token is always absorbed. The constants were measured (docs/measurements.md, "Latent attention of prompts"): products
 * of weights run 1.65 and 2.2 times as fast as attention, a query costs as much as so many more tokens of context (rows change into lanes and
 * back), and the weights of keys are transposed once a step.
 *
 * The choice depends on no machine, format or number of threads, and on no other sequence: neighbours in a step may cut a prompt elsewhere, but each
 * of its tokens is computed in the form of its place (mla_plain_token), and its result does not depend on what shares the call, so that bits are
 * the same. The length of the prompt and that of a chunk do decide it; both forms are the same function, and what other chunks change is
 * rounding: 1e-5 of a logit with exact activations, what rounding activations costs anyway with fast ones. */
#ifndef HF_SCHED_MLA_H
#define HF_SCHED_MLA_H
#include <stdbool.h>

typedef struct {
  int lora, nope, rope, v;
} mla_shape;

/* Work of a head in the plain form: what grows with the context that is expanded (and the transposed weights), and attention itself. */
typedef struct {
  double expand, attend;
} mla_work;
mla_work mla_plain_work(const mla_shape *s, double start, double n);
bool mla_plain_pays(const mla_shape *s, double start, double n);
/* The executor's choice for the token at `pos` of a prompt: that for the piece which it would be in if its prompt were alone and cut into chunks from
 * its beginning on. */
bool mla_plain_token(const mla_shape *s, int pos, int prompt, int chunk);
#endif
