#include "base/cli_help.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 80, INDENT = 7, DEEP = 14, PAGE_LIMIT = 1 << 20 };

static const char exit_status_text[] = "0\nDone, and the answer is good.\n"
                                       "1\nThe answer is no: a check failed, nothing feasible, a gate missed.\n"
                                       "2\nBad input or usage.\n"
                                       "3\nThe machine failed: device lost, out of memory, disk full.";

static const char environment_text[] =
    "HETEROFLOW_DB\nThe database when --db is not given.\n"
    "XDG_DATA_HOME\nThe user's data folder, ~/.local/share when not set.\n"
    "HF_LOG\nerror, warn, info or debug: which messages appear on standard error; --quiet and --verbose take precedence.";

static size_t columns(const char *s, size_t n) {
  size_t count = 0;
  for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xc0) != 0x80;
  return count;
}

/* Words of one paragraph (n bytes) between the indent and column 80; lines after the first start at `hang`. */
static hf_status wrap(hf_buf *page, const char *text, size_t n, int indent, int hang) {
  size_t column = 0;
  for (size_t at = 0; at < n;) {
    at += strspn(text + at, " \n");
    if (at >= n) break;
    size_t length = strcspn(text + at, " \n");
    if (length > n - at) length = n - at;
    size_t width = columns(text + at, length);
    if (column == 0) {
      bool started = page->len > 0 && page->data[page->len - 1] != '\n'; /* a term stands there, padded to the indent */
      if (!started) HF_TRY(hf_buf_printf(page, "%*s", indent, ""));
      column = (size_t)indent;
    } else if (column + 1 + width > WIDTH) {
      HF_TRY(hf_buf_printf(page, "\n%*s", hang, ""));
      column = (size_t)hang;
    } else {
      HF_TRY(hf_buf_add(page, " ", 1));
      column++;
    }
    HF_TRY(hf_buf_add(page, text + at, length));
    column += width;
    at += length;
  }
  return hf_buf_add(page, "\n", 1);
}

/* Paragraphs separated by an empty line; one whose first line starts with a space is a table or a drawing and stays as it is. */
static hf_status paragraphs(hf_buf *page, const char *text, int indent) {
  while (*text) {
    const char *end = strstr(text, "\n\n");
    size_t n = end ? (size_t)(end - text) : strlen(text);
    if (text[0] == ' ') {
      for (size_t at = 0; at < n;) {
        size_t line = strcspn(text + at, "\n");
        if (line > n - at) line = n - at;
        HF_TRY(hf_buf_printf(page, "%*s%.*s\n", indent, "", (int)line, text + at));
        at += line + 1;
      }
    } else {
      HF_TRY(wrap(page, text, n, indent, indent));
    }
    text += n;
    text += strspn(text, "\n");
    if (*text) HF_TRY(hf_buf_add(page, "\n", 1));
  }
  return HF_OK;
}

/* Lines in pairs: a term, then what it means. */
static hf_status terms(hf_buf *page, const char *text) {
  while (text && *text) {
    size_t term = strcspn(text, "\n");
    bool same_line = term < DEEP - INDENT; /* "0      Done" */
    HF_TRY(hf_buf_printf(page, "%*s%-*.*s%s", INDENT, "", same_line ? DEEP - INDENT : 0, (int)term, text, same_line ? "" : "\n"));
    text += term + (text[term] == '\n');
    size_t meaning = strcspn(text, "\n");
    HF_TRY(wrap(page, text, meaning, DEEP, DEEP));
    text += meaning + (text[meaning] == '\n');
  }
  return HF_OK;
}

static hf_status option_entry(hf_buf *page, const cli_option *o) {
  char letter[8] = "";
  if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
  HF_TRY(hf_buf_printf(page, "%*s%s--%s%s%s\n", INDENT, "", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : ""));
  hf_buf text;
  hf_buf_init(&text, PAGE_LIMIT);
  hf_status st = hf_buf_printf(&text, "%s", o->help ? o->help : "");
  bool number = o->kind == CLI_INT || o->kind == CLI_NUM || o->kind == CLI_LIST;
  if (st == HF_OK && number && o->lo != o->hi) st = hf_buf_printf(&text, " From %.15g to %.15g.", o->lo, o->hi);
  if (st == HF_OK) st = wrap(page, text.data, text.len, DEEP, DEEP);
  hf_buf_free(&text);
  return st;
}

/* NAME: the command and the first sentence of its description. */
static hf_status name_line(hf_buf *page, const char *command, const char *description) {
  size_t n = strcspn(description, "\n");
  const char *stop = strstr(description, ". ");
  if (stop && (size_t)(stop - description) < n) n = (size_t)(stop - description);
  while (n > 0 && description[n - 1] == '.') n--;
  hf_buf line;
  hf_buf_init(&line, PAGE_LIMIT);
  hf_status st = hf_buf_printf(&line, "%s - %.*s", command, (int)n, description);
  if (st == HF_OK) st = wrap(page, line.data, line.len, INDENT, INDENT);
  hf_buf_free(&line);
  return st;
}

static hf_status build_page(hf_buf *page, const cli_spec *spec, const cli_option *options, int n) {
  char command[128];
  snprintf(command, sizeof command, "%s%s%s", spec->program, spec->verb ? " " : "", spec->verb ? spec->verb : "");
  const char *description = spec->description ? spec->description : "";
  HF_TRY(hf_buf_printf(page, "NAME\n"));
  HF_TRY(name_line(page, command, description));
  HF_TRY(hf_buf_printf(page, "\nSYNOPSIS\n"));
  const char *synopsis = spec->synopsis ? spec->synopsis : "[options]";
  while (*synopsis) { /* one line of the text, one form of the command */
    size_t length = strcspn(synopsis, "\n");
    hf_buf line;
    hf_buf_init(&line, PAGE_LIMIT);
    hf_status st = hf_buf_printf(&line, "%s %.*s", command, (int)length, synopsis);
    if (st == HF_OK) st = wrap(page, line.data, line.len, INDENT, DEEP);
    hf_buf_free(&line);
    HF_TRY(st);
    synopsis += length + (synopsis[length] == '\n');
  }
  HF_TRY(hf_buf_printf(page, "\nDESCRIPTION\n"));
  HF_TRY(paragraphs(page, description, INDENT));
  HF_TRY(hf_buf_printf(page, "\nOPTIONS\n"));
  for (int i = 0; i < n; i++) HF_TRY(option_entry(page, &options[i]));
  HF_TRY(hf_buf_printf(page, "\nEXIT STATUS\n"));
  HF_TRY(terms(page, exit_status_text));
  HF_TRY(hf_buf_printf(page, "\nENVIRONMENT\n"));
  HF_TRY(terms(page, environment_text));
  HF_TRY(terms(page, spec->environment));
  if (spec->examples && *spec->examples) {
    HF_TRY(hf_buf_printf(page, "\nEXAMPLES\n"));
    for (const char *at = spec->examples; *at;) { /* as written: commands must not be wrapped */
      size_t length = strcspn(at, "\n");
      HF_TRY(hf_buf_printf(page, "%*s%.*s\n", length ? INDENT - 2 : 0, "", (int)length, at));
      at += length + (at[length] == '\n');
    }
  }
  return HF_OK;
}

hf_status cli_print_help(const cli_spec *spec, const cli_option *options, int n) {
  hf_buf page;
  hf_buf_init(&page, PAGE_LIMIT);
  hf_status st = build_page(&page, spec, options, n);
  if (st == HF_OK) fputs(page.data, stdout); /* cli_finish notices a failed write */
  hf_buf_free(&page);
  return st;
}
