"""Renders questions with a checkpoint's chat template, for `specmoe generate` and `specmoe bench`; first turns only.

python -m specmoe.chat_prompts --target MODEL --prompts questions.jsonl > rendered.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys

from specmoe import Error, render_chat


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
    if arguments.prompt is not None:
        rows = [{"question_id": 1, "category": "chat", "turns": [arguments.prompt]}]
    else:
        with open(arguments.prompts, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    try:
        for row in rows:
            question = {"role": "user", "content": row["turns"][0]}
            text = render_chat(arguments.target, [*system, question])
            print(json.dumps({**row, "turns": [text], "rendered": True}, ensure_ascii=False))
    except Error as error:
        print(f"specmoe.chat_prompts: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
