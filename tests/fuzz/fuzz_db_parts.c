/* Texts of parts: nothing crashes; what is refused says why in one line; what is accepted prints a text that gives the same parts again,
 * and either composes into ordered, finite figures or is refused. The second line, KEY=VALUE, is a change. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "db/catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
  if (!holds) abort();
}

static void check_refusal(void) {
  require(hf_error_line()[0] != '\0' && strchr(hf_error_line(), '\n') == NULL);
}

static void check_round_trip(const catalog_parts *p) {
  char text[4096], again[4096];
  catalog_parts q;
  if (catalog_parts_text(p, text, sizeof text) != HF_OK) return; /* numbers of many digits */
  if (strlen(text) > 900) return;                                /* longer than what is read */
  require(catalog_parts_parse(text, &q) == HF_OK);
  require(catalog_parts_text(&q, again, sizeof again) == HF_OK && strcmp(text, again) == 0);
}

static void check_machine(const catalog_parts *p) {
  catalog_machine m;
  if (catalog_compose(p, &m) != HF_OK) {
    check_refusal();
    return;
  }
  require(m.n_device > 0 && m.n_figure > 0);
  for (int i = 0; i < m.n_figure; i++) {
    const rec_figure *f = &m.figure[i];
    require(f->low <= f->likely && f->likely <= f->high && isfinite(f->high) && f->low >= 0);
  }
  catalog_machine_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[1500];
  catalog_parts p;
  if (size >= sizeof text) return 0;
  memcpy(text, data, size);
  text[size] = 0;
  char *change = strchr(text, '\n');
  if (change != NULL) *change++ = 0;
  if (catalog_parts_parse(text, &p) != HF_OK) {
    check_refusal();
    return 0;
  }
  require(catalog_parts_is_text(text));
  check_round_trip(&p);
  check_machine(&p);
  char *value = change != NULL ? strchr(change, '=') : NULL;
  if (value == NULL) return 0;
  *value++ = 0;
  value[strcspn(value, "\n")] = 0;
  catalog_parts before = p;
  if (catalog_parts_set(&p, change, value) != HF_OK) {
    check_refusal();
    require(memcmp(&p, &before, sizeof p) == 0);
    return 0;
  }
  check_round_trip(&p);
  check_machine(&p);
  return 0;
}
