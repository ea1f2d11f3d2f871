/* tokenizer_pre.c: the pre-tokenizers that a GGUF file only names (tokenizer.ggml.pre), as chains of regexes.
 *
 * The names are those that llama.cpp's converter writes; the regexes are the ones of the tokenizer.json (or the tiktoken
 * pattern) of the models named with each entry. Where two names share a splitting rule they share the row. */
#include "model/tokenizer_int.h"

#include <string.h>

/* GPT-2, encoder.py of openai/gpt-2; also the regex of ByteLevel with use_regex in the tokenizers library. */
const char tok_gpt2_regex[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* The tail that most chains since cl100k share, after the rules for words and numbers. */
#define TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TAIL_SLASH " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

/* deepseek-ai/deepseek-llm-7b-base, tokenizer.json: letters are listed by range there (cased ones of Unicode 11). */
#define DEEPSEEK_LLM_LETTERS                                                                                                  \
  "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}"            \
  "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}"              \
  "\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}"                \
  "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}"        \
  "\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}"         \
  "\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}"         \
  "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"         \
  "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}" \
  "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"                   \
  "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"         \
  "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"        \
  "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"                 \
  "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

typedef struct {
  const char *names; /* separated by blanks */
  bool ignore_merges;
  const char *regex[6];
} named_pre;

static const named_pre table[] = {
    /* openai-community/gpt2; allenai/OLMoE-1B-7B-0924 (olmo) */
    {"gpt-2 gpt2 olmo mpt phi-2 jina-es jina-de", false, {tok_gpt2_regex}},
    /* deepseek-ai/deepseek-llm-7b-base; DeepSeek-V2 writes the same name */
    {"deepseek-llm",
     false,
     {"[\\r\\n]", "\\s?[" DEEPSEEK_LLM_LETTERS "]+",
      "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", "\\s+$",
      "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}+"}},
    /* deepseek-ai/deepseek-coder-6.7b-base */
    {"deepseek-coder",
     false,
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"}},
    /* deepseek-ai/DeepSeek-V3 and -R1, tokenizer.json */
    {"deepseek-v3",
     false,
     {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
      " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    /* Qwen/Qwen2-57B-A14B and Qwen/Qwen3-30B-A3B, tokenizer.json; deepseek-ai/DeepSeek-R1-Distill-Qwen */
    {"qwen2 deepseek-r1-qwen", false, {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL}},
    /* meta-llama/Meta-Llama-3-8B, tokenizer.json */
    {"llama-bpe llama3 llama-v3", true, {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL}},
    /* THUDM/glm-4-9b and zai-org/GLM-4.5, tokenizer.json; databricks/dbrx-base (tiktoken cl100k) */
    {"glm4 chatglm-bpe dbrx", false, {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL}},
    /* openai/gpt-oss-120b, tokenizer.json (o200k) */
    {"gpt-4o llama4",
     false,
     {"[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" CONTRACTION "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" CONTRACTION
      "?|\\p{N}{1,3}|" TAIL_SLASH}},
    /* mistralai/Mistral-Nemo-Base-2407, tokenizer.json */
    {"tekken",
     true,
     {"[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*|\\p{N}|" TAIL_SLASH}},
    /* moonshotai/Kimi-K2-Instruct, tokenization_kimi.py; "&&[^\p{Han}]" there is the look-ahead here */
    {"kimi-k2",
     false,
     {"[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?(?:(?!\\p{Han})[" UPPER "])*(?:(?!\\p{Han})[" LOWER "])+" CONTRACTION
      "?|[^\\r\\n\\p{L}\\p{N}]?(?:(?!\\p{Han})[" UPPER "])+(?:(?!\\p{Han})[" LOWER "])*" CONTRACTION "?|\\p{N}{1,3}|" TAIL}},
};

enum { N_TABLE = sizeof table / sizeof *table };

static bool has_name(const char *names, const char *name) {
  size_t n = strlen(name);
  for (const char *p = names; n > 0 && (p = strstr(p, name)) != NULL; p += n) {
    if ((p == names || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0) && !memchr(name, ' ', n)) return true;
  }
  return false;
}

hf_status tok_pre_named(const char *where, const char *name, tok_splitter *s, bool *ignore_merges) {
  for (int i = 0; i < N_TABLE; i++) {
    if (!has_name(table[i].names, name)) continue;
    *ignore_merges = table[i].ignore_merges;
    for (int k = 0; k < 6 && table[i].regex[k]; k++) {
      HF_TRY(tok_split_add(s, where, table[i].regex[k], strlen(table[i].regex[k]), CUT_ISOLATED, false));
    }
    return HF_OK;
  }
  char known[512] = "";
  for (int i = 0; i < N_TABLE; i++) {
    size_t at = strlen(known);
    if (at + strlen(table[i].names) + 2 < sizeof known) {
      known[at] = ' ';
      memcpy(known + at + 1, table[i].names, strlen(table[i].names) + 1);
    }
  }
  return hf_fail(HF_UNSUPPORTED, "%s: tokenizer.ggml.pre: '%.60s' is not known (known:%s)", where, name, known);
}
