/* ops.h: the operations of a CUDA device, one function each: checks what it is asked, launches on `stream` and returns the runtime's error number,
 * 0 for none, HFC_UNSUPPORTED where it declines. Built twice, by nvcc and for the host (host/host.h); no type of CUDA here.
 *
 * All addresses are the device's, of the element type named. Formats, packed activations, tiles and the KV cache lie as on the host (kernels.h,
 * layouts.h), so experts and pages move between both as they are, and activations are rounded by the same contract. `stream`: a cudaStream_t.
 * n_tok of a call is the most that its launch serves; where `count` is not 0 the kernel reads there how many tokens there really are, so that a
 * recorded launch serves steps of any size up to it.
 * Results of a token depend on no other token, on no count and no order of threads: the same bits. */
#ifndef HF_KERNELS_CUDA_OPS_H
#define HF_KERNELS_CUDA_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HFC_UNSUPPORTED = 801 /* the runtime's number of "not supported" */, HFC_INVALID = 1 };
enum { HFC_MM_TOKENS = 8 };

/* y[t][r] = (old y) + (bias[r]) + sum_c W[r][c] x[t][c] for 1 to 8 tokens. W in KL_TILE16, aligned to 16 bytes; x packed as the format wants,
 * x_bytes apart, aligned to 16. */
typedef struct {
  const void *w;
  int n_rows, n_cols, n_tok;
  const void *x;
  size_t x_bytes;
  float *y;
  size_t y_stride;   /* floats */
  const float *bias; /* or 0 */
  int add;
  const int32_t *count; /* or 0 */
} hfc_mm;
int hfc_mm_f32(const hfc_mm *a, void *stream); /* in KL_ROWS, row_bytes of kern_row_bytes */
int hfc_mm_q8_0(const hfc_mm *a, void *stream);
int hfc_mm_q4_0(const hfc_mm *a, void *stream);
int hfc_mm_q4_1(const hfc_mm *a, void *stream);
int hfc_mm_q5_0(const hfc_mm *a, void *stream);
int hfc_mm_q5_1(const hfc_mm *a, void *stream);
int hfc_mm_q4_k(const hfc_mm *a, void *stream);
int hfc_mm_q5_k(const hfc_mm *a, void *stream);
int hfc_mm_q6_k(const hfc_mm *a, void *stream);
int hfc_mm_iq4_nl(const hfc_mm *a, void *stream);
int hfc_mm_mxfp4(const hfc_mm *a, void *stream);
int hfc_mm_int4(const hfc_mm *a, void *stream);
int hfc_mm_bf16(const hfc_mm *a, void *stream);
int hfc_mm_f16(const hfc_mm *a, void *stream);
int hfc_mm_fp8(const hfc_mm *a, void *stream); /* n_cols a multiple of 4 */

/* kern_act's numbers. */
enum { HFC_F32, HFC_F16, HFC_BF16, HFC_Q8B32 };

/* packed[t] = x[t] rounded as `act`, n numbers a row; the same bits as on the host. */
typedef struct {
  int n_tok, n, act;
  const float *x;
  size_t x_stride; /* floats */
  void *packed;
  size_t packed_bytes;
  const int32_t *count;
} hfc_pack;
int hfc_pack_rows(const hfc_pack *a, void *stream);

/* y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * w: `heads` vectors of n numbers a token, head_stride apart; with packed (one head) that rounded as
 * `act`, too. y may be x, and 0 where only packed is wanted. */
typedef struct {
  int n_tok, n, heads, act;
  size_t head_stride; /* floats, in x and y */
  const float *x, *w;
  float eps;
  size_t x_stride, y_stride;
  float *y;
  void *packed; /* or 0 */
  size_t packed_bytes;
  const int32_t *count;
} hfc_rmsnorm;
int hfc_rmsnorm_rows(const hfc_rmsnorm *a, void *stream);

/* `heads` heads: n numbers from x + offset to y + y_offset, of which the first `dim` are rotated by pos[t]; y may be x where both lie alike.
 * cos, sin: [positions][dim / 2], every scaling (YaRN) inside. pairs: (2i, 2i + 1), else (i, i + dim / 2). */
typedef struct {
  int n_tok, heads, n, dim, pairs;
  const float *x;
  float *y;
  size_t x_stride, y_stride, x_head, y_head, offset, y_offset;
  const float *cos, *sin;
  const int32_t *pos;
  const int32_t *count;
} hfc_rope;
int hfc_rope_rows(const hfc_rope *a, void *stream);

/* Router choice: kern_route for each token, members as in kern_router. Experts ascending. forced: ids imposed where the first is not negative. */
typedef struct {
  int n_tok, n_experts, top_k, n_group, topk_group, score, group, norm;
  float scale;
  const float *bias;   /* or 0 */
  const float *logits; /* [n_tok][stride] */
  size_t stride;
  int32_t *ids;          /* [n_tok][top_k] */
  float *weights;        /* the same */
  const int32_t *forced; /* the same, or 0 */
  const int32_t *count;
} hfc_route;
int hfc_route_rows(const hfc_route *a, void *stream);

/* ids[t] = the lowest index of the largest of n logits; NaN is never it (0 where all are). */
typedef struct {
  int n_tok, n;
  const float *logits;
  size_t stride;
  int32_t *ids;
  const int32_t *count;
} hfc_argmax;
int hfc_argmax_rows(const hfc_argmax *a, void *stream);

/* y[t] = row ids[t] of w as f32: F32 in rows, F16, BF16 and Q8_0 in rows or tiles. Ids are the caller's to check. */
enum { HFC_EMBED_F32, HFC_EMBED_F16, HFC_EMBED_BF16, HFC_EMBED_Q8_0 }; /* kern_format's numbers */
typedef struct {
  int n_tok, n_cols, format, tiles; /* tiles: KL_TILE16, an even number of columns */
  const void *w;
  size_t row_bytes;
  const int32_t *ids;
  float *y;
  size_t y_stride;
  const int32_t *count;
} hfc_embed;
int hfc_embed_rows(const hfc_embed *a, void *stream);

/* y[t] = x[from ? from[t] : t], n numbers a row, or that added to y[t]: gathers, copies to and from the host's rows, adds its results. */
typedef struct {
  int n_tok, n, add;
  const float *x;
  size_t x_stride, y_stride;
  float *y;
  const int32_t *from; /* or 0 */
  const int32_t *count;
} hfc_copy;
int hfc_copy_rows(const hfc_copy *a, void *stream);

/* y[t] = silu(x[t]) * x2[t], or with gate x[t] * sigmoid(x2[t][0]); y may be x. */
typedef struct {
  int n_tok, n, gate;
  const float *x, *x2;
  size_t x_stride, x2_stride, y_stride;
  float *y;
  const int32_t *count;
} hfc_combine;
int hfc_combine_rows(const hfc_combine *a, void *stream);

/* The hand-over. Flags lie in host memory that the device can see. Signal: *flag = value, after all that the stream wrote before. Wait: until
 * *flag >= value, what the host wrote before that being visible to what follows; for limit_ns at the most: then *error = value, unless it is
 * set, and the stream goes on. Where *error is set nothing waits, so a recording that has failed once drains. */
typedef struct {
  int32_t *flag;
  int32_t value;
} hfc_signal;
int hfc_signal_host(const hfc_signal *a, void *stream);
typedef struct {
  const int32_t *flag;
  int32_t *error, value;
  const int64_t *limit_ns;
} hfc_wait;
int hfc_wait_host(const hfc_wait *a, void *stream);

/* The paged KV cache of a layer, as kern_kv and device.h have it; type: kern_kv_type, F32, F16 or BF16 (others are declined). */
typedef struct {
  char *base;
  size_t page_bytes, row_bytes;
  int page_tokens, type;
  const int32_t *page_table; /* [sequences][pages_per_seq] */
  int pages_per_seq;
  const int32_t *seq, *pos; /* [n_tok] */
} hfc_kv;

/* A token's row: heads > 0: keys [heads][k] and values [heads][v]; 0: a latent of k numbers and v rotated ones. */
typedef struct {
  hfc_kv kv;
  int n_tok, heads, k, v;
  const float *keys, *values;
  size_t keys_stride, values_stride;
  const int32_t *count;
} hfc_kv_write;
int hfc_kv_write_rows(const hfc_kv_write *a, void *stream);

/* Attention of one query a token over its sequence up to its position (kern_attn). mla: one KV head of dk numbers whose first dv are the value.
 * part: hfc_attn_part_floats. Contexts are cut into the segments of kern_attn, whose results are folded in ascending order: bits depend on no
 * other token. max_context: the longest context that the launch serves. */
enum { HFC_SEGMENT = 512 };
typedef struct {
  hfc_kv kv;
  int n_tok, mla, n_heads, n_kv_heads, dk, dv, window, max_context;
  float scale;
  const float *sinks; /* [n_heads] or 0 */
  const float *q;
  float *out, *part;
  size_t q_stride, out_stride;
  const int32_t *count;
} hfc_attn;
size_t hfc_attn_part_floats(int n_tok, int n_heads, int dv, int max_context);
int hfc_attn_gqa(const hfc_attn *a, void *stream);
int hfc_attn_mla(const hfc_attn *a, void *stream);

/* The resident experts of a layer for a step of a few tokens, as one sequence of launches whatever was chosen:
 *     hfc_experts_sort    -> lists
 *     hfc_group_F, gated  -> hidden activations of each pair (token, expert), from packed rows of tokens
 *     hfc_pack_rows       -> these packed; count: lists + 1
 *     hfc_group_F         -> the down product of each pair
 *     hfc_experts_sum     -> out
 * The table of experts and the ids are read when a launch runs, so residency may change between steps. Biases 0: none. */
typedef struct {
  const void *gate, *up, *down; /* KL_TILE16; gate 0: not resident */
  const float *gate_bias, *up_bias, *down_bias;
} hfc_expert;
typedef struct {
  const hfc_expert *experts; /* [n_experts], at most 1024 */
  int n_experts, top_k, n_tok;
  const int32_t *ids; /* [n_tok][top_k] ascending */
  int32_t *lists;     /* hfc_experts_lists_ints: how many experts are active, how many pairs; then lists */
  const int32_t *count;
} hfc_experts_lists;
size_t hfc_experts_lists_ints(int n_experts, int top_k, int n_tok);
int hfc_experts_sort(const hfc_experts_lists *a, void *stream);

typedef struct {
  const hfc_expert *experts;
  const int32_t *lists;
  int n_experts, top_k, n_tok;
  int n_rows, n_cols, gated;
  const void *x; /* packed; gated: of tokens, else of pairs */
  size_t x_bytes;
  float *y; /* of pairs */
  size_t y_stride;
  float limit; /* of a clamped SwiGLU, 0: none */
} hfc_group;
int hfc_group_q8_0(const hfc_group *a, void *stream);
int hfc_group_q4_0(const hfc_group *a, void *stream);
int hfc_group_q4_k(const hfc_group *a, void *stream);
int hfc_group_q6_k(const hfc_group *a, void *stream);
int hfc_group_bf16(const hfc_group *a, void *stream);
int hfc_group_fp8(const hfc_group *a, void *stream);
int hfc_group_mxfp4(const hfc_group *a, void *stream);
int hfc_group_int4(const hfc_group *a, void *stream);

typedef struct {
  const int32_t *lists;
  int n_experts, top_k, n_tok, n, add;
  const float *weights; /* [n_tok][top_k] */
  const float *part;    /* of pairs */
  size_t part_stride;
  float *out;
  size_t out_stride;
  const int32_t *count;
} hfc_experts_sum_of;
int hfc_experts_sum(const hfc_experts_sum_of *a, void *stream);

#ifdef __cplusplus
}
#endif
#endif
