/* catalog_fact.c: reading one fact of a catalog entry. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "db/catalog_data.h"

static hf_status check_date(const char *where, const char *date) {
  static const char form[] = "dddd-dd-dd";
  bool good = strlen(date) == sizeof form - 1;
  for (size_t i = 0; good && form[i]; i++) good = form[i] == 'd' ? isdigit((unsigned char)date[i]) != 0 : date[i] == form[i];
  int month = good ? (date[5] - '0') * 10 + date[6] - '0' : 0, day = good ? (date[8] - '0') * 10 + date[9] - '0' : 0;
  if (month < 1 || month > 12 || day < 1 || day > 31) {
    return hf_fail(HF_INPUT, "%s: field date: '%.20s' is no date YYYY-MM-DD", where, date);
  }
  return HF_OK;
}

static hf_status read_tag(const json *node, const char *where, db_tag *tag) {
  const char *name = "spec";
  HF_TRY(json_opt_str(node, where, "tag", &name));
  for (int t = 0; t < TAG_N; t++) {
    if (strcmp(name, db_tag_name((db_tag)t)) == 0) {
      *tag = (db_tag)t;
      return HF_OK;
    }
  }
  return hf_fail(HF_INPUT, "%s: field tag: '%.20s' is none of measured, scaled, spec, assumed", where, name);
}

hf_status fact_read(const json *node, const char *where, const char *unit, fact *out) {
  const double most = 1e30;
  fact f;
  const char *given, *source, *date;
  if (json_type(node) != JSON_OBJECT) {
    return hf_fail(HF_INPUT, "%s: a fact is an object {\"value\", \"unit\", \"source\", \"date\"}", where);
  }
  HF_TRY(json_get_num(node, where, "value", 0, most, &f.likely));
  f.low = f.high = f.likely;
  HF_TRY(json_opt_num(node, where, "low", 0, f.likely, &f.low));
  HF_TRY(json_opt_num(node, where, "high", f.likely, most, &f.high));
  HF_TRY(json_get_str(node, where, "unit", &given));
  if (unit != NULL && strcmp(unit, given) != 0) {
    return hf_fail(HF_INPUT, "%s: field unit: '%.20s' where '%s' belongs", where, given, unit);
  }
  HF_TRY(json_get_str(node, where, "source", &source));
  if (*source == 0) return hf_fail(HF_INPUT, "%s: field source: is empty; say where the figure comes from", where);
  HF_TRY(json_get_str(node, where, "date", &date));
  HF_TRY(check_date(where, date));
  HF_TRY(read_tag(node, where, &f.tag));
  *out = f;
  return HF_OK;
}

hf_status fact_get(const json *obj, const char *where, const char *key, const char *unit, fact *out) {
  char place[256];
  snprintf(place, sizeof place, "%s: field %s", where, key);
  const json *node = json_get(obj, key);
  if (node == NULL) return hf_fail(HF_INPUT, "%s: missing; a fact with unit %s", place, unit);
  return fact_read(node, place, unit, out);
}

hf_status fact_count(const json *obj, const char *where, const char *key, int max, int *out) {
  fact f;
  HF_TRY(fact_get(obj, where, key, "1", &f));
  if (f.likely < 1 || f.likely > max || f.likely != floor(f.likely) || f.low != f.high) {
    return hf_fail(HF_INPUT, "%s: field %s: %g is no whole number from 1 to %d", where, key, f.likely, max);
  }
  *out = (int)f.likely;
  return HF_OK;
}

static db_tag weaker(db_tag a, db_tag b) {
  return a > b ? a : b;
}

fact fact_of(double value, db_tag tag) {
  return (fact){value, value, value, tag};
}
fact fact_scale(fact a, double by) {
  return (fact){a.low * by, a.likely * by, a.high * by, a.tag};
}
fact fact_product(fact a, fact b) {
  return (fact){a.low * b.low, a.likely * b.likely, a.high * b.high, weaker(a.tag, b.tag)};
}
fact fact_sum(fact a, fact b) {
  return (fact){a.low + b.low, a.likely + b.likely, a.high + b.high, weaker(a.tag, b.tag)};
}

hf_status fact_numbers(const json *obj, const char *where, const char *key, int most, double *out, int *n) {
  *n = 0;
  for (const json *e = json_first(json_get(json_get(obj, key), "value")); e != NULL; e = json_next(e)) {
    double v = json_number(e, NAN);
    if (!isfinite(v) || !(v > 0)) return hf_fail(HF_INPUT, "%s: field %s: positive numbers belong here", where, key);
    if (*n == most) return hf_fail(HF_INPUT, "%s: field %s: more than %d numbers", where, key, most);
    out[(*n)++] = v;
  }
  return HF_OK;
}

bool fact_is_size(double bytes, double sold) {
  return fabs(bytes / sold - 1) < 0.08;
}
