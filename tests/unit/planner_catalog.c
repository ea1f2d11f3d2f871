/* Every model of the catalog can be planned for: its config is read, its parts add up to the parameters its makers state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "db/catalog.h"
#include "model/model.h"

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

/* Parameters that one token uses: all but the experts it does not choose. */
static double active_params(const model_config *c) {
  double moe_layers = 0, expert = 3.0 * c->d_model * c->d_ff_expert;
  for (int i = 0; i < c->n_layers; i++) moe_layers += c->layer_is_moe[i];
  return (double)model_total_params(c) - moe_layers * (c->n_experts - c->top_k) * expert;
}

static double fact(const char *model_name, const char *key) {
  catalog_value v;
  ok(catalog_fact("models", model_name, key, &v));
  return v.likely;
}

static void every_model_is_read_and_has_the_published_size(void **state) {
  (void)state;
  char **names;
  int n;
  ok(catalog_names("models", &names, &n));
  assert_true(n >= 40);
  for (int i = 0; i < n; i++) {
    json *config = NULL;
    model *m = NULL;
    ok(catalog_model_config(NULL, names[i], &config));
    ok(model_from_config(config, names[i], &m));
    double total = (double)model_total_params(model_get_config(m)), active = active_params(model_get_config(m));
    double says = fact(names[i], "params_total"), uses = fact(names[i], "params_active");
    /* model cards round; "1T" and "32B" of Kimi-K2 are the roughest */
    if (fabs(total / says - 1) > 0.03) fail_msg("%s: %.4g parameters, the model card says %.4g", names[i], total, says);
    double table =
        (double)model_get_config(m)->vocab_size * model_get_config(m)->d_model; /* some cards leave the embedding out */
    if (uses > 1.15 * active || uses < 0.85 * (active - table))
      fail_msg("%s: %.4g active parameters, the model card says %.4g", names[i], active, uses);
    model_close(m);
    json_free(config);
  }
  free(names);
}

static void default_formats_are_known(void **state) {
  (void)state;
  char **names;
  int n;
  ok(catalog_names("models", &names, &n));
  for (int i = 0; i < n; i++) {
    json *doc;
    ok(catalog_get("models", names[i], &doc));
    const char *format = json_string(json_get(doc, "default_format"));
    assert_non_null(format);
    fmt f;
    ok(fmt_parse(format, &f));
    json_free(doc);
  }
  free(names);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_model_is_read_and_has_the_published_size),
      cmocka_unit_test(default_formats_are_known),
  };
  unsetenv("HF_CATALOG");
  return cmocka_run_group_tests_name("models of the catalog", tests, NULL, NULL);
}
