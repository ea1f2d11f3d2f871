/* config_limits.h: the least and most that any field of a model's description may say. Chosen an order of magnitude above the
 * largest published model, and so that no product of two of them leaves int64. Private to model/. */
#ifndef HF_MODEL_CONFIG_LIMITS_H
#define HF_MODEL_CONFIG_LIMITS_H
enum {
  LIM_LAYERS = 1024,
  LIM_WIDTH = 1 << 18, /* d_model, feed-forward widths, ranks */
  LIM_VOCAB = 1 << 24,
  LIM_CONTEXT = 1 << 27,
  LIM_HEADS = 1024,
  LIM_HEAD_DIM = 4096,
  LIM_EXPERTS = 1024, /* kernels.h: kern_route's limit */
  LIM_TOP_K = 64,
  LIM_SHARED = 64,
};
#endif
