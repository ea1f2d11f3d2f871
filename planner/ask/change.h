/* change.h: what --set, --case and --axis say, as data.
 *
 *   --set    KEY=VALUE[,KEY=VALUE]...          one column of a whatif
 *   --case   NAME:KEY=VALUE[,KEY=VALUE]...     the same with a name of one's own
 *   --axis   KEY=VALUE,VALUE,...               values of a sweep; KEY=FIRST:LAST:xFACTOR and KEY=FIRST:LAST:+STEP count
 *
 * Parsing checks form and range; whether a named part exists is found out when the change is applied. Pure; thread-safe. */
#ifndef HF_PLANNER_ASK_CHANGE_H
#define HF_PLANNER_ASK_CHANGE_H

#include "planner/plan_inputs.h"

typedef enum {
  ASK_MACHINE, /* another machine altogether */
  ASK_CPU,
  ASK_SOCKETS,
  ASK_DIMM,      /* kind of memory module */
  ASK_DIMM_SIZE, /* bytes of one */
  ASK_DIMMS_PER_CHANNEL,
  ASK_GPU,  /* NAME, NxNAME, none, joined by + */
  ASK_PCIE, /* generation of the slots */
  ASK_PRIOR,
  ASK_DRAM, /* bytes per second, or xFACTOR: of a measured machine */
  ASK_LOST, /* gpuN or cpuN: out of order */
  ASK_N_MACHINE_KEYS,
  ASK_MODEL = ASK_N_MACHINE_KEYS, /* of the load from here on */
  ASK_FORMAT,
  ASK_USERS,
  ASK_CONTEXT,
  ASK_PROMPT,
  ASK_OUTPUT,
  ASK_DEPTH,
  ASK_THREADS,
  ASK_SKEW,
  ASK_KV,
  ASK_N_KEYS
} ask_key;

enum { ASK_VALUE = 80, ASK_MAX_CHANGES = 16, ASK_MAX_POINTS = 64 };

const char *ask_key_name(ask_key k);
/* "cpu, sockets, dimm, ..." */
void ask_key_list(char *out, size_t n);

typedef struct {
  ask_key key;
  char value[ASK_VALUE]; /* as typed */
  double number;         /* of numeric keys */
} ask_change;

typedef struct {
  char name[ASK_VALUE];
  int n;
  ask_change c[ASK_MAX_CHANGES];
} ask_changes;

typedef struct {
  ask_key key;
  int n;
  ask_change point[ASK_MAX_POINTS]; /* in the order given */
} ask_axis;

/* option starts error lines: "option --set: ...". HF_INPUT: unknown key (the nearest is named), bad number, a key twice, too many. */
HF_MUST hf_status ask_parse_changes(const char *option, const char *text, bool named, ask_changes *out);
HF_MUST hf_status ask_parse_axis(const char *option, const char *text, ask_axis *out);
/* Of one key: form and range. */
HF_MUST hf_status ask_parse_value(const char *option, ask_key key, const char *value, size_t n, ask_change *out);

/* Sets the members of the request that changes of the load name; pointers lead into c. Where context is changed and prompt and output are
 * not, the prompt fills what the answer leaves. */
void ask_apply_load(const ask_changes *c, plan_request *r);
bool ask_changes_machine(const ask_changes *c);                     /* any key of the machine */
const ask_change *ask_find_change(const ask_changes *c, ask_key k); /* NULL: not among them */
#endif
