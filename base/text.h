/* text.h: small questions about text that several rooms ask. Pure functions, safe from any thread. */
#ifndef HF_BASE_TEXT_H
#define HF_BASE_TEXT_H
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the UTF-8 sequence that starts at s (n bytes remain), 0 when there is none that is valid (overlong forms,
 * surrogates and values over U+10FFFF included). *cp receives the code point when it is valid; cp may be NULL. */
int hf_utf8(const char *s, size_t n, uint32_t *cp);

/* For text that goes to a terminal or a log line and may come from a hostile file: control characters (C0, DEL, and C1 in its
 * UTF-8 form) become '?', newline and tab a space. In place; the length stays. */
void hf_printable(char *s);

/* Fewest insertions, deletions and replacements of one character, and exchanges of two neighbours, that turn the n_a bytes of a into b, ASCII case ignored: "did
 * you mean ...?". Texts longer than HF_EDIT_MAX bytes are HF_EDIT_FAR from everything. */
enum { HF_EDIT_MAX = 96, HF_EDIT_FAR = 1000 };
int hf_edit_distance(const char *a, size_t n_a, const char *b);

#endif
