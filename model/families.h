/* families.h: the model families, one line each: FAM_ID of model.h, and family_NAME, which the family's own file family_*.c defines
 * (family.h). The only place beside that file that a new family is named in. From LLAMA on: dense, for planning only: n_experts 0, no layer
 * is MoE. */
#ifndef HF_MODEL_FAMILIES_H
#define HF_MODEL_FAMILIES_H
#define MODEL_FAMILIES(FAMILY)     \
  FAMILY(DEEPSEEK_V3, deepseek_v3) \
  FAMILY(DEEPSEEK_V2, deepseek_v2) \
  FAMILY(KIMI_K2, kimi_k2)         \
  FAMILY(QWEN2_MOE, qwen2_moe)     \
  FAMILY(QWEN3_MOE, qwen3_moe)     \
  FAMILY(MIXTRAL, mixtral)         \
  FAMILY(OLMOE, olmoe)             \
  FAMILY(GPT_OSS, gpt_oss)         \
  FAMILY(GLM4_MOE, glm4_moe)       \
  FAMILY(LLAMA, llama)             \
  FAMILY(QWEN2, qwen2)             \
  FAMILY(QWEN3, qwen3)
#endif
