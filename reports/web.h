/* web.h: the files of web/ and Chart.js, compiled into the program (db/embed.cmake). Private to reports. */
#ifndef HF_REPORTS_WEB_H
#define HF_REPORTS_WEB_H
#include "db/embed.h"

extern const hf_embedded hf_embedded_web[];   /* page.html, style.css, report.js */
extern const hf_embedded hf_embedded_chart[]; /* one entry: the browser build of Chart.js, its licence comment first */
#endif
