/* smbios.h: the memory modules of a machine, from its SMBIOS tables (DMTF DSP0134, structure type 17).
 *
 * The tables lie in /sys/firmware/dmi/tables/DMI and are readable by root only; virtual machines often have none. The bytes are
 * treated as hostile: every length is checked, and whatever is cut short ends the walk without an error.
 *
 * Multiplexed ranks (MRDIMM). SMBIOS 3.8 names them as a memory technology (offset 28h, value 08h), 3.9 as a memory type (offset 12h, value 25h) and
 * deprecates the other; firmware of either kind is about, so both count. Firmware older than that calls them DDR5: registered DDR5 that
 * runs at 8000 MT/s or more in a Xeon 6 with P-cores is *assumed* to be MRDIMM, for no plain registered module of that generation does.
 *
 * The speed that counts is the configured one: what the modules run at, not what is printed on them. */
#ifndef HF_PROFILER_SMBIOS_H
#define HF_PROFILER_SMBIOS_H
#include "base/json.h"

enum { SMBIOS_MAX_DIMMS = 256 };

typedef enum { DIMM_NOT_MR, DIMM_MR, DIMM_MR_ASSUMED, DIMM_MR_UNKNOWN } dimm_mr;

typedef struct {
  char type[16];       /* "DDR5", "unknown" */
  int64_t bytes;       /* 0 = unknown size (an empty slot is not listed) */
  int rated_mt_s;      /* 0 = unknown */
  int configured_mt_s; /* 0 = unknown */
  int width_bits;      /* of data, 0 = unknown */
  bool registered;
  dimm_mr mr;
} dimm;

typedef struct {
  int n_slots, n; /* slots, and filled ones listed in v */
  /* Told from the slots' names ("CPU0_DIMM_A1", "P0 CHANNEL A"); 0 channels: the names do not tell. crowded: with two modules or more. */
  int n_channels, empty_channels, crowded_channels;
  dimm v[SMBIOS_MAX_DIMMS];
} dimm_list;

/* Parses a whole table. Never fails; what is not understood is left out. xeon6_p: the CPU is a Xeon 6 with P-cores. */
void smbios_dimms(const uint8_t *bytes, size_t n, bool xeon6_p, dimm_list *out);
/* Reads the table of this machine. *why (static text) is set and *out empty when there is none or it may not be read. */
void smbios_read(const char *path, bool xeon6_p, dimm_list *out, const char **why);
extern const char smbios_path[];
/* Of the text of /proc/cpuinfo: Intel, family 6, model 173 or 174 (Granite Rapids). */
bool smbios_is_xeon6_p(const char *cpuinfo);
/* The slot's channel, as a text that slots of one channel share; false: the names do not tell. */
bool smbios_channel_of(const char *device_locator, const char *bank_locator, char *out, size_t n);

/* Equal modules together: [{"count","type","bytes","configured_mt_s","rated_mt_s","mrdimm"}], unknowns as "unknown". mrdimm: yes, no,
 * assumed, unknown. */
void smbios_to_json(const dimm_list *l, json *array);
/* What costs bandwidth, in sentences: empty channels, two modules a channel, modules below their rated speed, unequal speeds. */
void smbios_remarks(const dimm_list *l, json *array);
/* Filled channels times configured speed times width, bytes per second; 0 where one of them is not known or modules differ in speed. */
double smbios_bytes_per_s(const dimm_list *l);
#endif
