#!/usr/bin/env python3
"""Writes kernels/ref/codebook_tables.h and tests/golden/dequant/codebooks.{bin,sum}. Needs the packages gguf (the reference decoder of the
formats) and numpy; run in the root of the repository. Made with gguf 0.19.0, numpy 2.4.6.

No table is read: blocks whose bits name every index, with scales that make a unit one and all signs positive, go through the decoder, and the
points are what comes out."""
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

# type: bytes of a block, points, values of a point, scale that gives whole numbers, what the decoder adds to each value
BOOKS = {
    "IQ1_S": (50, 2048, 8, 1.0, 0.125),
    "IQ2_XXS": (66, 256, 8, 8.0, 0),
    "IQ2_XS": (74, 512, 8, 8.0, 0),
    "IQ2_S": (82, 1024, 8, 8.0, 0),
    "IQ3_XXS": (98, 256, 4, 4.0, 0),
    "IQ3_S": (110, 512, 4, 1.0, 0),
}
LEVELS = {8: 3, 4: 8}


def put_words(block, at, words, kind):
    block[at : at + len(words) * np.dtype(kind).itemsize] = np.array(words, kind).view(np.uint8)


def name_indices(kind, block, index):
    """Puts as many indices into a block as it has points; everything else stays as it is."""
    low, high = index & 255, index >> 8
    if kind == "IQ2_XXS":
        for g in range(8):
            block[2 + 8 * g : 6 + 8 * g] = low[4 * g : 4 * g + 4]
    elif kind == "IQ2_XS":
        old = block[2:66].view("<u2") & 0xFE00
        put_words(block, 2, old | index, "<u2")
    elif kind == "IQ1_M":
        block[0:32] = low
        for i in range(32):
            keep = block[32 + i // 2] & ~np.uint8(7 << i % 2 * 4)
            block[32 + i // 2] = keep | high[i] << i % 2 * 4
    else:
        n = len(index)
        block[2 : 2 + n] = low
        if kind == "IQ1_S":
            old = block[34:50].view("<u2") & 0xF000
            put_words(block, 34, [old[g] | sum(int(high[4 * g + k]) << 3 * k for k in range(4)) for g in range(8)], "<u2")
        elif kind == "IQ2_S":
            for g in range(8):
                block[66 + g] = sum(int(high[4 * g + k]) << 2 * k for k in range(4))
        elif kind == "IQ3_S":
            for g in range(8):
                block[66 + g] = sum(int(high[8 * g + k]) << k for k in range(8))


def points_of(kind):
    size, n, width, scale, added = BOOKS[kind]
    rows = []
    for first in range(0, n, 256 // width):
        block = np.zeros(size, np.uint8)
        put_words(block, 0, [scale], "<f2")
        name_indices(kind, block, np.arange(first, first + 256 // width))
        rows.append(dequantize(block.reshape(1, -1), getattr(Type, kind)).reshape(-1, width) - added)
    return np.concatenate(rows)


def write_tables(path):
    with open(path, "w") as f:
        f.write("/* codebook_tables.h: which points the codebooks of the IQ1, IQ2 and IQ3 formats hold: constants of the file formats.\n"
                " * Made by tools/codebooks.py: blocks that name every index went through the formats' reference decoder. In each book the points rise with\n"
                " * the index when value i counts base^i, so a book is a set of numbers: bit n % 64 of word n / 64. Included by codebooks.c only. */\n"
                "#ifndef HF_KERNELS_REF_CODEBOOK_TABLES_H\n#define HF_KERNELS_REF_CODEBOOK_TABLES_H\n\n#include <stdint.h>\n")
        for kind in BOOKS:
            points = points_of(kind)
            values, level = np.unique(points, return_inverse=True)
            level = level.reshape(points.shape)
            base = len(values)
            number = (level * base ** np.arange(points.shape[1])).sum(axis=1)
            assert base == LEVELS[points.shape[1]] and (np.diff(number) > 0).all()
            words = [0] * ((base ** points.shape[1] + 63) // 64)
            for n in number:
                words[n // 64] |= 1 << int(n % 64)
            name = "iq1" if kind == "IQ1_S" else kind.lower()  # IQ1_M has the same
            f.write(f"\n/* {len(points)} points of {points.shape[1]} values: {', '.join(f'{v:g}' for v in values)} */\n")
            f.write(f"static const uint64_t {name}_members[{len(words)}] = {{\n")
            for i in range(0, len(words), 6):
                f.write("    " + ", ".join(f"0x{w:016x}" for w in words[i : i + 6]) + ",\n")
            f.write("};\n")
        f.write("\n#endif\n")


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def put_scale(kind, block, d):
    bits = int(np.array([d], "<f2").view("<u2")[0])
    if kind != "IQ1_M":
        put_words(block, 0, [bits], "<u2")
        return
    for k in range(4):
        block[49 + 2 * k] = block[49 + 2 * k] & 15 | (bits >> 4 * k & 15) << 4


def write_reference(path):
    """Every index of every type once, signs and scales at random: the blocks, and of each the hash of its 256 values as float32."""
    random = np.random.default_rng(20261130)
    with open(path + ".bin", "wb") as blocks, open(path + ".sum", "w") as sums:
        for kind in [*BOOKS, "IQ1_M"]:
            size, n, width = (56, 2048, 8) if kind == "IQ1_M" else BOOKS[kind][:3]
            order = random.permutation(n)
            for first in range(0, n, 256 // width):
                block = random.integers(0, 256, size).astype(np.uint8)
                put_scale(kind, block, random.uniform(-0.1, 0.1))
                name_indices(kind, block, order[first : first + 256 // width])
                values = dequantize(block.reshape(1, -1), getattr(Type, kind)).astype("<f4")
                blocks.write(block.tobytes())
                sums.write(f"{kind} {fnv(values.tobytes()):016x}\n")


write_tables("kernels/ref/codebook_tables.h")
write_reference("tests/golden/dequant/codebooks")
