/* shape.c: which canonical tensors a config has, and their shapes. Everything else (binding, parts, synthetic weights)
 * asks here, so the families' rules about shapes stand in one place. */
#include "model/internal.h"

bool tensor_is_expert(model_tensor_id id) {
  return id == MT_EXP_GATE || id == MT_EXP_UP || id == MT_EXP_DOWN || id == MT_EXP_GATE_BIAS || id == MT_EXP_UP_BIAS ||
         id == MT_EXP_DOWN_BIAS;
}

bool model_tensor_is_expert(model_tensor_id id) {
  return tensor_is_expert(id);
}

bool tensor_is_global(model_tensor_id id) {
  return id == MT_EMBED || id == MT_OUT_NORM || id == MT_OUTPUT;
}

bool tensor_is_matrix(model_tensor_id id) {
  switch (id) {
    case MT_EMBED:
    case MT_OUTPUT:
    case MT_Q:
    case MT_K:
    case MT_V:
    case MT_O:
    case MT_Q_A:
    case MT_Q_B:
    case MT_KV_A:
    case MT_K_B:
    case MT_V_B:
    case MT_GATE:
    case MT_UP:
    case MT_DOWN:
    case MT_SH_GATE:
    case MT_SH_UP:
    case MT_SH_DOWN:
    case MT_EXP_GATE:
    case MT_EXP_UP:
    case MT_EXP_DOWN: return true;
    default: return false;
  }
}

const char *tensor_name(model_tensor_id id) {
  static const char *const names[MT_N] = {
      [MT_EMBED] = "embed",
      [MT_OUT_NORM] = "out_norm",
      [MT_OUTPUT] = "output",
      [MT_ATTN_NORM] = "attn_norm",
      [MT_FFN_NORM] = "ffn_norm",
      [MT_Q] = "q",
      [MT_K] = "k",
      [MT_V] = "v",
      [MT_O] = "o",
      [MT_Q_BIAS] = "q_bias",
      [MT_K_BIAS] = "k_bias",
      [MT_V_BIAS] = "v_bias",
      [MT_O_BIAS] = "o_bias",
      [MT_Q_NORM] = "q_norm",
      [MT_K_NORM] = "k_norm",
      [MT_SINKS] = "sinks",
      [MT_Q_A] = "q_a",
      [MT_Q_A_NORM] = "q_a_norm",
      [MT_Q_B] = "q_b",
      [MT_KV_A] = "kv_a",
      [MT_KV_A_NORM] = "kv_a_norm",
      [MT_K_B] = "k_b",
      [MT_V_B] = "v_b",
      [MT_ROUTER] = "router",
      [MT_ROUTER_BIAS] = "router_bias",
      [MT_GATE] = "gate",
      [MT_UP] = "up",
      [MT_DOWN] = "down",
      [MT_SH_GATE] = "shared_gate",
      [MT_SH_UP] = "shared_up",
      [MT_SH_DOWN] = "shared_down",
      [MT_SH_GATE_INP] = "shared_gate_inp",
      [MT_EXP_GATE] = "expert_gate",
      [MT_EXP_UP] = "expert_up",
      [MT_EXP_DOWN] = "expert_down",
      [MT_ROUTER_LIN_BIAS] = "router_lin_bias",
      [MT_EXP_GATE_BIAS] = "expert_gate_bias",
      [MT_EXP_UP_BIAS] = "expert_up_bias",
      [MT_EXP_DOWN_BIAS] = "expert_down_bias",
  };
  return (unsigned)id < MT_N && names[id] ? names[id] : "unknown";
}

static bool shape(int64_t r, int64_t c, int64_t *rows, int64_t *cols) {
  *rows = r;
  *cols = c;
  return r > 0 && c > 0;
}

/* A vector is one row. */
static bool vec(bool have, int64_t n, int64_t *rows, int64_t *cols) {
  return shape(1, n, rows, cols) && have;
}

static bool mla_shape(const model_config *c, model_tensor_id id, int64_t *r, int64_t *k) {
  int64_t h = c->n_heads, qk = c->nope_dim + c->rope_dim, d = c->d_model;
  switch (id) {
    case MT_Q: return shape(h * qk, d, r, k) && !c->q_lora_rank;
    case MT_Q_A: return shape(c->q_lora_rank, d, r, k);
    case MT_Q_A_NORM: return vec(c->q_lora_rank > 0, c->q_lora_rank, r, k);
    case MT_Q_B: return shape(h * qk, c->q_lora_rank, r, k);
    case MT_KV_A: return shape(c->kv_lora_rank + c->rope_dim, d, r, k);
    case MT_KV_A_NORM: return vec(true, c->kv_lora_rank, r, k);
    case MT_K_B: return shape(h * c->kv_lora_rank, c->nope_dim, r, k);
    case MT_V_B: return shape(h * c->v_dim, c->kv_lora_rank, r, k);
    case MT_O: return shape(d, h * c->v_dim, r, k);
    default: return false;
  }
}

static bool gqa_shape(const model_config *c, model_tensor_id id, int64_t *r, int64_t *k) {
  int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim, d = c->d_model;
  bool norm = c->qk_norm_head || c->qk_norm_full;
  switch (id) {
    case MT_Q: return shape(q, d, r, k);
    case MT_K:
    case MT_V: return shape(kv, d, r, k);
    case MT_O: return shape(d, q, r, k);
    case MT_Q_BIAS: return vec(c->qkv_bias, q, r, k);
    case MT_K_BIAS:
    case MT_V_BIAS: return vec(c->qkv_bias, kv, r, k);
    case MT_O_BIAS: return vec(c->o_bias, d, r, k);
    case MT_Q_NORM: return vec(norm, c->qk_norm_full ? q : c->head_dim, r, k);
    case MT_K_NORM: return vec(norm, c->qk_norm_full ? kv : c->head_dim, r, k);
    case MT_SINKS: return vec(c->sinks, c->n_heads, r, k);
    default: return false;
  }
}

static bool ffn_shape(const model_config *c, model_tensor_id id, bool moe, int64_t *r, int64_t *k) {
  int64_t d = c->d_model;
  switch (id) {
    case MT_GATE:
    case MT_UP: return shape(c->d_ff_dense, d, r, k) && !moe;
    case MT_DOWN: return shape(d, c->d_ff_dense, r, k) && !moe;
    case MT_ROUTER: return shape(c->n_experts, d, r, k) && moe;
    case MT_ROUTER_BIAS: return vec(moe && c->router_bias, c->n_experts, r, k);
    case MT_ROUTER_LIN_BIAS: return vec(moe && c->router_lin_bias, c->n_experts, r, k);
    case MT_SH_GATE:
    case MT_SH_UP: return shape(c->d_ff_shared, d, r, k) && moe;
    case MT_SH_DOWN: return shape(d, c->d_ff_shared, r, k) && moe;
    case MT_SH_GATE_INP: return vec(moe && c->shared_gate, d, r, k);
    case MT_EXP_GATE:
    case MT_EXP_UP: return shape(c->d_ff_expert, d, r, k) && moe;
    case MT_EXP_DOWN: return shape(d, c->d_ff_expert, r, k) && moe;
    case MT_EXP_GATE_BIAS:
    case MT_EXP_UP_BIAS: return vec(moe && c->expert_bias, c->d_ff_expert, r, k);
    case MT_EXP_DOWN_BIAS: return vec(moe && c->expert_bias, d, r, k);
    default: return false;
  }
}

bool tensor_shape(const model_config *c, model_tensor_id id, int layer, int64_t *rows, int64_t *cols) {
  *rows = *cols = 0;
  if (tensor_is_global(id) != (layer < 0) || layer >= c->n_layers || (unsigned)id >= MT_N) return false;
  switch (id) {
    case MT_EMBED:
    case MT_OUTPUT: return shape(c->vocab_size, c->d_model, rows, cols);
    case MT_OUT_NORM:
    case MT_ATTN_NORM:
    case MT_FFN_NORM: return vec(true, c->d_model, rows, cols);
    default: break;
  }
  if (c->attn == ATTN_MLA ? mla_shape(c, id, rows, cols) : gqa_shape(c, id, rows, cols)) return true;
  return ffn_shape(c, id, c->layer_is_moe[layer], rows, cols);
}
