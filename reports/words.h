/* words.h: what the database's keys are called on a page. CSV and JSON keep the keys. Private to reports. */
#ifndef HF_REPORTS_WORDS_H
#define HF_REPORTS_WORDS_H

/* The words for a key (metric, figure, fact, kernel, stage, kind or status of a run); the key itself where none are known. */
const char *words_of(const char *key);

/* The plural's "s" after a count. */
const char *plural(long long n);
#endif
