"""The training mix: generated word problems and Python's standard library.

Batches are a pure function of (seed, step): a resumed run sees what an unbroken one would see.
"""

from __future__ import annotations

import sysconfig
import zlib
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

from word_problems import make_problem

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
BEGIN_ID, END_ID = 0, 1
CODE_HELD_OUT_BUCKETS = 20  # one file in 20 is held out
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
MAX_FILE_BYTES = 200_000
MIN_PART = 20  # a problem is cut at the end of a row if so many tokens of it fit


def code_files(held_out: bool) -> list[Path]:
    """Standard-library sources in a fixed order; the split is by a hash of the relative path."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS & set(relative.parts) or path.stat().st_size > MAX_FILE_BYTES:
            continue
        held = zlib.crc32(relative.as_posix().encode()) % CODE_HELD_OUT_BUCKETS == 0
        if held == held_out:
            files.append(path)
    return files


def measured_code_files() -> list[Path]:
    """Held-out files without the codecs, whose siblings in the training set are nearly the same."""
    return [path for path in code_files(held_out=True) if path.parent.name != "encodings"]


def read_code(path: Path) -> str:
    """A file's text; undecodable bytes are replaced."""
    return path.read_text(encoding="utf-8", errors="replace")


class Corpus:
    """Batches of packed documents: int64 ids [B, T+1] and which predictions count, bool [B, T].

    Tokens of a problem's statement are random, so only a share of them is predicted.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: dict):
        self.tokenizer = tokenizer
        self.code_shares = recipe["code_share"]  # [first step, share of the rows], in order
        self.prompt_share = recipe["prompt_loss_share"]
        self.kinds = recipe["kinds"]  # drawn evenly; a kind that is named twice is drawn twice as often
        self.seed = recipe["seed"]
        texts = [read_code(path) for path in code_files(held_out=False)]
        self.code = [self._code_ids(text) for text in texts]
        self.code_sizes = np.cumsum([len(ids) for ids in self.code])

    def _code_ids(self, text: str) -> np.ndarray:
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return np.array([BEGIN_ID, *ids, END_ID], dtype=np.uint16)

    def batch(self, step: int, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `step`: ids [rows, length + 1], predicted or not [rows, length]."""
        rng = Random(f"{self.seed}/{step}")
        share = [share for first, share in self.code_shares if first <= step][-1]
        code_rows = int(rows * share + rng.random())
        ids = np.full((rows, length + 1), END_ID, dtype=np.int64)
        counts = np.zeros((rows, length + 1), dtype=bool)
        for row in range(code_rows):
            piece = self.code_piece(rng, length + 1)
            ids[row, : len(piece)] = piece
            counts[row, : len(piece)] = True
        self._pack_problems(rng, ids[code_rows:], counts[code_rows:])
        return ids, counts[:, 1:]

    def code_piece(self, rng: Random, length: int) -> np.ndarray:
        """A begin token and `length - 1` tokens from a random place of the library."""
        at = rng.randrange(int(self.code_sizes[-1]))
        file = int(np.searchsorted(self.code_sizes, at, side="right"))
        ids = self.code[file]
        start = max(0, rng.randrange(-length // 4, max(1, len(ids) - length)))
        piece = ids[start : start + length].copy()
        if start > 0:
            piece[0] = BEGIN_ID
        return piece

    def _pack_problems(self, rng: Random, ids: np.ndarray, counts: np.ndarray) -> None:
        """Fills the rows with problems; the last one may be cut at the row's end."""
        waiting: list[tuple[list[int], list[int]]] = []
        for row_ids, row_counts in zip(ids, counts, strict=True):
            used = 0
            while True:
                if len(waiting) < 16:
                    waiting += self._problems(rng, 16)
                room = len(row_ids) - used
                fitting = [doc for doc in waiting if len(doc[0]) + len(doc[1]) <= room]
                if not fitting and room < MIN_PART:
                    break
                if room > 200 or not fitting:  # far from the end, or cut there
                    doc = waiting[0]
                else:
                    doc = max(fitting, key=lambda d: len(d[0]) + len(d[1]))
                waiting.remove(doc)
                prompt, solution = doc
                middle, end = used + len(prompt), used + min(room, len(prompt) + len(solution))
                row_ids[used:end] = (prompt + solution)[:room]
                for at in range(used + 1, min(middle, end)):
                    row_counts[at] = rng.random() < self.prompt_share
                row_counts[middle:end] = True
                used = end

    def _problems(self, rng: Random, count: int) -> list[tuple[list[int], list[int]]]:
        problems = [make_problem(rng, rng.choice(self.kinds)) for _ in range(count)]
        prompts = self.tokenizer.encode_batch([p.prompt for p in problems], add_special_tokens=False)
        solutions = self.tokenizer.encode_batch([p.solution for p in problems], add_special_tokens=False)
        pairs = zip(prompts, solutions, strict=True)
        return [([BEGIN_ID, *p.ids], [*s.ids, END_ID]) for p, s in pairs]
