#include "db/records.h"

#include <stddef.h>

const char *db_tag_name(db_tag t) {
  static const char *const names[TAG_N] = {"measured", "scaled", "spec", "assumed"};
  return (unsigned)t < TAG_N ? names[t] : NULL;
}
