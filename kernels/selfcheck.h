/* selfcheck.h: private to kernels. */
#ifndef HF_KERNELS_SELFCHECK_H
#define HF_KERNELS_SELFCHECK_H

#include "kernels/kernels.h"

/* One candidate against the reference, as kern_self_check does for all that are taken by themselves. */
HF_MUST hf_status selfcheck_candidate(const kern_mm_candidate *c);

#endif
