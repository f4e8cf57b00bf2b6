"""Writes tokenizer_unicode_data.cpp, the tables behind Unicode Normalization Form C, from Python's unicodedata.

    .venv/bin/python core/nn/tokenizer_unicode_data.py > core/nn/tokenizer_unicode_data.cpp

Left out are characters that the `tokenizers` package does not normalise because its own tables are older (Unicode 9 in
0.23): the ids that a model was trained on come from that package. Unicode never changes how an assigned character is
normalised, so the version of Python does not matter.
"""

from __future__ import annotations

import sys
import unicodedata

from tokenizers.normalizers import NFC

MAX_WIDTH = 120
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)


def reorders(mark: str) -> bool:
    """Whether the package knows the combining class of `mark`: it must change places with a mark of another class."""
    other = "\u0334"  # class 1
    pair = mark + other if unicodedata.combining(mark) > unicodedata.combining(other) else "\u0301" + mark
    return NFC().normalize_str(pair) != pair


def combining_rows() -> list[str]:
    """{first, last, class} for every run of code points with the same class."""
    runs: list[list[int]] = []
    for code_point in range(sys.maxunicode + 1):
        combining = unicodedata.combining(chr(code_point))
        if not combining or not reorders(chr(code_point)):
            continue
        if runs and runs[-1][1] == code_point - 1 and runs[-1][2] == combining:
            runs[-1][1] = code_point
        else:
            runs.append([code_point, code_point, combining])
    return [f"{{0x{first:X}, 0x{last:X}, {combining}}}" for first, last, combining in runs]


def decomposition_rows() -> list[str]:
    """{composed, first, second, composes} for every canonical mapping except Hangul's, which is arithmetic."""
    rows = []
    for code_point in range(sys.maxunicode + 1):
        mapping = unicodedata.decomposition(chr(code_point))
        if not mapping or mapping.startswith("<") or code_point in HANGUL_SYLLABLES:
            continue
        parts = [int(part, 16) for part in mapping.split()]
        first, second = (parts + [0])[:2]
        character = chr(code_point)
        composes = unicodedata.normalize("NFC", character) == character
        if NFC().normalize_str("".join(map(chr, parts)) if composes else character) != unicodedata.normalize(
            "NFC", character
        ):
            continue
        rows.append(f"{{0x{code_point:X}, 0x{first:X}, 0x{second:X}, {str(composes).lower()}}}")
    return rows


def table(declaration: str, rows: list[str]) -> list[str]:
    lines = [f"constexpr {declaration}[] = {{"]
    line = "   "
    for row in rows:
        if len(line) + len(row) + 2 > MAX_WIDTH:
            lines.append(line)
            line = "   "
        line += f" {row},"
    return [*lines, line, "};"]


def main() -> None:
    lines = [
        "// Written by tokenizer_unicode_data.py; do not edit.",
        "",
        '#include "core/nn/tokenizer_unicode.h"',
        "",
        "namespace specmoe::nn {",
        "namespace {",
        "",
        "// clang-format off",
        *table("CombiningRange kCombiningRanges", combining_rows()),
        "",
        *table("Decomposition kDecompositions", decomposition_rows()),
        "// clang-format on",
        "",
        "}  // namespace",
        "",
        "std::span<const CombiningRange> combining_ranges() { return kCombiningRanges; }",
        "std::span<const Decomposition> decompositions() { return kDecompositions; }",
        "",
        "}  // namespace specmoe::nn",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
