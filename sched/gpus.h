/* gpus.h: the value of --gpu, as hf-plan and hf-run read it. Plain functions of their arguments; any thread. */
#ifndef HF_SCHED_GPUS_H
#define HF_SCHED_GPUS_H

#include <stdint.h>

#include "base/status.h"
#include "sched/stages.h"

enum { GPU_NAME = 16, GPU_TEXT = 96 }; /* plans and runs in the database have as much room */

/* How device n of a machine is called: in the database, plans, traces and messages. */
void gpu_name(int n, char out[GPU_NAME]);

typedef enum {
  GPU_NONE,    /* one_resource: everything on the CPU's workers */
  GPU_VIRTUAL, /* the device is one CPU thread with an arena; the workers have the others */
  GPU_PACED,   /* the same, but stages last as long as on another machine of the database */
  GPU_CUDA     /* gpuN of the machine, measured or from the catalog */
} gpu_kind;

typedef struct {
  gpu_kind kind;
  int64_t size_bytes;    /* 0 = not given: what the device has */
  char machine[128];     /* paced: the machine whose rows count */
  char device[GPU_NAME]; /* "gpu0"; "" for none and one that is virtual */
  bool numbered;         /* paced: MACHINE@N said so */
  char text[GPU_TEXT];   /* as given */
} gpu_spec;

/* "none", "virtual:SIZE", "paced:MACHINE[@N][:SIZE]", "cuda:N[:SIZE]"; HF_INPUT otherwise. */
HF_MUST hf_status gpu_spec_parse(const char *text, gpu_spec *out);

/* The devices of a plan, in the order of their places. */
typedef struct {
  int n; /* 0 = none */
  gpu_spec g[STAGE_MAX_DEVICES];
  char text[GPU_TEXT]; /* as given */
} gpu_set;
/* One spec, or several of a kind joined by '+' ("cuda:0+cuda:1:16G"), each device once. The k-th of several paced ones, all of one machine, is gpuk of
 * it unless @N says another. */
HF_MUST hf_status gpu_set_parse(const char *text, gpu_set *out);
/* What the first device is; GPU_NONE when there is none. */
gpu_kind gpu_set_kind(const gpu_set *s);
#endif
