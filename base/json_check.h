/* json_check.h: the strict JSON grammar, checked before any parser allocates for the text. Private to base. */
#ifndef HF_BASE_JSON_CHECK_H
#define HF_BASE_JSON_CHECK_H

#include "base/status.h"

/* HF_OK when text[0..n) is exactly one JSON value in valid UTF-8: nesting at most JSON_MAX_DEPTH, no NUL byte nor \u0000 (a C
 * string would end there), surrogates in pairs, numbers of at most 60 characters that fit a double, nothing but white space
 * behind the value. Else HF_INPUT "where: line L: what". Allocates nothing; linear time. */
HF_MUST hf_status json_check_text(const char *text, size_t n, const char *where);

/* Length 1..4 of the UTF-8 sequence that starts at s (n bytes remain), 0 when it is not valid (overlong forms, surrogates and
 * values over U+10FFFF included). */
int json_utf8_length(const unsigned char *s, size_t n);

#endif
