/* status.h: the one way a function of this suite says that it failed.
 *
 * Every fallible function returns hf_status and is marked HF_MUST, so the compiler refuses to let a caller drop it.
 * 0 is success. A failure is raised once with hf_fail(), which starts the thread's error trail, and passed up with
 * HF_TRY; each level may add what it was doing with hf_note(). main() prints hf_error_line(): one readable line, the
 * outermost context first:   "examples/tiny/config.json: field num_hidden_layers: 0 is below the least allowed, 1".
 *
 * Library code never prints and never exits; only the main.c files do. Thread rule: the trail is per thread. */
#ifndef HF_BASE_STATUS_H
#define HF_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
  HF_OK = 0,
  HF_NO,          /* the answer is no: infeasible, check failed, gate missed          -> exit 1 */
  HF_INPUT,       /* bad input or usage: file, field, option                          -> exit 2 */
  HF_NOT_FOUND,   /* the named thing does not exist                                   -> exit 2 */
  HF_UNSUPPORTED, /* understood, but this build, machine or variant declines          -> exit 2 */
  HF_MACHINE,     /* the machine failed: out of memory, I/O error, disk full          -> exit 3 */
  HF_LOST,        /* a device is lost; the caller may move its work elsewhere         -> exit 3 */
  HF_TIMEOUT,     /* a deadline passed                                                -> exit 3 */
} hf_status;

#define HF_MUST __attribute__((warn_unused_result))
#define HF_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))

/* Starts a new trail with this message and returns code. code must not be HF_OK. */
HF_MUST hf_status hf_fail(hf_status code, const char *fmt, ...) HF_PRINTF(2, 3);

/* Tells the compiler that a failure is never HF_OK; without it, it warns of out-parameters used uninitialised after HF_TRY. */
HF_MUST static inline hf_status hf_never_ok(hf_status code) {
  if (code == HF_OK) __builtin_unreachable();
  return code;
}
#define hf_fail(...) hf_never_ok((hf_fail)(__VA_ARGS__))

/* Puts "message: " before the trail (outermost context first) and returns code; no-op when code is HF_OK. */
hf_status hf_note(hf_status code, const char *fmt, ...) HF_PRINTF(2, 3);

/* The trail as one line without newline, at most 1023 bytes, control characters replaced; "" after hf_clear_error().
 * Valid until this thread's next hf_fail/hf_note. */
const char *hf_error_line(void);
void hf_clear_error(void);

/* Exit status of a program that ends with this code (design: 0 good, 1 no, 2 bad input, 3 machine failed). */
int hf_exit_status(hf_status code);

/* Forwards a failure to the caller unchanged. */
#define HF_TRY(expr)                                    \
  do {                                                  \
    hf_status hf_try_status_ = (expr);                  \
    if (hf_try_status_ != HF_OK) return hf_try_status_; \
  } while (0)

/* For functions with one cleanup label: needs a local `hf_status st`. */
#define HF_GO(label, expr)       \
  do {                           \
    st = (expr);                 \
    if (st != HF_OK) goto label; \
  } while (0)

#endif
