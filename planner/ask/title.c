#include "planner/ask/title.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "db/catalog.h"

static bool words_of(const char *text, char out[ASK_MACHINE_WORDS]) {
  catalog_parts p;
  catalog_machine m = {.n_device = 0};
  json *facts = NULL;
  bool found = false;
  if (catalog_parts_parse(text, &p) == HF_OK && catalog_compose(&p, &m) == HF_OK &&
      json_parse(m.machine.facts_json, strlen(m.machine.facts_json), "machine", &facts) == HF_OK) {
    const char *title = json_string(json_get(facts, "title"));
    found = title != NULL;
    if (found) snprintf(out, ASK_MACHINE_WORDS, "%s", title);
  }
  hf_clear_error();
  json_free(facts);
  catalog_machine_free(&m);
  return found;
}

void ask_machine_words(const char *machine, char out[ASK_MACHINE_WORDS]) {
  char text[ASK_MACHINE_WORDS];
  snprintf(out, ASK_MACHINE_WORDS, "%s", machine);
  if (!catalog_parts_is_text(machine)) return;
  snprintf(text, sizeof text, "%s", machine);
  if (words_of(text, out)) return;
  char *comma = strrchr(text, ','); /* names in rows and plans end after 127 bytes */
  if (comma == NULL || strlen(machine) < 90) return;
  *comma = '\0';
  if (!words_of(text, out)) snprintf(out, ASK_MACHINE_WORDS, "%s", machine);
}
