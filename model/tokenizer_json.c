/* tokenizer_json.c: tokenizer.json of the tokenizers library, as far as BPE goes (byte-level, or SentencePiece's with byte fallback), and
 * tokenizer_config.json.
 * What is not understood is refused by name: a tokenizer that splits otherwise gives plausible ids that are wrong. */
#include "model/tokenizer_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  tokenizer *t;
  const char *where;
  bool byte_level; /* the chain ends in ByteLevel */
} loader;

static const char *type_of(const json *v) {
  const char *s = json_string(json_get(v, "type"));
  return s ? s : "(none)";
}

static bool is_null(const json *v) {
  return !v || json_type(v) == JSON_NULL;
}

/* --- normalizer ------------------------------------------------------------------------------------------------ */

static bool is_text(const json *v, const char *text) {
  return json_string(v) && strcmp(json_string(v), text) == 0;
}

/* SentencePiece's two: a blank before the text, and blanks as U+2581. */
static hf_status load_spm_normalizer(loader *l, const json *v, const char *type) {
  if (type[0] == 'P') {
    if (!is_text(json_get(v, "prepend"), TOK_SPM_BLANK))
      return hf_fail(HF_UNSUPPORTED, "%s: normalizer: Prepend of other text than U+2581 is not supported", l->where);
    l->t->prefix = PREFIX_ALWAYS;
    return HF_OK;
  }
  if (is_text(json_get(json_get(v, "pattern"), "String"), " ") && is_text(json_get(v, "content"), TOK_SPM_BLANK)) return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "%s: normalizer: Replace of anything but a blank by U+2581 is not supported", l->where);
}

static hf_status load_normalizer(loader *l, const json *v) {
  if (is_null(v)) return HF_OK;
  const char *type = type_of(v);
  if (strcmp(type, "NFC") == 0) {
    l->t->nfc = true;
    return HF_OK;
  }
  if (strcmp(type, "Sequence") == 0) {
    for (const json *n = json_first(json_get(v, "normalizers")); n; n = json_next(n)) HF_TRY(load_normalizer(l, n));
    return HF_OK;
  }
  if (l->t->vocab.chars && (strcmp(type, "Prepend") == 0 || strcmp(type, "Replace") == 0)) return load_spm_normalizer(l, v, type);
  return hf_fail(HF_UNSUPPORTED,
                 "%s: normalizer.type: '%s' is not supported (known: NFC, Sequence; with byte fallback Prepend, Replace)",
                 l->where, type);
}

/* --- pre-tokenizer --------------------------------------------------------------------------------------------- */

static hf_status escape_literal(const char *s, hf_buf *out) {
  for (; *s; s++) {
    if ((unsigned char)*s < 0x80 && strchr("\\^$.|?*+()[]{}/-", *s)) HF_TRY(hf_buf_add(out, "\\", 1));
    HF_TRY(hf_buf_add(out, s, 1));
  }
  return HF_OK;
}

static hf_status load_split(loader *l, const json *v) {
  static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  const char *behavior = "Isolated";
  bool invert = false;
  HF_TRY(json_opt_str(v, l->where, "behavior", &behavior));
  HF_TRY(json_opt_bool(v, l->where, "invert", &invert));
  int cut = 0;
  while (cut < 5 && strcmp(behavior, names[cut]) != 0) cut++;
  if (cut == 5) return hf_fail(HF_INPUT, "%s: pre_tokenizer: behavior: '%s' is not known", l->where, behavior);
  const json *pattern = json_get(v, "pattern");
  const char *regex = json_string(json_get(pattern, "Regex"));
  const char *literal = json_string(pattern) ? json_string(pattern) : json_string(json_get(pattern, "String"));
  if (regex) return tok_split_add(&l->t->splitter, l->where, regex, strlen(regex), (tok_cut)cut, invert);
  if (!literal) return hf_fail(HF_INPUT, "%s: pre_tokenizer: Split has neither pattern.Regex nor pattern.String", l->where);
  hf_buf b;
  hf_buf_init(&b, 1 << 16);
  hf_status st = escape_literal(literal, &b);
  if (st == HF_OK) st = tok_split_add(&l->t->splitter, l->where, b.data ? b.data : "", b.len, (tok_cut)cut, invert);
  hf_buf_free(&b);
  return st;
}

static hf_status load_byte_level(loader *l, const json *v) {
  bool prefix = true, use_regex = true; /* the library's defaults */
  HF_TRY(json_opt_bool(v, l->where, "add_prefix_space", &prefix));
  HF_TRY(json_opt_bool(v, l->where, "use_regex", &use_regex));
  if (l->t->vocab.chars) return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: ByteLevel with byte fallback", l->where);
  if (prefix && l->t->splitter.n > 0) {
    return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: ByteLevel.add_prefix_space after other steps is not supported", l->where);
  }
  l->t->prefix = prefix ? PREFIX_IF_MISSING : PREFIX_NONE;
  l->byte_level = true;
  if (!use_regex) return HF_OK;
  return tok_split_add(&l->t->splitter, l->where, tok_gpt2_regex, strlen(tok_gpt2_regex), CUT_ISOLATED, false);
}

/* SentencePiece's again, as a pre-tokenizer. */
static hf_status load_metaspace(loader *l, const json *v) {
  const char *scheme = NULL;
  bool prefix = true, split = true; /* the library's defaults */
  if (!is_text(json_get(v, "replacement"), TOK_SPM_BLANK))
    return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: Metaspace.replacement is not U+2581", l->where);
  HF_TRY(json_opt_bool(v, l->where, "add_prefix_space", &prefix));
  HF_TRY(json_opt_bool(v, l->where, "split", &split));
  HF_TRY(json_opt_str(v, l->where, "prepend_scheme", &scheme));
  if (!scheme) scheme = prefix ? "always" : "never";
  if (strcmp(scheme, "always") == 0) l->t->prefix = PREFIX_IF_MISSING;
  else if (strcmp(scheme, "first") == 0) l->t->prefix = PREFIX_FIRST_IF_MISSING;
  else if (strcmp(scheme, "never") != 0)
    return hf_fail(HF_INPUT, "%s: pre_tokenizer: Metaspace.prepend_scheme: '%s' is not known", l->where, scheme);
  return split ? tok_split_add(&l->t->splitter, l->where, " ", 1, CUT_MERGED_WITH_NEXT, false) : HF_OK;
}

static hf_status load_pre_tokenizer(loader *l, const json *v, int depth) {
  if (is_null(v)) return HF_OK;
  const char *type = type_of(v);
  if (depth > 8) return hf_fail(HF_INPUT, "%s: pre_tokenizer: Sequences nested too deeply", l->where);
  if (l->byte_level) return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: '%s' after ByteLevel is not supported", l->where, type);
  if (strcmp(type, "Sequence") == 0) {
    const json *p = json_first(json_get(v, "pretokenizers"));
    for (; p; p = json_next(p)) HF_TRY(load_pre_tokenizer(l, p, depth + 1));
    return HF_OK;
  }
  if (strcmp(type, "Split") == 0) return load_split(l, v);
  if (strcmp(type, "ByteLevel") == 0) return load_byte_level(l, v);
  if (strcmp(type, "Metaspace") == 0 && l->t->vocab.chars) return load_metaspace(l, v);
  if (strcmp(type, "Digits") == 0) {
    bool individual = false;
    HF_TRY(json_opt_bool(v, l->where, "individual_digits", &individual));
    const char *regex = individual ? "\\p{N}" : "\\p{N}+";
    return tok_split_add(&l->t->splitter, l->where, regex, strlen(regex), CUT_ISOLATED, false);
  }
  return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer.type: '%s' is not supported (known: Sequence, Split, Digits, ByteLevel)",
                 l->where, type);
}

/* --- model ----------------------------------------------------------------------------------------------------- */

static hf_status load_vocab(loader *l, const json *vocab) {
  if (json_type(vocab) != JSON_OBJECT || json_len(vocab) == 0) {
    return hf_fail(HF_INPUT, "%s: model.vocab is missing or no object", l->where);
  }
  for (const json *v = json_first(vocab); v; v = json_next(v)) {
    double id = json_number(v, -1);
    if (!(id >= 0 && id < TOK_MAX_ID) || id != (double)(int64_t)id) {
      return hf_fail(HF_INPUT, "%s: model.vocab: the id of '%.40s' is no whole number in 0..%d", l->where, json_key(v),
                     TOK_MAX_ID - 1);
    }
    bool is_byte = false;
    if (l->t->vocab.chars)
      HF_TRY(tok_vocab_add_byte(&l->t->vocab, l->where, json_key(v), strlen(json_key(v)), (int64_t)id, &is_byte));
    if (is_byte) continue;
    HF_TRY(tok_vocab_add(&l->t->vocab, l->where, json_key(v), strlen(json_key(v)), (int64_t)id));
  }
  return tok_vocab_finish(&l->t->vocab, l->where);
}

static hf_status load_merges(loader *l, const json *merges) {
  if (!merges || json_type(merges) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: model.merges is missing or no array", l->where);
  tok_vocab *v = &l->t->vocab;
  HF_TRY(tok_vocab_begin_merges(v, json_len(merges)));
  int rank = 0;
  for (const json *m = json_first(merges); m; m = json_next(m), rank++) {
    const char *line = json_string(m);
    if (line) {
      HF_TRY(tok_vocab_add_merge_line(v, l->where, rank, line, strlen(line)));
      continue;
    }
    const json *first = json_type(m) == JSON_ARRAY && json_len(m) == 2 ? json_first(m) : NULL;
    const char *a = json_string(first), *b = first ? json_string(json_next(first)) : NULL;
    if (!a || !b) return hf_fail(HF_INPUT, "%s: model.merges[%d] is neither \"a b\" nor [\"a\", \"b\"]", l->where, rank);
    HF_TRY(tok_vocab_add_merge(v, l->where, rank, a, strlen(a), b, strlen(b)));
  }
  return HF_OK;
}

static hf_status load_model(loader *l, const json *model) {
  const char *type = NULL;
  if (model && json_type(model) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: model is no object", l->where);
  HF_TRY(json_opt_str(model, l->where, "type", &type));
  /* old files leave the type out: BPE is then known by its merges */
  if (type ? strcmp(type, "BPE") != 0 : !json_get(model, "merges")) {
    return hf_fail(HF_UNSUPPORTED, "%s: model.type: '%s' is not supported, only BPE", l->where, type ? type : "(none)");
  }
  HF_TRY(json_opt_bool(model, l->where, "ignore_merges", &l->t->vocab.ignore_merges));
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (int i = 0; i < 2; i++) {
    const char *s = json_string(json_get(model, affixes[i]));
    if (s && *s) return hf_fail(HF_UNSUPPORTED, "%s: model.%s is not supported", l->where, affixes[i]);
  }
  HF_TRY(load_vocab(l, json_get(model, "vocab")));
  return load_merges(l, json_get(model, "merges"));
}

static hf_status load_added(loader *l, const json *list) {
  if (is_null(list)) return HF_OK;
  for (const json *v = json_first(list); v; v = json_next(v)) {
    int64_t id = 0;
    const char *text = NULL;
    bool special = false, lstrip = false, rstrip = false, single = false;
    HF_TRY(json_get_int(v, l->where, "id", 0, TOK_MAX_ID - 1, &id));
    HF_TRY(json_get_str(v, l->where, "content", &text));
    HF_TRY(json_opt_bool(v, l->where, "special", &special));
    HF_TRY(json_opt_bool(v, l->where, "lstrip", &lstrip));
    HF_TRY(json_opt_bool(v, l->where, "rstrip", &rstrip));
    HF_TRY(json_opt_bool(v, l->where, "single_word", &single));
    if (single) return hf_fail(HF_UNSUPPORTED, "%s: added token %d: single_word is not supported", l->where, (int)id);
    tok_added a = {(int32_t)id, special, lstrip, rstrip, text, strlen(text)};
    HF_TRY(tok_add_added(l->t, l->where, &a));
  }
  tok_sort_added(l->t);
  return HF_OK;
}

/* --- post-processor: only whether it puts a token first ---------------------------------------------------------- */

static void load_post_processor(loader *l, const json *v) {
  const char *type = type_of(v);
  if (strcmp(type, "Sequence") == 0) {
    for (const json *p = json_first(json_get(v, "processors")); p; p = json_next(p)) load_post_processor(l, p);
    return;
  }
  if (strcmp(type, "TemplateProcessing") != 0) return;
  const char *first = json_string(json_get(json_get(json_first(json_get(v, "single")), "SpecialToken"), "id"));
  int32_t id = first ? tok_find_added(l->t, first) : -1;
  if (id < 0) return;
  l->t->bos = id;
  l->t->adds_bos = true;
}

hf_status tok_load_json(tokenizer *t, const char *text, size_t n) {
  loader l = {t, t->where, false};
  json *root = NULL;
  HF_TRY(json_parse(text, n, t->where, &root));
  hf_status st;
  if (json_type(root) != JSON_OBJECT) HF_GO(out, hf_fail(HF_INPUT, "%s: no JSON object", t->where));
  HF_GO(out, json_opt_bool(json_get(root, "model"), t->where, "byte_fallback", &t->vocab.chars));
  HF_GO(out, load_normalizer(&l, json_get(root, "normalizer")));
  HF_GO(out, load_pre_tokenizer(&l, json_get(root, "pre_tokenizer"), 0));
  if (!l.byte_level && !t->vocab.chars) {
    HF_GO(out, hf_fail(HF_UNSUPPORTED,
                       "%s: pre_tokenizer has no ByteLevel step and model no byte_fallback; only BPE of bytes or with byte "
                       "fallback is supported",
                       t->where));
  }
  HF_GO(out, load_model(&l, json_get(root, "model")));
  HF_GO(out, load_added(&l, json_get(root, "added_tokens")));
  if (json_get(root, "post_processor")) load_post_processor(&l, json_get(root, "post_processor"));
out:
  json_free(root);
  return st;
}

/* --- tokenizer_config.json --------------------------------------------------------------------------------------- */

/* A token is a string or an object with "content". */
static hf_status config_token(const tokenizer *t, const char *where, const json *config, const char *key, int *out) {
  const json *v = json_get(config, key);
  if (is_null(v)) return HF_OK;
  const char *text = json_string(v) ? json_string(v) : json_string(json_get(v, "content"));
  if (!text) return hf_fail(HF_INPUT, "%s: %s is neither text nor an object with content", where, key);
  int32_t id = tok_find_added(t, text);
  if (id < 0) id = tok_vocab_find(&t->vocab, text, strlen(text));
  if (id < 0) return hf_fail(HF_INPUT, "%s: %s: '%.60s' is not in the vocabulary", where, key, text);
  *out = id;
  return HF_OK;
}

hf_status tok_load_config_tokens(tokenizer *t, const char *where, const json *config) {
  for (const json *v = json_first(json_get(config, "added_tokens_decoder")); v; v = json_next(v)) {
    char *end = NULL;
    const char *text = NULL;
    long id = strtol(json_key(v), &end, 10);
    bool special = false, lstrip = false, rstrip = false;
    if (*end || end == json_key(v) || id < 0 || id >= TOK_MAX_ID)
      return hf_fail(HF_INPUT, "%s: added_tokens_decoder: '%.40s' is no token id", where, json_key(v));
    HF_TRY(json_get_str(v, where, "content", &text));
    HF_TRY(json_opt_bool(v, where, "special", &special));
    HF_TRY(json_opt_bool(v, where, "lstrip", &lstrip));
    HF_TRY(json_opt_bool(v, where, "rstrip", &rstrip));
    if (id < t->vocab.n && t->vocab.tok[id].kind != TOK_HOLE) continue; /* the tokenizer's own file has it */
    tok_added a = {(int32_t)id, special, lstrip, rstrip, text, strlen(text)};
    HF_TRY(tok_add_added(t, where, &a));
  }
  tok_sort_added(t);
  return HF_OK;
}

/* Text, or a list of {name, template}: the one named default, else the first. */
static const char *config_template(const json *v) {
  if (!v || json_string(v)) return json_string(v);
  const char *first = NULL;
  for (const json *e = json_first(v); e; e = json_next(e)) {
    const char *name = json_string(json_get(e, "name")), *text = json_string(json_get(e, "template"));
    if (name && text && strcmp(name, "default") == 0) return text;
    if (!first) first = text;
  }
  return first;
}

hf_status tok_load_config(tokenizer *t, const char *where, const json *config) {
  if (json_type(config) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: no JSON object", where);
  HF_TRY(config_token(t, where, config, "bos_token", &t->bos));
  HF_TRY(config_token(t, where, config, "eos_token", &t->eos));
  HF_TRY(json_opt_bool(config, where, "add_bos_token", &t->adds_bos));
  if (t->bos < 0) t->adds_bos = false;
  const char *template = config_template(json_get(config, "chat_template"));
  return template ? hf_strdup(&t->chat_template, template) : HF_OK;
}
