"""Whole steps of the bundled pair on a device: time per step, who leads it, and what it costs beside its target pass.

    python experiments/benchmarks/device_steps.py [--device cuda] [--passes device_steps.jsonl] [--output FILE]

A step by n-grams has one pass, the target's, so its time less that pass's is what drafting, judging and compacting cost.
The pass's time comes from device_bench (--passes): its shapes "bundled" and "bundled_short" with as many rows, behind 1,024
and 128 positions, and in between for the texts' mean length. Texts at temperature 0 are compared with plain decoding's.
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
# How whole steps are recorded.
VARIANTS = {"": {}, "loop": {"device_loop": True}, "switch": {"device_switch": True}}


def pass_us(file: Path | None, rows: np.ndarray, lengths: np.ndarray) -> float | None:
    """The mean of passes of the bundled model's shape with so many rows behind so many positions, between those that
    were measured; None when there are none."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []
    points: dict[int, list[tuple[int, float]]] = {}
    for line in lines:
        if line["shape"] in ("bundled", "bundled_short") and "step_us" in line:
            points.setdefault(line["committed"], []).append((line["rows"], line["step_us"]))
    if len(points) < 2:
        return None
    (short, short_us), (long, long_us) = (
        (committed, np.interp(rows, *zip(*sorted(points[committed]), strict=True))) for committed in sorted(points)
    )
    share = np.clip((lengths - short) / (long - short), 0, 1)
    return float((short_us + share * (long_us - short_us)).mean())


def run(
    engine: specmoe.Engine, prompts: list[str], temperature: float, args: argparse.Namespace
) -> list[specmoe.Result]:
    options = {"max_new_tokens": args.new_tokens, "temperature": temperature, "stop": [], "ignore_eos": True}
    return [result for prompt in prompts for result in engine.generate([prompt], **options)]


def timed_steps(results: list[specmoe.Result], loop: bool) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean of all stages together, in microseconds, over the steps of most rows, with the rows of each and the length
    of the text before it. Of steps in a loop the first waits for all of them: there it is the mean over all steps."""
    steps = np.concatenate([result.steps for result in results])
    lengths = np.concatenate([len(r.prompt_ids) + np.cumsum(r.steps["emitted"]) - r.steps["emitted"] for r in results])
    rows = steps["pass_rows"]
    counted = np.ones(len(steps), bool) if loop else rows == rows.max()
    total = sum(steps[name][counted].mean() for name in ("draft_ns", "verify_ns", "judge_ns", "rest_ns"))
    return float(total) * 1e-3, rows[counted], lengths[counted]


def measure(
    engine: specmoe.Engine, name: str, variant: str, temperature: float, prompts: list[str], args: argparse.Namespace
) -> tuple[dict, list[list[int]]]:
    """One line of results, and the texts."""
    run(engine, prompts, temperature, args)  # records the graphs of all lengths
    results = run(engine, prompts, temperature, args)
    texts = [list(result.token_ids) for result in results]
    us, rows, lengths = timed_steps(results, variant == "loop")
    seconds = sum(ns for r in results for key, ns in r.stage_times.items() if key != "prefill_ns") * 1e-9
    passed = pass_us(args.passes, rows, lengths) if name == "ngram" else None
    line = {
        "benchmark": "device_whole_steps",
        "method": name,
        "temperature": temperature,
        "variant": variant,
        "step_leader": engine.step_leader,
        "rows": int(rows.max()),
        "step_us": us,
        "tokens_per_s": sum(len(text) for text in texts) / seconds,
        "over_pass_us": None if passed is None else us - passed,
    }
    over = "" if passed is None else f"{us - passed:14.1f}"
    print(
        f"{name:12} {temperature:4.0f} {variant:>6} {engine.step_leader[:24]:24} {line['rows']:4} {us:9.1f} "
        f"{line['tokens_per_s']:9.0f} {over}"
    )
    return line, texts


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
    plain_texts, wrong = None, 0
    heads = f"{'method':12} {'temp':>4} {'graph':>6} {'led by':24} {'rows':>4} {'us/step':>9} {'tokens/s':>9}"
    print(f"{heads} {'over pass, us':>14}")
    for temperature in (0.0, 1.0):
        for name, method in METHODS.items():
            for variant, options in VARIANTS.items():
                engine = specmoe.Engine(target, **method, **options)
                line, texts = measure(engine, name, variant, temperature, prompts, args)
                if temperature == 0:
                    plain_texts = plain_texts or texts
                    wrong += texts != plain_texts
                line["same_text_as_plain"] = texts == plain_texts if temperature == 0 else None
                if args.output:
                    with args.output.open("a") as file:
                        file.write(json.dumps(line | {"provenance": peers.provenance(args.device)}) + "\n")
    if wrong:
        print(f"{wrong} methods did not reproduce plain decoding's text", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
