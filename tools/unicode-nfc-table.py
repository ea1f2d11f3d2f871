#!/usr/bin/env python3
"""Writes model/tokenizer_nfc_table.h from Python's copy of the Unicode Character Database (standard output)."""
import sys
import unicodedata as u

comps = {}
rows = []
for cp in range(0x110000):
    if 0xAC00 <= cp < 0xD7A4:
        continue  # Hangul is computed
    d = u.decomposition(chr(cp))
    if not d or d.startswith("<"):
        continue
    parts = [int(x, 16) for x in d.split()]
    a, b = parts[0], parts[1] if len(parts) > 1 else 0
    if b and u.normalize("NFC", chr(a) + chr(b)) == chr(cp):
        comps[(a, b)] = len(rows)
    rows.append((cp, a, b))

classes = []
for cp in range(0x110000):
    c = u.combining(chr(cp))
    if c == 0:
        continue
    if classes and classes[-1][1] == cp - 1 and classes[-1][2] == c:
        classes[-1][1] = cp
    else:
        classes.append([cp, cp, c])


def table(items, width=128):
    line = " "
    for it in items:
        if len(line) + len(it) + 2 > width:
            print(line)
            line = " "
        line += " " + it + ","
    print(line)


print("/* tokenizer_nfc_table.h: canonical decompositions, compositions and combining classes of Unicode %s." % u.unidata_version)
print(" * Made by tools/unicode-nfc-table.py; included by tokenizer_nfc.c only. */")
print("#ifndef HF_MODEL_TOKENIZER_NFC_TABLE_H\n#define HF_MODEL_TOKENIZER_NFC_TABLE_H\n#include <stdint.h>\n")
print("/* cp = a, b (b 0: a alone), ordered by cp */")
print("static const struct {\n  uint32_t cp, a, b;\n} nfc_decomp[%d] = {" % len(rows))
table("{0x%x, 0x%x, 0x%x}" % r for r in rows)
print("};\n\n/* indices into nfc_decomp of the pairs that compose, ordered by (a, b) */")
print("static const uint16_t nfc_comp[%d] = {" % len(comps))
table(str(comps[k]) for k in sorted(comps))
print("};\n\n/* combining classes other than 0, first..last */")
print("static const struct {\n  uint32_t first, last, ccc;\n} nfc_class[%d] = {" % len(classes))
table("{0x%x, 0x%x, %d}" % tuple(c) for c in classes)
print("};\n#endif")
