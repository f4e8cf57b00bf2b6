"""Whole steps of the bundled pair on a device: time per step, who leads it, and what it costs beside its target pass.

    python experiments/benchmarks/device_steps.py [--device cuda] [--passes device_steps.jsonl] [--output FILE]

A step by n-grams has one pass, the target's, so its time less that pass's is what drafting, judging and compacting cost. The
pass's time comes from device_bench (--passes): its shape "bundled" with as many rows behind 1,024 positions. Texts at temperature
0 are compared with plain decoding's before anything is printed.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import peers

import specmoe

MODELS = Path(__file__).parents[1] / "models"
ROWS = 8
METHODS = {
    "plain": {},
    "ngram": {"drafter": "ngram", "tree": f"chain(gamma={ROWS - 1})"},
    "independent": {"drafter": f"independent(path={MODELS / 'drafter'})", "tree": "chain(gamma=4)"},
}


def pass_times(file: Path | None) -> dict[int, float]:
    """Microseconds of a pass of the bundled model's shape, by rows."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []
    return {line["rows"]: line["step_us"] for line in lines if line["shape"] == "bundled" and "step_us" in line}


def run(
    engine: specmoe.Engine, prompts: list[str], temperature: float, args: argparse.Namespace
) -> list[specmoe.Result]:
    options = {"max_new_tokens": args.new_tokens, "temperature": temperature, "stop": [], "ignore_eos": True}
    return [result for prompt in prompts for result in engine.generate([prompt], **options)]


def step_us(results: list[specmoe.Result]) -> tuple[float, int]:
    """The mean of all stages together over the steps of most rows, and these rows. A mean, because of steps in a loop
    the first waits for all of them."""
    steps = np.concatenate([result.steps for result in results])
    rows = steps["pass_rows"].max()
    full = steps[steps["pass_rows"] == rows]
    total = sum(full[name].mean() for name in ("draft_ns", "verify_ns", "judge_ns", "rest_ns"))
    return float(total) * 1e-3, int(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--passes", type=Path, help="what device_bench wrote")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    target = specmoe.load(MODELS / "target", "bfloat16", args.device)
    lines = (MODELS / "prompts/quickstart.jsonl").read_text().splitlines()[: args.prompts]
    prompts = [json.loads(line)["turns"][0] for line in lines]
    passes = pass_times(args.passes)
    plain_texts, wrong = None, 0
    print(
        f"{'method':12} {'temp':>4} {'loop':>5} {'led by':24} {'rows':>4} {'us/step':>9} {'tokens/s':>9} {'over pass, us':>14}"
    )
    for temperature in (0.0, 1.0):
        for name, method in METHODS.items():
            for loop in (False, True):
                engine = specmoe.Engine(target, **method, device_loop=loop)
                run(engine, prompts[:1], temperature, args)  # records the graphs
                results = run(engine, prompts, temperature, args)
                texts = [list(result.token_ids) for result in results]
                if temperature == 0:
                    plain_texts = plain_texts or texts
                    wrong += texts != plain_texts
                us, rows = step_us(results)
                seconds = sum(ns for r in results for key, ns in r.stage_times.items() if key != "prefill_ns") * 1e-9
                rate = sum(len(text) for text in texts) / seconds
                over = us - passes[rows] if name == "ngram" and rows == ROWS and rows in passes else None
                shown = "" if over is None else f"{over:14.1f}"
                leader = engine.step_leader
                print(
                    f"{name:12} {temperature:4.0f} {loop!s:>5} {leader[:24]:24} {rows:4} {us:9.1f} {rate:9.0f} {shown}"
                )
                line = {"benchmark": "device_whole_steps", "method": name, "temperature": temperature, "loop": loop}
                line |= {"step_leader": leader, "rows": rows, "step_us": us, "tokens_per_s": rate, "over_pass_us": over}
                line |= {"same_text_as_plain": texts == plain_texts if temperature == 0 else None}
                if args.output:
                    with args.output.open("a") as file:
                        file.write(json.dumps(line | {"provenance": peers.provenance(args.device)}) + "\n")
    if wrong:
        print(f"{wrong} methods did not reproduce plain decoding's text", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
