"""Writes prompts, none of them trained on, in the Spec-Bench question format.

python make_prompts.py --tokenizer FOLDER --output FOLDER
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from corpus import measured_code_files, read_code
from evaluate import SEED, held_out_problems
from word_problems import KINDS, Problem

OPENING = re.compile(r"(def \w+\(|class \w+[:(])")
CODE_PROMPT_LINES = 10
CODE_PROMPT_TOKENS = (60, 160)  # least and most


def question(number: int, category: str, prompt: str, reference: list[str]) -> dict:
    """One line of a Spec-Bench question file."""
    return {"question_id": number, "category": category, "turns": [prompt], "reference": reference}


def code_prompts(count: int, seed: str, tokenizer: Tokenizer) -> list[str]:
    """The first lines of functions and classes of held-out library files."""
    rng, found = Random(seed), []
    files = measured_code_files()
    while len(found) < count:
        lines = read_code(rng.choice(files)).splitlines()
        starts = [i for i, line in enumerate(lines[:-CODE_PROMPT_LINES]) if OPENING.match(line)]
        if not starts:
            continue
        start = rng.choice(starts)
        prompt = "\n".join(lines[start : start + CODE_PROMPT_LINES]).rstrip()
        least, most = CODE_PROMPT_TOKENS
        if prompt not in found and least <= len(tokenizer.encode(prompt).ids) <= most:
            found.append(prompt)
    return found


def interleaved(problems: list[Problem]) -> list[Problem]:
    """Sorted by kind before, one of each kind in turn after."""
    by_kind = [[p for p in problems if p.kind == kind] for kind in KINDS]
    return [problem for group in zip(*by_kind, strict=True) for problem in group]


def write(path: Path, problems: list[Problem], code: list[str]) -> None:
    """Problems first, then code."""
    questions = [question(0, p.kind, p.prompt, [str(p.answer)]) for p in problems]
    questions += [question(0, "code", prompt, []) for prompt in code]
    for number, item in enumerate(questions, start=1):
        item["question_id"] = number
    path.write_text("".join(json.dumps(item) + "\n" for item in questions))
    print(f"{path.name}: {len(questions)} prompts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    args.output.mkdir(parents=True, exist_ok=True)
    quick = interleaved(held_out_problems(2, "quickstart"))[:7]
    bench = interleaved(held_out_problems(8, "bench"))
    code = code_prompts(9, "code", tokenizer)
    write(args.output / "quickstart.jsonl", quick, code[:1])
    write(args.output / "bench.jsonl", bench, code[1:])
    write(args.output / "heldout_problems.jsonl", interleaved(held_out_problems(120, SEED)), [])


if __name__ == "__main__":
    main()
