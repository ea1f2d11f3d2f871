/* Options: every kind, every error line, and the help page. */
#include "base/cli.h"
#include "base/log.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
  bool exact;
  const char *model;
  int64_t users, size, context;
  double rate, limit;
  cli_int_list list;
} values;

static const cli_option options[] = {
    {"exact", 'e', CLI_FLAG, &values.exact, NULL, "Computes with unrounded activations.", 0, 0},
    {"model", 'm', CLI_STR, &values.model, "NAME_OR_PATH", "A folder, a GGUF file, or a name of the catalog.", 0, 0},
    {"users", 'u', CLI_INT, &values.users, "N", "People who use it at once.", 1, 4096},
    {"seed", 0, CLI_INT, &values.users, "N", "Any whole number.", 0, 0},
    {"rate", 0, CLI_NUM, &values.rate, "X", "Requests per second.", 0, 1.5},
    {"size", 0, CLI_SIZE, &values.size, "SIZE", "Memory of the virtual device.", 0, 0},
    {"context", 0, CLI_TOKENS, &values.context, "N", "Tokens of a sequence.", 2, 16777216},
    {"limit", 0, CLI_SECONDS, &values.limit, "TIME", "Limit of a time.", 0, 10},
    {"batch", 'q', CLI_LIST, &values.list, "LIST", "Sequences at once, for example 1,5,16.", 1, 64},
    {0},
};

static const cli_spec spec = {
    .program = "hf-plan",
    .verb = "plan",
    .synopsis = "--model NAME_OR_PATH --users N [options]\nFILE --users N [--rate X] [--size SIZE] [--batch LIST] [--seed N]",
    .description =
        "chooses where each expert lives. It proves how good the choice is, to a gap that is printed, and says what binds.\n\n"
        "A second paragraph.\n\n  a   table\n  b   as it is",
    .examples = "  hf-plan plan --model deepseek-r1\n      plans it\n",
    .options = options,
    .environment = "HF_TOPOLOGY\nA file that describes nodes which are not there.\n",
};

enum { MAX_WORDS = 24 };
static cli_common common;
static int n_operands;
static char **operands, *words[MAX_WORDS + 1];
static bool stop;

/* Parses "plan" and the words of `line`, which are separated by single blanks. */
static hf_status parse(const char *line) {
  static char copy[512];
  snprintf(copy, sizeof copy, "plan %s", line);
  int n = 0;
  char *save = NULL;
  for (char *w = strtok_r(copy, " ", &save); w && n < MAX_WORDS; w = strtok_r(NULL, " ", &save)) words[n++] = w;
  words[n] = NULL;
  memset(&values, 0, sizeof values);
  n_operands = -1;
  hf_log_set_level(HF_LOG_INFO);
  return cli_parse(&spec, n, words, &common, &n_operands, &operands, &stop);
}

static void refuse(const char *line, const char *message) {
  char want[256];
  snprintf(want, sizeof want, "%s; see hf-plan plan --help", message);
  assert_int_equal(parse(line), HF_INPUT);
  assert_string_equal(hf_error_line(), want);
}

static void every_kind_is_read(void **state) {
  (void)state;
  assert_int_equal(parse("one --model=x --users 5 two -e --rate 0.25 --size 1.5G --batch 1,5,16 --json --db my.db -- --three"),
                   HF_OK);
  assert_true(values.exact);
  assert_string_equal(values.model, "x");
  assert_int_equal(values.users, 5);
  assert_true(values.rate == 0.25);
  assert_int_equal(values.size, 3 * 512 * 1024 * 1024LL);
  assert_int_equal(values.list.n, 3);
  assert_int_equal(values.list.v[2], 16);
  assert_true(common.json && !common.quiet && !common.verbose && !stop);
  assert_string_equal(common.db_path, "my.db");
  assert_int_equal(n_operands, 3);
  assert_string_equal(operands[0], "one");
  assert_string_equal(operands[1], "two");
  assert_string_equal(operands[2], "--three");
  assert_int_equal(parse("-u7 -em y"), HF_OK);
  assert_int_equal(values.users, 7);
  assert_true(values.exact);
  assert_string_equal(values.model, "y");
  assert_null(common.db_path);
  assert_int_equal(n_operands, 0);
  assert_int_equal(parse("--users 5 --users 6"), HF_OK); /* the last one counts */
  assert_int_equal(values.users, 6);
  assert_int_equal(parse("-q 4"), HF_OK); /* a command's own letter hides the common one */
  assert_int_equal(values.list.v[0], 4);
  assert_false(common.quiet);
}

static void times_have_units(void **state) {
  (void)state;
  static const struct {
    const char *text;
    double seconds;
  } good[] = {{"0.15", 0.15}, {"150ms", 0.15}, {"0.15s", 0.15}, {"10", 10}, {"150s", 150}, {"2min", 120}, {"1h", 3600}, {"0", 0}};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char line[64];
    snprintf(line, sizeof line, "--limit %s", good[i].text);
    assert_int_equal(parse(line), HF_OK);
    assert_float_equal(values.limit, good[i].seconds, 1e-12);
  }
  refuse("--limit 150", "option --limit: 150 without a unit is seconds, which is hardly meant; say 150ms or 150s");
  refuse("--limit -1", "option --limit: '-1' is no time such as 0.15, 150ms, 2s or 5min");
  refuse("--limit nan", "option --limit: 'nan' is no time such as 0.15, 150ms, 2s or 5min");
  refuse("--limit 5m", "option --limit: '5m' is no time such as 0.15, 150ms, 2s or 5min");
  refuse("--limit 300000h", "option --limit: '300000h' is more than 30 years"); /* no product of it overflows */
  refuse("--limit 1e308h", "option --limit: '1e308h' is more than 30 years");
  refuse("--limit ms", "option --limit: 'ms' is no time such as 0.15, 150ms, 2s or 5min");
}

static void tokens_count_in_binary_thousands(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t tokens;
  } good[] = {{"8192", 8192}, {"40k", 40960}, {"160K", 163840}, {"1.5K", 1536}, {"1M", 1048576}};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char line[64];
    snprintf(line, sizeof line, "--context %s", good[i].text);
    assert_int_equal(parse(line), HF_OK);
    assert_int_equal(values.context, good[i].tokens);
  }
  static const char *const bad[] = {"1", "17M", "8G", "8KB", "1.0001K", "x", "-5", "1e3", "nan"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char line[64], want[160];
    snprintf(line, sizeof line, "--context %s", bad[i]);
    snprintf(want, sizeof want,
             "option --context: '%s' is no number of tokens between 2 and 16777216, such as 8192 or 8K (= 8192)", bad[i]);
    refuse(line, want);
  }
}

static void quiet_and_verbose_set_the_log(void **state) {
  (void)state;
  assert_int_equal(parse("--quiet"), HF_OK);
  assert_int_equal(hf_log_get_level(), HF_LOG_WARN);
  assert_int_equal(parse("-v"), HF_OK);
  assert_int_equal(hf_log_get_level(), HF_LOG_DEBUG);
  refuse("--quiet --verbose", "--quiet and --verbose exclude each other");
}

static void every_error_names_the_option(void **state) {
  (void)state;
  refuse("--users x", "option --users: 'x' is no whole number between 1 and 4096");
  refuse("--users 0", "option --users: '0' is no whole number between 1 and 4096");
  refuse("--users 4097", "option --users: '4097' is no whole number between 1 and 4096");
  refuse("--users 5.0", "option --users: '5.0' is no whole number between 1 and 4096");
  refuse("--users=", "option --users: '' is no whole number between 1 and 4096");
  refuse("--users 99999999999999999999", "option --users: '99999999999999999999' is no whole number between 1 and 4096");
  refuse("--seed -1", "option --seed: '-1' is no whole number of 0 or more");
  refuse("--rate nan", "option --rate: 'nan' is no number between 0 and 1.5");
  refuse("--rate 1.6", "option --rate: '1.6' is no number between 0 and 1.5");
  refuse("--rate 1x", "option --rate: '1x' is no number between 0 and 1.5");
  refuse("--size 5X", "option --size: '5X' is no size such as 4096, 512M or 1.5G");
  refuse("--batch 1,,2", "option --batch: '' in '1,,2' is no whole number between 1 and 64 (a list looks like 1,5,16)");
  refuse("--batch 1,65", "option --batch: '65' in '1,65' is no whole number between 1 and 64 (a list looks like 1,5,16)");
  refuse("--users", "option --users needs a value: --users N");
  refuse("-u", "option --users needs a value: --users N");
  refuse("--exact=yes", "option --exact takes no value");
  refuse("--json=yes", "option --json takes no value");
  refuse("-z", "unknown option -z");
  refuse("--modell 3", "unknown option --modell (is --model meant?)");
  refuse("--nonsense=4", "unknown option --nonsense");
  refuse("--s 4", "option --s is ambiguous");
}

static void long_lists_are_refused(void **state) {
  (void)state;
  char line[256] = "--batch 1";
  for (int i = 1; i < CLI_LIST_MAX; i++) strncat(line, ",1", sizeof line - strlen(line) - 1);
  assert_int_equal(parse(line), HF_OK);
  assert_int_equal(values.list.n, CLI_LIST_MAX);
  strncat(line, ",1", sizeof line - strlen(line) - 1);
  refuse(line, "option --batch: more than 64 numbers");
}

static void sizes(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t bytes;
  } good[] = {{"0", 0},          {"4096", 4096},      {"1K", 1024},      {"16m", 16 << 20}, {"1.5G", 3LL << 29},
              {"2T", 2LL << 40}, {"8GiB", 8LL << 30}, {"8GB", 8LL << 30}};
  int64_t bytes = 0;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(cli_parse_size(good[i].text, "size", &bytes), HF_OK);
    assert_int_equal(bytes, good[i].bytes);
  }
  static const char *const bad[] = {"", "G", "-1", "-1G", "1P", "1GG", "1 G", "nan", "inf", "1e30", "0x10", "9000000T", "1Gi"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    bytes = 77;
    if (cli_parse_size(bad[i], "field vram", &bytes) != HF_INPUT) fail_msg("accepted: '%s'", bad[i]);
    assert_int_equal(bytes, 77);
    assert_int_equal(strncmp(hf_error_line(), "field vram: '", 13), 0);
  }
}

/* Runs parse(line) with standard output in a file; what it printed comes back, to be freed. */
static char *printed(const char *line) {
  char path[] = "/tmp/hf-help-XXXXXX";
  int file = mkstemp(path), old = dup(STDOUT_FILENO);
  assert_true(file >= 0 && old >= 0);
  unlink(path);
  fflush(stdout);
  dup2(file, STDOUT_FILENO);
  hf_status st = parse(line);
  fflush(stdout);
  dup2(old, STDOUT_FILENO);
  close(old);
  assert_int_equal(st, HF_OK);
  char *text = calloc(1, 65536);
  assert_non_null(text);
  assert_true(pread(file, text, 65535, 0) >= 0);
  close(file);
  return text;
}

static void help_is_a_manual_page(void **state) {
  (void)state;
  char *page = printed("--help --users 5");
  assert_true(stop);
  static const char *const parts[] = {
      "NAME\n       hf-plan plan - chooses where each expert lives\n",
      "\nSYNOPSIS\n       hf-plan plan --model NAME_OR_PATH --users N [options]\n       hf-plan plan FILE --users N ",
      "\nDESCRIPTION\n       chooses where each expert lives. It proves",
      "\n\n       A second paragraph.\n\n         a   table\n         b   as it is\n",
      "\nOPTIONS\n       -e, --exact\n              Computes with unrounded activations.\n",
      "       -u, --users N\n              People who use it at once. From 1 to 4096.\n",
      "\n       --quiet\n",
      "\nEXIT STATUS\n       0      Done, and the answer is good.\n",
      "\nENVIRONMENT\n",
      "       HF_TOPOLOGY\n              A file that describes",
      "\nEXAMPLES\n       hf-plan plan --model deepseek-r1\n           plans it\n",
  };
  const char *at = page;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    const char *found = strstr(at, parts[i]);
    if (!found) fail_msg("not in the page, or not in this order: %s\n%s", parts[i], page);
    at = found;
  }
  for (const char *line = page; *line; line += strcspn(line, "\n") + 1) {
    if (strcspn(line, "\n") > 80) fail_msg("over 80 columns: %.100s", line);
  }
  assert_string_equal(page + strlen(page) - 9, "plans it\n");
  free(page);
}

static void version_is_printed(void **state) {
  (void)state;
  char *text = printed("-V");
  assert_true(stop);
  assert_int_equal(strncmp(text, "hf-plan (HeteroFlow) " HF_VERSION "\n", strlen("hf-plan (HeteroFlow) " HF_VERSION "\n")), 0);
  free(text);
}

static void any_allocation_may_fail(void **state) {
  (void)state;
  long before = hf_alloc_count();
  assert_int_equal(parse("--users 5"), HF_OK);
  long calls = hf_alloc_count() - before;
  for (long n = 1; n <= calls; n++) {
    hf_fail_alloc_at(n);
    assert_int_equal(parse("--users 5"), HF_MACHINE);
  }
  hf_fail_alloc_at(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_kind_is_read),
      cmocka_unit_test(times_have_units),
      cmocka_unit_test(tokens_count_in_binary_thousands),
      cmocka_unit_test(quiet_and_verbose_set_the_log),
      cmocka_unit_test(every_error_names_the_option),
      cmocka_unit_test(long_lists_are_refused),
      cmocka_unit_test(sizes),
      cmocka_unit_test(help_is_a_manual_page),
      cmocka_unit_test(version_is_printed),
      cmocka_unit_test(any_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
