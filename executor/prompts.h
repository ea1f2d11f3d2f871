/* prompts.h: prompts in, answers out, as JSON Lines.
 * In:  {"prompt": TEXT}, {"messages": [{"role", "content"}, ...]} or {"ids": [...]}, optional "id", "arrival_s", "max_tokens", "stop" (a text or
 *      an array of texts), "session" (a text); other members can be filtered on. Lines of one session are turns of one conversation: what a later line has comes
 *      behind the earlier prompt and its answer (with chat: as the user's next message), and it waits for that answer.
 * Out: {"id", "session" where it is a turn of one, "prompt_tokens", "output_tokens", "text", "ids", "finish", "arrival_s", "ttft_s", "tpot_s", "end_s"}; ttft_s where a token
 * came, tpot_s where two did; "logprobs" where they were asked for: [{"id", "logprob", "top": [[id, logprob], ...]}, ...] by token. "text" is
 * valid UTF-8 whatever the model wrote, and ends before a stop text; "ids" are all tokens. */
#ifndef HF_EXECUTOR_PROMPTS_H
#define HF_EXECUTOR_PROMPTS_H
#include "executor/form.h"
#include "executor/serve.h"
#include "model/chat.h"
#include "model/tokenizer.h"

typedef struct {
  int max_tokens;        /* where a line has none */
  int limit;             /* most requests; 0 = all */
  int repeat_to;         /* repeat the prompts until there are so many; 0 = no */
  const char *where_key; /* only lines whose member where_key equals where_value; NULL = all */
  const char *where_value;
  bool ignore_eos;
  int vocab_size;          /* ids must lie below it */
  const char *const *stop; /* for every request, beside its own; borrowed */
  int n_stop;
  int logprobs; /* above 0: note the tokens' probabilities, and those of so many most likely ones */
  const chat_style
      *chat;          /* prompts of text are a user's message, "messages" are understood; NULL: prompts are taken as they are */
  const char *system; /* with chat: message before a prompt of text; NULL = none */
  const char *no_tokenizer; /* why there is none, for the error of a prompt of text; may be NULL */
} prompt_options;

typedef struct {
  serve_request *req;
  int n, cap;
  char **
      kept; /* [n_all] in the order of the file: the line of an answer that is there already, or NULL; NULL = none is. Then req holds the rest, and
               behind it those that are answered */
  int n_all;
  struct prompt_turn *turn; /* as req, where any line is of a session; else NULL */
  int n_sessions;
  hf_arena *a; /* owns everything */
} prompt_list;

/* tok may be NULL when every line has ids. HF_INPUT with file and line. */
HF_MUST hf_status prompts_read(const char *path, const tokenizer *tok, const prompt_options *o, prompt_list *out);
/* One request from text, or n random ids (bench) when text is NULL. */
HF_MUST hf_status prompts_add_text(prompt_list *l, const tokenizer *tok, const char *text, const prompt_options *o);
HF_MUST hf_status prompts_random(int n_requests, int n_ids, int vocab, uint64_t seed, const prompt_options *o, prompt_list *out);
/* serve_options.go_on for a request of the list. form, system: those that prompt_options.chat and system were of. */
HF_MUST hf_status prompts_go_on(const prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                                const model_config *c, serve_request *r);
void prompts_free(prompt_list *l);
const serve_request *prompts_longest_request(const prompt_list *l); /* n > 0 */
/* Sessions that wait while `users` requests run, at most: where some are of none, all of them may. */
int prompts_parked(const prompt_list *l, int users);
int prompts_longest(const prompt_list *l); /* most prompt + output tokens of a request */
/* Means over the requests, rounded; what a plan for this load is made for. */
void prompts_mean(const prompt_list *l, int *prompt_tokens, int *output_tokens);
/* Takes the answers of an earlier run with the same prompts out of a file that it wrote (HF_OK also when there is none): their requests need not be
 * served again, prompts_write writes their lines as they are. Answers that were cancelled, and a last line that is cut, are not taken. HF_INPUT when
 * an answer is of another prompt. */
HF_MUST hf_status prompts_keep(prompt_list *l, const char *path);
/* After the last of them: leaves in req what is still to be served; later turns of sessions find there what they go on from, written out again from the answers'
 * tokens. form, system: as of prompts_go_on. HF_INPUT when an answer is of another prompt. */
HF_MUST hf_status prompts_drop_kept(prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                                    const model_config *c);
/* One answer's line, with its end. */
HF_MUST hf_status prompts_answer_line(const serve_request *r, const tokenizer *tok, hf_buf *out);
/* Writes all answers to path as hf_write_file does (a failure leaves the old file). tok may be NULL (no text then). */
HF_MUST hf_status prompts_write(const char *path, const prompt_list *l, const tokenizer *tok);
/* The text of an answer; ids that the vocabulary does not have (models round its size up) give nothing. */
HF_MUST hf_status prompts_text(const serve_request *r, const tokenizer *tok, hf_buf *out);
#endif
