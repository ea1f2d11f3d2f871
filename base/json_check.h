/* json_check.h: the strict JSON grammar, checked before any parser allocates for the text. Private to base. */
#ifndef HF_BASE_JSON_CHECK_H
#define HF_BASE_JSON_CHECK_H

#include "base/status.h"

/* HF_OK when text[0..n) is exactly one JSON value in valid UTF-8: nesting at most JSON_MAX_DEPTH, at most JSON_MAX_VALUES values,
 * no NUL byte nor \u0000 (a C string would end there), surrogates in pairs, numbers of at most 60 characters that fit a double,
 * nothing but white space behind the value. Else HF_INPUT "where: line L: what". Allocates nothing; linear time. */
HF_MUST hf_status json_check_text(const char *text, size_t n, const char *where);

#endif
