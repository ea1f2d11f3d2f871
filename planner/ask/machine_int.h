/* machine_int.h (private to ask): how a machine in memory is kept, and the rules by which rows are scaled. */
#ifndef HF_PLANNER_ASK_MACHINE_INT_H
#define HF_PLANNER_ASK_MACHINE_INT_H

#include "db/catalog.h"
#include "planner/ask/machine.h"

struct ask_machine {
  ask_machine_facts f;
  bool has_parts;
  catalog_parts parts;
  cost_rows *rows; /* owned */
  bool plays_gpu;  /* the request has a virtual or paced device: gpu0 of a machine without GPU */
};

HF_MUST hf_status ask_machine_from_parts(const catalog_parts *p, ask_machine **out);

/* Adds a sentence to the notes; more than fit are left out. */
void ask_note(ask_machine *m, const char *format, ...) HF_PRINTF(2, 3);

/* Rules on rows, each of which notes what it did. factor > 0. */
/* Memory bandwidth of the CPU times factor. Rates times factor; of a measured kernel time the part that is bytes ÷ measured bandwidth is divided by
 * it, the rest stays; tag scaled. */
void ask_scale_dram(ask_machine *m, double factor);
/* Link rates of all GPUs times factor, transfer times divided by it. */
void ask_scale_links(ask_machine *m, double factor);
/* One rate of the CPU, "cpu_flops_int8", times factor. No kernel rows are changed: for machines composed of parts. */
void ask_scale_compute(ask_machine *m, const char *what, double factor);
/* Memory and cores of all CPUs together at least so much. */
void ask_raise_cpus(ask_machine *m, int64_t memory_bytes, int cores);
/* Takes a GPU out; those after it move up. HF_INPUT when there is none of that number. */
HF_MUST hf_status ask_drop_gpu(ask_machine *m, int index);
/* Takes one NUMA node out, with its memory. HF_INPUT when there is none of that number or it is the only one. */
HF_MUST hf_status ask_drop_node(ask_machine *m, int index);
/* Replaces all GPUs by those of the catalog text (NAME, A*2+B, none), with the efficiency priors of the catalog. */
HF_MUST hf_status ask_put_gpus(ask_machine *m, const char *gpus);
/* Transfer rate of the modules where the machine's facts know it, else 0. */
double ask_memory_speed(const ask_machine *m);
#endif
