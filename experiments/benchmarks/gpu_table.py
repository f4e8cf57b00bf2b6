"""What gpu.sh measured beside what was aimed at on an H200: python experiments/benchmarks/gpu_table.py RESULTS

A figure that is not there is left blank.
"""

import json
import statistics
import sys
from pathlib import Path


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def rows_of_steps(folder: Path) -> list[tuple[str, float | None, str, str]]:
    steps = lines(folder / "device_steps.jsonl")

    def value(shape: str, rows: int, figure: str) -> float | None:
        return next((s[figure] for s in steps if s["shape"] == shape and s["rows"] == rows and figure in s), None)

    rows = []
    for shape, least in (("mixtral_4_layers", 0.75), ("qwen3_30b_a3b", 0.65)):
        rows.append((f"plain step of {shape}, of the copy's bytes/s", value(shape, 1, "fraction_of_copy"), ">=", least))
        verify = value(shape, 8, "fraction_of_copy")
        rows.append((f"8 rows of {shape}, over the bytes' time", verify and 1 / verify, "<=", 1.15))
    rows.append(("plain step of the bundled model, us", value("bundled", 1, "step_us"), "<=", 60))
    for shape in ("bundled", "llama_8b_4_layers", "mixtral_4_layers", "qwen3_30b_a3b"):
        chunks = {s["cublaslt"]: s["chunk_us"] for s in steps if s["shape"] == shape and "cublaslt" in s}
        rows.append(
            (
                f"256 rows of {shape}: kernels over cuBLASLt",
                chunks[False] / chunks[True] if len(chunks) == 2 else None,
                ">",
                1,
            )
        )
    return rows


def rows_of_whole_steps(folder: Path) -> list[tuple]:
    whole = {(s["method"], s["temperature"], s["variant"]): s for s in lines(folder / "whole_steps.jsonl")}
    rows = []
    for temperature, most in ((0.0, 25), (1.0, 40)):
        for variant in ("", "loop", "switch"):
            over = whole.get(("ngram", temperature, variant), {}).get("over_pass_us")
            label = f"draft + judge + compact, us, temperature {temperature:.0f}{variant and ', ' + variant}"
            rows.append((label, over, "<=", most))
    return rows


def rows_of_pair(folder: Path) -> list[tuple]:
    rows = []
    for file, label in (("pair.jsonl", ""), ("pair--device-loop.jsonl", ", loop")):
        cells = [line for line in lines(folder / file) if line.get("kind") == "summary"]
        for temperature in (0.0, 1.0):
            own = [cell for cell in cells if cell["temperature"] == temperature]
            best = max((cell["speedup"]["median"] for cell in own), default=None)
            rows.append((f"best speculative over plain, temperature {temperature:.0f}{label}", best, ">=", 2))
        greedy = [cell["identical"] for cell in cells if cell["temperature"] == 0]
        rows.append((f"greedy cells with plain text{label}", sum(greedy) / len(greedy) if greedy else None, ">=", 1))
    return rows


def rows_of_peers(folder: Path) -> list[tuple]:
    peers = {(line["model"], line["system"]): line["seconds"] for line in lines(folder / "peers.jsonl")}
    rows = []
    for model in ("mixtral", "qwen3"):
        own = peers.get((model, "specmoe bfloat16"), {}).get("token")
        for system in ("transformers bfloat16", "transformers static"):
            other = peers.get((model, system), {}).get("token")
            ratio = statistics.median(other) / statistics.median(own) if own and other else None
            rows.append((f"token of {model}: {system} over specmoe", ratio, ">=", 5))
    return rows


def main() -> None:
    folder = Path(sys.argv[1])
    print(f"{'figure':62} {'measured':>9} {'aimed at':>10}")
    for rows in (rows_of_steps, rows_of_whole_steps, rows_of_pair, rows_of_peers):
        for figure, measured, sign, aim in rows(folder):
            if measured is None:
                print(f"{figure:62} {'':9} {f'{sign} {aim:g}':>10}")
                continue
            reached = measured <= aim if "<" in sign else measured >= aim
            print(f"{figure:62} {measured:9.2f} {f'{sign} {aim:g}':>10} {'yes' if reached else 'no'}")


if __name__ == "__main__":
    main()
