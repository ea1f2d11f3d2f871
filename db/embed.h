/* embed.h: text files compiled into the program by db/embed.cmake (schema, migrations, catalog). */
#ifndef HF_DB_EMBED_H
#define HF_DB_EMBED_H
#include <stddef.h>

typedef struct {
  const char *name; /* path below the folder named in CMake, e.g. "models/deepseek-r1.json" */
  const char *text; /* NUL-terminated */
  size_t n;         /* bytes without the NUL */
} hf_embedded;

/* Both tables are sorted by name and end with name == NULL. */
extern const hf_embedded hf_embedded_sql[];
extern const hf_embedded hf_embedded_catalog[];
#endif
