/* print.h: what the verbs of hf-profile share in printing. */
#ifndef HF_PROFILER_PRINT_H
#define HF_PROFILER_PRINT_H
#include "profiler/profile.h"

/* "12.3 GB/s", "456 ns", "1.23 ms"; returns out. */
const char *prof_human(char out[32], double v, const char *unit);
/* "3 box, 2026-11-30, AMD EPYC, 2 cores on 1 NUMA node" */
void prof_one_line(const prof_view *v, char *out, size_t n);
/* Prints it on standard output and frees it. */
HF_MUST hf_status prof_print_document(json *root);
#endif
