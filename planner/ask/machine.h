/* machine.h: a machine in memory that can be changed: catalog parts exchanged, or the rows of a measured machine scaled, and said so.
 *
 * Two kinds. A machine of parts (catalog, or a machine file that names parts) is composed anew for each change. A machine of rows (measured, or
 * a file that states figures) keeps its rows; a change replaces or scales some of them, the tag becomes scaled (or that of the catalog part
 * put in), and a note says by what rule. Where there is no rule the change is refused.
 * Read only once made: threads may share one. */
#ifndef HF_PLANNER_ASK_MACHINE_H
#define HF_PLANNER_ASK_MACHINE_H

#include "planner/ask/change.h"
#include "planner/cost/rows.h"

enum { ASK_MAX_NOTES = 12, ASK_NOTE = 240 };

typedef struct ask_machine ask_machine;

/* Name or number of the database, name of the catalog, or a file; NULL: the machine measured last. d NULL: catalog and files only. */
HF_MUST hf_status ask_machine_open(db *d, const char *name, ask_machine **out);
/* base with the changes of the machine that are among c (others are left alone); base stays. HF_INPUT, HF_NOT_FOUND: contradictory, unknown
 * (nearest name suggested), or no rule for a measured machine. d as above, for machine=NAME. */
HF_MUST hf_status ask_machine_change(db *d, const ask_machine *base, const ask_changes *c, ask_machine **out);
void ask_machine_free(ask_machine *m); /* NULL ok */
/* The load's --gpu (NULL: none given): a virtual or paced device can be lost, as gpu0, where the machine has none of its own. */
void ask_machine_plays(ask_machine *m, const char *gpu);
/* The request of a case: the changes of the load that are among c, and what other changes say about the rest of it: another model has another
 * format, another machine other devices, one without GPU none. m: the machine with its changes. Pointers lead into c. HF_INPUT: no type of the KV cache. */
HF_MUST hf_status ask_apply(const ask_changes *c, const ask_machine *m, plan_request *r);

typedef struct {
  char name[128];
  char cpu[96], memory[96], gpus[96]; /* names of parts; "" = unknown; gpus "none" */
  int sockets, n_gpus;
  int64_t memory_bytes;
  bool measured; /* of rows of the database */
  bool has_price, has_power;
  double price[3], idle_w, active_w; /* low, likely, high */
  char memory_limit[140];            /* why a change of modules does not reach their own rate; "" otherwise */
  int n_notes;
  char note[ASK_MAX_NOTES][ASK_NOTE]; /* assumptions, one sentence each */
} ask_machine_facts;

const ask_machine_facts *ask_machine_facts_of(const ask_machine *m);
const cost_rows *ask_machine_rows(const ask_machine *m);
#endif
