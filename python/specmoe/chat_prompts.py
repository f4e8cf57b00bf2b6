"""Renders questions with a checkpoint's chat template, for `specmoe generate` and `specmoe bench`.

The turn that is asked is the first one; in a row with "answers", the one after the turns that they answer.

python -m specmoe.chat_prompts --target MODEL --prompts questions.jsonl > rendered.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from specmoe import Error, render_chat


def conversation(turns: list[str], answers: list[str]) -> list[dict[str, str]]:
    """The answered turns with their answers, and the next turn."""
    messages = []
    for turn, answer in zip(turns, answers, strict=False):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": turns[len(answers)]}]


def read_questions(path: str) -> list[dict[str, object]]:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise Error(f"cannot read '{path}': {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("turns"), list) or not row["turns"]:
            raise Error(f'{path}, line {number}: expected a question such as {{"question_id": 1, "turns": ["..."]}}')
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m specmoe.chat_prompts", description="Renders questions as chat prompts."
    )
    parser.add_argument("--target", required=True, help="checkpoint whose template is used")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", help="Spec-Bench questions, one JSON object a line")
    source.add_argument("--prompt", help="one question")
    parser.add_argument("--system", help="a system message before each question")
    arguments = parser.parse_args()
    system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    try:
        if arguments.prompt is not None:
            rows = [{"question_id": 1, "category": "chat", "turns": [arguments.prompt]}]
        else:
            rows = read_questions(arguments.prompts)
        for row in rows:
            text = render_chat(arguments.target, [*system, *conversation(row["turns"], row.get("answers", []))])
            print(json.dumps({**row, "turns": [text], "rendered": True}))
    except Error as error:
        print(f"specmoe.chat_prompts: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
