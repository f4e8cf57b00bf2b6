"""How the tests drive the program `specmoe`, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("SPECMOE_PROGRAM", ROOT / "build/cpu/specmoe"))
MODELS = Path(os.environ.get("SPECMOE_MODELS", ROOT / "experiments/models"))
TARGET, SMALL = str(MODELS / "target"), str(MODELS / "drafter")
DRAFTER = f"independent(path={SMALL})"
PROMPT = "Problem: Theo has 5 pebbles. Paul has 3 more than Theo. How many pebbles does Paul have?\nSolution:"
QUESTIONS = [
    {"question_id": 81, "category": "math", "turns": [PROMPT]},
    {"question_id": "x-2", "turns": ["Problem: Ada has 3 apples", "And then?"]},
    {"question_id": 3, "category": "code", "turns": ["def read(self):\n"]},
]


def specmoe(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=120, **options
    )


def ok(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    done = specmoe(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


GENERATE = ["generate", "--target", SMALL, "--prompt", "a", "--max-new-tokens", "4"]
BENCH = ["bench", "--target", SMALL, "--drafter", "ngram", "--prompt", "a", "--max-new-tokens", "4"]


def generate(*arguments: str, **options) -> str:
    return ok(
        "generate", "--target", TARGET, "--prompt", PROMPT, "--max-new-tokens", "40", *arguments, **options
    ).stdout


def expect_one_line(done: subprocess.CompletedProcess[str], wanted: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("loaded ")]
    assert len(errors) == 1 and errors[0].startswith("specmoe: error: "), done.stderr
    assert wanted in errors[0]
