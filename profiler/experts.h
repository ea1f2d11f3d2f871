/* experts.h: private to profiler/. */
#ifndef HF_PROFILER_EXPERTS_H
#define HF_PROFILER_EXPERTS_H
#include "profiler/profile.h"

/* Streaming experts on that pool alone and under a load that the caller has started: rows with this name in the column load, at token counts
 * that prof_experts has measured without it. */
HF_MUST hf_status experts_beside(profile *p, pool *pl, const char *load);
#endif
