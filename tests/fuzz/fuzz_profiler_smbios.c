/* SMBIOS tables: any bytes give a list within its bounds, and the list prints. */
#include "profiler/smbios.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dimm_list *l = malloc(sizeof *l);
  if (!l) return 0;
  smbios_dimms(data, size, size & 1, l);
  if (l->n < 0 || l->n > SMBIOS_MAX_DIMMS || l->n > l->n_slots) abort();
  for (int i = 0; i < l->n; i++) {
    const dimm *d = &l->v[i];
    if (d->bytes < 0 || d->rated_mt_s < 0 || d->configured_mt_s < 0 || !memchr(d->type, 0, sizeof d->type)) abort();
  }
  if (l->n_channels > l->n_slots || l->empty_channels + l->crowded_channels > l->n_channels || !(smbios_bytes_per_s(l) >= 0))
    abort();
  json *a = json_new_array();
  smbios_to_json(l, a);
  smbios_remarks(l, a);
  json_free(a);
  free(l);
  return 0;
}
