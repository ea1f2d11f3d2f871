/* cli.h: options of the four programs, over getopt_long, with help text of manual-page quality from one table.
 *
 * Every program: --help (examples last), --version, --db FILE, --json, --quiet, --verbose. A usage error is one line on standard
 * error ("hf-plan: option --users: 'x' is no whole number between 1 and 4096; see hf-plan plan --help") and exit status 2. */
#ifndef HF_BASE_CLI_H
#define HF_BASE_CLI_H

#include "base/status.h"

typedef enum {
  CLI_FLAG,   /* bool *           */
  CLI_STR,    /* const char **    */
  CLI_INT,    /* int64_t *, lo..hi */
  CLI_NUM,    /* double *, lo..hi */
  CLI_SIZE,   /* int64_t * bytes; K M G T are binary */
  CLI_TOKENS, /* int64_t * tokens, lo..hi; K and M are binary: 8K is 8192 */
  CLI_SECONDS, /* double * seconds: "0.15", "150ms", "0.15s", "2min"; more than hi (0: any) needs its unit, for it was hardly meant */
  CLI_LIST, /* cli_int_list *: "1,5,16" */
  CLI_MANY, /* cli_texts *: the option may be given again and again; in the order given */
} cli_kind;

/* Limits of times to the first and per further token, in seconds, that a plain number may say. */
enum { CLI_PLAIN_TTFT = 3600, CLI_PLAIN_TPOT = 10 };

enum { CLI_LIST_MAX = 64 };
typedef struct {
  int n;
  int64_t v[CLI_LIST_MAX];
} cli_int_list;

enum { CLI_TEXTS_MAX = 64 };
typedef struct {
  int n;
  const char *v[CLI_TEXTS_MAX];
} cli_texts;

typedef struct {
  const char *name; /* long option without dashes; NULL ends the table */
  char letter;      /* short option or 0 */
  cli_kind kind;
  void *out;
  const char *arg;  /* metavariable, e.g. "FILE" */
  const char *help; /* one or more sentences; wrapped at 80 columns */
  double lo, hi;    /* CLI_INT, CLI_NUM, CLI_LIST elements; lo == hi == 0: no limits but >= 0 */
} cli_option;

typedef struct {
  const char *program;  /* "hf-plan" */
  const char *verb;     /* "plan" or NULL */
  const char *synopsis; /* "--model NAME_OR_PATH --users N [options]"; several lines: several forms of the command */
  const char
      *description; /* paragraphs separated by \n\n, kept as they are when they start with a blank; the first sentence is NAME */
  const char *examples; /* lines, each "  command\n      what it does\n" */
  const cli_option *options;
  const char *environment; /* further variables, "NAME\nwhat it does" pairs of lines, or NULL */
} cli_spec;

/* Options that all programs share; fill `common` and splice by cli_parse itself. */
typedef struct {
  const char *db_path; /* NULL: not given (db_default_path decides) */
  bool json, quiet, verbose;
} cli_common;

/* Parses argv[1..]; operands are permuted to the end and returned. Prints help/version itself and sets *stop (exit 0 then).
 * HF_INPUT on a usage error. Both "--name value" and "--name=value" work. */
HF_MUST hf_status cli_parse(const cli_spec *spec, int argc, char **argv, cli_common *common, int *n_operands, char ***operands,
                            bool *stop);

/* What main() does at the end: prints "PROGRAM: error line" on standard error when st is not HF_OK, returns the exit status. */
int cli_finish(const char *program, hf_status st);

/* "150ms", "0.15s", "0.15", "2min", "1h" -> seconds, of 0 to CLI_MOST_SECONDS; a plain number is seconds, up to most_plain (0: any).
 * HF_INPUT otherwise. */
enum { CLI_MOST_SECONDS = 950000000 }; /* 30 years */
HF_MUST hf_status cli_parse_seconds(const char *text, const char *what, double most_plain, double *out);
/* "16M" -> bytes, binary K M G T, fractions allowed ("1.5G"); HF_INPUT otherwise. */
HF_MUST hf_status cli_parse_size(const char *text, const char *what, int64_t *out);
#endif
