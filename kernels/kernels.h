/* kernels.h: every numeric operation of the suite, behind one dispatch table, with the scalar reference as definition.
 *
 * Variants. kernels/ref holds the definition in plain C; kernels/x86 holds AVX2 and AVX-512 bodies, one operation per file,
 * flags set per source file; kernels/onednn has products by a library, where it was found. kern_init() detects CPU features once (CPUID and OS register state), ANDs them with the mask
 * from HF_ISA (or --isa): "scalar", "avx2", "avx512", "avx512bf16"…, and fills the table. "Present but slow" is its own flag.
 *
 * Activation rounding belongs to the weight format (kern_act_of), never to the ISA or the device:
 *     weights      activations before the product           exact mode
 *     F32          F32                                       F32
 *     F16          F16 (round to nearest even)               F32
 *     BF16, FP8    BF16 (round to nearest even)              F32
 *     all others   Q8B32: per block of 32, d = amax/127 as   F32
 *                  f32, q = roundevenf(x/d), int8
 * One rounding for all formats in blocks, so that a token is packed once whatever its experts are stored in.
 * Products and sums are f32. Of blocks: weight i is scale * q_i - min with one scale (and minimum) per group of 16 or 32; inside a group
 * sum(q_w q_x) and sum(q_x) are exact integers, then the group gives scale * d_x * sum(q_w q_x) - min * d_x * sum(q_x) in f32.
 *
 * Batch invariance. Within one candidate the value of y[t][r] depends on row r and token t alone: same bits for any n_tok, any
 * row range, any number of threads. Different candidates may differ in summation order (rounding).
 *
 * Threads. Every function is re-entrant and allocates nothing; callers split rows, heads or tokens. */
#ifndef HF_KERNELS_KERNELS_H
#define HF_KERNELS_KERNELS_H

#include "base/status.h"

/* Weight formats that kernels compute with (a subset of model/format.h, mapped by name in the loader: kernels knows no model). */
typedef enum {
  KF_F32,
  KF_F16,
  KF_BF16,
  KF_Q8_0,
  KF_Q4_0,
  KF_Q4_1,
  KF_Q5_0,
  KF_Q5_1,
  KF_Q2_K,
  KF_Q3_K,
  KF_Q4_K,
  KF_Q5_K,
  KF_Q6_K,
  KF_IQ4_NL,
  KF_IQ4_XS,
  KF_MXFP4,
  KF_NVFP4,
  KF_INT4 /* blocks of 32 like Q4_0, the scale BF16: what INT4 of compressed-tensors is read as */,
  KF_FP8 /* E4M3 in blocks of 128, an f32 scale before each, the last block shorter: what checkpoints with 128 x 128 scales are read as */
  ,
  KF_TQ1_0,
  KF_TQ2_0,
  KF_IQ1_S /* from here on: points of a codebook */,
  KF_IQ1_M,
  KF_IQ2_XXS,
  KF_IQ2_XS,
  KF_IQ2_S,
  KF_IQ3_XXS,
  KF_IQ3_S,
  KF_N
} kern_format;
typedef enum { KA_F32, KA_F16, KA_BF16, KA_Q8B32, KA_N } kern_act;

/* Layout: KL_ROWS is the stored layout, rows one after another. KL_TILE16 interleaves 16 rows, the same for every instruction set, in the same
 * number of bytes (the last tile is filled up with zero rows); it may be cut at multiples of 16 rows, where row r still begins at
 * data + r * row_bytes. All formats have it but F32, NVFP4, TQ1_0, TQ2_0 and those of codebooks;
 * BF16 and F16 in an even number of columns, FP8 in a multiple of 4. */
typedef enum { KL_ROWS, KL_TILE16, KL_N } kern_layout;

typedef struct {
  kern_format format;
  kern_layout layout;
  int n_rows, n_cols; /* y has n_rows values, x has n_cols */
  size_t row_bytes;   /* distance between rows; >= kern_row_bytes(format, n_cols), in tiles equal to it */
  const void *data;   /* at least 2-byte aligned (GGUF guarantees 32, safetensors nothing) */
} kern_mat;

size_t kern_row_bytes(kern_format f, int n_cols);
size_t kern_mat_bytes(kern_layout l, kern_format f, int n_rows, int n_cols);
/* Repacks rows [row0, row1) of a matrix in KL_ROWS, row0 a multiple of 16, row1 too unless it is n_rows. tiles: where row 0 of the tiled
 * matrix begins; kern_mat_bytes(KL_TILE16, ...) bytes, of which only those rows' are written. The tiled matrix has row_bytes of
 * kern_row_bytes(). Ranges may be repacked by different threads. */
void kern_tile_pack(const kern_mat *rows, int row0, int row1, void *tiles);
/* Elements per block along a row: n_cols must be a multiple (F32, F16, BF16, FP8: 1; Q8_0: 32; K formats: 256). */
int kern_block(kern_format f);
const char *kern_format_name(kern_format f); /* "q8_0", as in the database */
bool kern_format_parse(const char *name, kern_format *out);
kern_act kern_act_of(kern_format f, bool exact); /* the contract above */
const char *kern_act_name(kern_act a);
/* Bytes of one packed activation vector of n elements, a multiple of 64. n may be any number; Q8B32 pads with zeros. */
size_t kern_act_bytes(kern_act a, int n);
/* Room for n elements packed as any act: not every packing is smaller than f32 (Q8B32 of few elements is not). */
static inline size_t kern_act_bytes_any(int n) {
  size_t most = 0;
  for (int a = 0; a < KA_N; a++) {
    size_t b = kern_act_bytes((kern_act)a, n);
    most = b > most ? b : most;
  }
  return most;
}

/* y[t][r] = sum_c W[r][c] x[t][c] for r in [row0, row1), t in [0, n_tok).
 * x[t] points to a packed activation (kern_act_bytes, 64-byte aligned); y[t] points to the float of row 0 of token t. Only rows
 * row0..row1-1 are written. Arrays of pointers let callers gather tokens without copying. */
typedef void kern_mm_fn(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y);

typedef struct {
  const char *name; /* "q8_0.avx512vnni": what the profiler stores and the plan names */
  unsigned isa;     /* KERN_ISA_* needed */
  kern_format format;
  kern_act act;
  kern_layout layout;
  int max_tok;      /* accepts 1..max_tok tokens a call; 0 = any */
  int col_multiple; /* accepts n_cols that are multiples of this */
  kern_mm_fn *fn;
  int min_tok;  /* kern_mm_pick takes it from so many tokens on; fn accepts fewer, too */
  bool library; /* of oneDNN: kern_mm_pick takes it only when it is preferred, and where the library does not decline */
  bool
      rounded; /* weights and activations are rounded to BF16 besides; ".rounded." in the name says so to those who see only rows */
} kern_mm_candidate;

/* "oneDNN 2.6.3", or why there is none or it is not used. */
const char *kern_library_state(void);

enum {
  KERN_ISA_SCALAR = 0,
  KERN_ISA_AVX2 = 1 << 0 /* with FMA, F16C */,
  KERN_ISA_AVX512 = 1 << 1 /* F, BW, VL, DQ */,
  KERN_ISA_AVX512_VNNI = 1 << 2,
  KERN_ISA_AVX512_BF16 = 1 << 3,
  KERN_ISA_AMX_INT8 = 1 << 4,
  KERN_ISA_AMX_BF16 = 1 << 5,
  KERN_ISA_AVX512_VBMI = 1 << 6 /* no level of its own: used with BF16 where it is */,
  KERN_ISA_SLOW_GATHER = 1 << 16
};

/* Packs n floats. Every variant gives the same bits. */
typedef void kern_pack_fn(const float *x, int n, void *out);

/* Paged KV cache of one layer: numbers of F32, F16 or BF16, or Q8_0: blocks of 32 int8 with an F16 scale, 34 bytes, quantised as activations are (Q8B32).
 * Row r of page p begins at base + p*page_bytes + r*row_bytes; a row is what a token has.
 *   MLA: latent and rotated part; Q8_0: the int8 of both, filled up with zeros to a multiple of 32, then their scales.
 *   Heads: rows are taken in groups of KERN_KV_GROUP tokens, which begin where their first row would. In a group one head after another:
 *     keys   [k][token]       one dimension of 16 tokens side by side: scores have tokens in lanes
 *     values [token][v]
 *   of Q8_0, with dimensions filled up with zeros to a multiple of 32:
 *     keys         [k / 4][token][4]     four dimensions of 16 tokens are a vector of 64 bytes
 *     their scales [k / 32][token]
 *     values       [token][v]
 *     their scales [v / 32][token]
 *   Pages of fewer tokens (not of Q8_0; slower), and calls with kern_attn.many: the keys of all heads, then their values, row by row. */
typedef enum { KV_F32, KV_F16, KV_BF16, KV_Q8_0, KV_N } kern_kv_type;
enum { KERN_KV_GROUP = 16 };
typedef struct {
  const char *base;
  size_t page_bytes, row_bytes;
  const int32_t *pages; /* page table of the sequence: token i lies in page pages[i / page_tokens], row i % page_tokens */
  int page_tokens;      /* power of two; Q8_0 of heads: a multiple of KERN_KV_GROUP */
  kern_kv_type type;
} kern_kv;
/* What a token has: n_heads heads with k and v dimensions; MLA: n_heads 0, latents of k numbers and a rotated part of v. */
typedef struct {
  int n_heads, k, v;
} kern_kv_shape;
const char *kern_kv_name(kern_kv_type t); /* "q8_0", as in a plan */
bool kern_kv_parse(const char *name, kern_kv_type *out);
/* Tokens whose numbers lie among each other, so that pages are copied in whole groups of so many; heads: not MLA. */
static inline int kern_kv_grain(bool heads, int page_tokens) {
  return heads && page_tokens >= KERN_KV_GROUP ? KERN_KV_GROUP : 1;
}
size_t kern_kv_row_bytes(kern_kv_type t, const kern_kv_shape *s);
/* Token i's numbers into the cache and back; with the global table. k: [n_heads][k], v: [n_heads][v]. */
void kern_kv_write(const kern_kv *kv, const kern_kv_shape *s, int i, const float *k, const float *v);
void kern_kv_read(const kern_kv *kv, const kern_kv_shape *s, int i, float *k, float *v);

/* Attention of n_q queries at the positions pos0, pos0 + 1, ... of one sequence. Heads are grouped by the KV head they read: row r of KV head g is
 * query r / per and head g * per + r % per, with per = n_heads / n_kv_heads; it sees tokens up to its own position, window > 0: the last
 * `window` of them. out = sum_i softmax_i(scale * q.k_i) v_i, a sink (one per head, or NULL) takes part in the denominator only.
 *   GQA: dk = dv = head_dim (expanded latent attention, mla.h: dk = nope + rope, dv of its own); q, out [n_heads][head_dim] a query
 *   MLA, absorbed: n_kv_heads 1, dk = lora + rope, dv = lora, the value is the key's first dv elements; q [n_heads][dk], out [n_heads][dv]
 *
 * Over a cache in Q8_0 queries are rounded as Q8B32, of whole blocks (of zeros behind dk), so that scores are products of whole numbers with scales:
 * sum over blocks of d_k * d_q * sum(q_k q_q). Weights are not rounded.
 *
 * Context is cut into segments of KERN_ATTN_SEGMENT tokens at fixed positions, a segment into blocks of KERN_ATTN_BLOCK. A row's partial result of a
 * segment (maximum, sum, weighted values, the softmax kept online over blocks) and their fold in ascending order are the same
 * operations in the same order whoever computes them and whichever rows share the call: bits depend on the row alone. */
enum { KERN_ATTN_SEGMENT = 512, KERN_ATTN_BLOCK = 64, KERN_ATTN_ROWS = 64, KERN_ATTN_HEADS = 16 };
typedef struct {
  kern_kv kv;
  bool mla;
  bool many; /* rows lie in lanes however few heads a KV head has: for calls that always have many queries. One KV head */
  int n_heads, n_kv_heads, dk, dv;
  float scale;
  int window;
  const float *sinks;
  int n_q, pos0;
  const float *q; /* of the first query; the next ones are q_stride floats apart */
  float *out;
  size_t q_stride, out_stride;
} kern_attn;
/* What all variants fit in. */
size_t kern_attn_part_floats(int n_rows, int dv);
size_t kern_attn_scratch_bytes(int dk, int dv);
/* Row r of KV head g sees the tokens [first, end). */
static inline int kern_attn_end(const kern_attn *a, int r) {
  return a->pos0 + r / (a->n_heads / a->n_kv_heads) + 1;
}
static inline int kern_attn_first(const kern_attn *a, int r) {
  int end = kern_attn_end(a, r);
  return a->window > 0 && end > a->window ? end - a->window : 0;
}
static inline const float *kern_attn_query(const kern_attn *a, int g, int r) {
  int per = a->n_heads / a->n_kv_heads;
  return a->q + (size_t)(r / per) * a->q_stride + (size_t)(g * per + r % per) * (size_t)a->dk;
}
static inline float *kern_attn_out(const kern_attn *a, int g, int r) {
  int per = a->n_heads / a->n_kv_heads;
  return a->out + (size_t)(r / per) * a->out_stride + (size_t)(g * per + r % per) * (size_t)a->dv;
}
static inline const char *kern_kv_row(const kern_kv *kv, int i) {
  unsigned token = (unsigned)i, per_page = (unsigned)kv->page_tokens;
  unsigned page = token >> __builtin_ctz(per_page);
  return kv->base + (size_t)kv->pages[page] * kv->page_bytes + (size_t)(token & (per_page - 1)) * kv->row_bytes;
}

typedef struct {
  const char *isa_name; /* best instruction set in use, e.g. "avx512+vnni+bf16" */
  unsigned isa;

  kern_pack_fn *pack[KA_N];
  /* kern_encode_row; every variant gives the same bits */
  void (*encode)(kern_format f, const float *x, int n_cols, void *row);

  /* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]; mean accumulated in f32, fixed order within a variant. y may be x. */
  void (*rmsnorm)(const float *x, const float *w, float eps, int n, float *y);
  /* out[i] = silu(gate[i]) * up[i]; out may be gate */
  void (*swiglu)(const float *gate, const float *up, int n, float *out);
  /* gpt-oss: out = (u + 1) * g * sigmoid(1.702 g) with g = min(gate, limit), u = up cut to +-limit; out may be gate */
  void (*swiglu_clamped)(const float *gate, const float *up, float limit, int n, float *out);
  /* y += a * x */
  void (*axpy)(float a, const float *x, int n, float *y);
  float (*dot)(const float *a, const float *b, int n);

  /* Attention of the rows [r0, r1) of the KV heads [g0, g1) over context segments [s0, s1); see kern_attn. part NULL: s0..s1 holds all that
   * the rows see, results go to out. Else KV head g of segment s leaves its partial result at part + ((s - s0) * (g1 - g0) + g - g0) *
   * kern_attn_part_floats(r1 - r0, dv), and attn_merge turns n_seg segments, in ascending order, into out: the same bits. Both are called
   * with the same rows and heads. KV heads that are computed together are read together, which memory likes; at most KERN_ATTN_HEADS of
   * them and KERN_ATTN_ROWS rows of all together. scratch: kern_attn_scratch_bytes(), 64-byte aligned, any content. */
  void (*attn)(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch);
  void (*attn_merge)(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch);
  /* The partial result of a later segment, of one KV head, into that of earlier ones; `many` only. attn_merge of what comes out ends it. */
  void (*attn_fold)(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch);
  /* n floats to KV elements of F32, F16 or BF16 and back */
  void (*kv_store)(kern_kv_type t, const float *x, int n, void *dst);
  void (*kv_load)(kern_kv_type t, const void *src, int n, float *x);
  /* n int8 with a scale (F16) for each 32 of them */
  void (*kv_unpack)(const int8_t *q, const void *scales, int n, float *x);
} kern_table;

/* Elements [lo, hi) of a vector of n into their place in the packed vector `out`, with the global table; lo is a multiple of 32, hi too unless it
 * is n. x points to element lo. The piece that ends at n writes the padding, so that all pieces together are what pack writes. */
void kern_pack_part(kern_act a, const float *x, int lo, int hi, int n, void *out);

/* Fills the table once; later calls return at once. mask_name NULL: $HF_ISA, else everything the machine has. HF_INPUT for an
 * unknown name; asking for more than the machine has is HF_UNSUPPORTED. */
HF_MUST hf_status kern_init(const char *mask_name);
/* For tests: a table for any mask the machine supports, independent of the global one. */
HF_MUST hf_status kern_table_for(unsigned isa_mask, kern_table *out);
const kern_table *kern_get(void); /* after kern_init */
unsigned kern_isa_detected(void);
/* "absent", "present, permitted" or "present, not permitted by the operating system": Linux lets a process use the tile registers of AMX after it has
 * asked, which kern_isa_detected does once, for all threads. Without permission the AMX bits are not among the detected ones. */
const char *kern_amx_state(void);
HF_MUST hf_status kern_isa_parse(const char *name, unsigned *mask);

/* All candidates of (format, act) that the mask allows, best first, the reference last. Returns how many; writes at most max. */
int kern_mm_candidates(unsigned isa_mask, kern_format f, kern_act a, const kern_mm_candidate **out, int max);
/* First candidate that accepts layout and shape under the global table; never NULL where the format has the layout (the reference accepts
 * everything). preferred: a name from the plan or NULL. */
const kern_mm_candidate *kern_mm_pick(kern_format f, kern_act a, kern_layout l, int n_cols, int n_tok, const char *preferred);
/* The layout in which products of (f, a) with n_cols columns are fastest under the global table: what weights are repacked to when they are loaded. */
kern_layout kern_best_layout(kern_format f, kern_act a, int n_cols);

/* What a plan says about candidates: the one measured fastest for (use, format, tokens). Set before work starts, read by all threads
 * afterwards; ranges of one use and format must not overlap. HF_NOT_FOUND when this machine or mask has no such candidate, HF_INPUT when the
 * table (64 entries) is full, HF_MACHINE when a library's product differs from the reference, which is looked at now. kern_forget drops all. */
typedef enum { KERN_USE_MATMUL, KERN_USE_EXPERTS } kern_use;
HF_MUST hf_status kern_prefer(kern_use use, kern_format f, int tokens_lo, int tokens_hi, const char *candidate);
void kern_forget(void);
/* Its name, or NULL: for kern_mm_pick. */
const char *kern_preferred(kern_use use, kern_format f, int n_tok);

/* To f32, exactly as the file format defines it. The definition used by exact mode, by tests and for rows of the embedding. */
void kern_dequant_row(kern_format f, const void *row, int n_cols, float *out);
/* Row r of a matrix in any layout. */
void kern_mat_row(const kern_mat *w, int r, float *out);
/* From f32 to F32, F16, BF16, FP8 (per block, scale = amax/448, nearest even) or Q8_0 (as ggml's reference: d = amax/127 stored f16,
 * q = roundf(x * (1/d))); no other format. For tests. */
void kern_quant_row(kern_format f, const float *x, int n_cols, void *row);
/* From f32 to any format that kern_can_encode (those of kern_quant_row, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K): what files are
 * written with. Blocks of 32 have the bits of ggml's reference quantiser; IQ4_NL and blocks of 256 have scales fitted by least squares, every weight counting the same (no importance
 * matrix). n_cols is a multiple of the block. Values must be finite. */
bool kern_can_encode(kern_format f);
/* With the global table. */
void kern_encode_row(kern_format f, const float *x, int n_cols, void *row);
/* Random weights of any format within about +-half, the same for the same seed. For measurements and tests. */
void kern_random_row(kern_format f, uint64_t seed, float half, int n_cols, void *row);

/* Rotates `n_heads` heads in place. head_stride in floats; the rotated part is x[h*head_stride + offset ..+dim). cos, sin [dim/2]
 * for this token's position. pairs: adjacent (2i, 2i+1), else halves (i, i+dim/2). */
void kern_rope(float *x, int n_heads, int head_stride, int offset, int dim, const float *cos, const float *sin, bool pairs);

/* Router choice for one token. See model.h for the meaning of the fields. ids ascending, weights in the order of ids, normalised
 * and scaled as the family wants. Ties: lower index. n_experts <= 1024, top_k <= 64. */
typedef struct {
  int n_experts, top_k, n_group, topk_group;
  int score; /* 0 softmax over all, 1 sigmoid, 2 softmax over the chosen */
  int group; /* 0 none, 1 sum of the two best, 2 maximum */
  bool norm;
  float scale;
  const float *bias; /* choice only, or NULL */
} kern_router;
void kern_route(const kern_router *r, const float *logits, int32_t *ids, float *weights);

/* Start-up self-check: each function of the global table against the reference on random data, once; HF_MACHINE names the
 * variant that differs. Under 50 ms. */
HF_MUST hf_status kern_self_check(void);
#endif
