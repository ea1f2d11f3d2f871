/* smbios.h: the memory modules of a machine, from its SMBIOS tables (DMTF DSP0134, structure type 17).
 *
 * The tables lie in /sys/firmware/dmi/tables/DMI and are readable by root only; virtual machines often have none. The bytes are
 * treated as hostile: every length is checked, and whatever is cut short ends the walk without an error. */
#ifndef HF_PROFILER_SMBIOS_H
#define HF_PROFILER_SMBIOS_H
#include "base/json.h"

enum { SMBIOS_MAX_DIMMS = 256 };

typedef enum { DIMM_NOT_MR, DIMM_MR, DIMM_MR_BY_SPEED, DIMM_MR_UNKNOWN } dimm_mr;

typedef struct {
  char type[16];       /* "DDR5", "unknown" */
  int64_t bytes;       /* 0 = unknown size (an empty slot is not listed) */
  int rated_mt_s;      /* 0 = unknown */
  int configured_mt_s; /* 0 = unknown */
  bool registered;
  dimm_mr mr; /* BY_SPEED: DDR5 above 7,200 MT/s on a registered module is a multiplexed-rank one */
} dimm;

typedef struct {
  int n_slots, n; /* slots, and filled ones listed in v */
  dimm v[SMBIOS_MAX_DIMMS];
} dimm_list;

/* Parses a whole table. Never fails; what is not understood is left out. */
void smbios_dimms(const uint8_t *bytes, size_t n, dimm_list *out);
/* Reads the table of this machine. *why (static text) is set and *out empty when there is none or it may not be read. */
void smbios_read(const char *path, dimm_list *out, const char **why);
extern const char smbios_path[];

/* Equal modules together: [{"count","type","bytes","configured_mt_s","rated_mt_s","mrdimm"}], unknowns as "unknown". */
void smbios_to_json(const dimm_list *l, json *array);
#endif
