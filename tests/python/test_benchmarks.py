"""The programs of experiments/benchmarks, which measure and are not part of the library: that they run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROGRAM, ROOT, SMALL, TARGET

# What each takes for a short run.
SHORT = {
    "decode": [SMALL, "--rounds", 1, "--drafter", f"independent(path={SMALL})", "--tree", "chain(gamma=2)"],
    "verify_curve": [SMALL, "--dtype", "float32", "--rounds", 1],
    "context_bench": [SMALL, "--dtype", "float32", "--rounds", 1],
    "overhead_bench": [TARGET, SMALL, "--steps", 4],
    "kernels_bench": [1, 1],
    "judge_bench": ["--vocab", 50, "--repeat", 2, "--accept", "token"],
}


def run(name: str, *arguments) -> subprocess.CompletedProcess[str]:
    command = [Path(PROGRAM).parent / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_benchmark_is_tried_here():
    sources = {path.stem for path in (ROOT / "experiments/benchmarks").glob("*.cpp")}
    assert set(SHORT) == {name for name in sources if not name.startswith("device_")}


@pytest.mark.parametrize("name", SHORT)
def test_prints_a_table_and_writes_lines(name, tmp_path):
    output = tmp_path / "lines.jsonl"
    done = run(name, *SHORT[name], "--output", output)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 2
    lines = read_lines(output)
    assert lines
    assert all(line["benchmark"] == name.removesuffix("_bench") and line["commit"] and line["cpu"] for line in lines)


def test_predicts_distinct_experts_and_the_cost_of_a_pass(tmp_path):
    output = tmp_path / "curve.jsonl"
    assert run("verify_curve", TARGET, "--rounds", 1, "--output", output).returncode == 0
    lines = read_lines(output)
    assert (lines[0]["experts"], lines[0]["predicted_experts"]) == pytest.approx((2, 2))
    assert -1 <= lines[0]["routing_correlation"] <= 1
    off = [line["predicted_experts"] / line["experts"] - 1 for line in lines]
    assert max(map(abs, off)) < 0.15  # one number for all T is no closer on this text: see experiments/README.md


def test_curves_are_drawn_without_what_had_no_quiet_sample(tmp_path):
    output = tmp_path / "curve.jsonl"
    assert run("verify_curve", *SHORT["verify_curve"], "--output", output).returncode == 0
    lines = read_lines(output)
    assert [line["rows"] for line in lines] == [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32]
    measured = {"seconds": [2e-4, 1e-4, 3e-4], "ratio": [1.0, 1.0, 1.0], "predicted_ratio": 1.0}
    measured |= {"read_seconds": 1e-4, "multiply_seconds": 1e-4}
    for line in lines:
        line.update(measured)
    lines[3].update(seconds=[None] * 3, ratio=[None] * 3)
    output.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = [sys.executable, ROOT / "experiments/benchmarks/plot_curves.py", output]
    drawn = subprocess.run(command, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert "no quiet sample of 4 rows, left out" in drawn.stdout
    assert (tmp_path / "curve_cost.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", SHORT)
def test_says_what_it_takes(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert re.match(rf"Usage: {name} .*\[", done.stdout)
    readme = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
    assert f"build/cpu/{name} " in readme


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("decode", ["no/such/folder"], 1, "model folder 'no/such/folder' does not exist"),
        ("decode", [SMALL, "--rounds", "ten"], 2, "the argument ('ten') for option '--rounds' is invalid"),
        ("decode", [SMALL, "--tree", "chain"], 1, "--drafter and --tree come together, such as --drafter ngram"),
        ("verify_curve", [SMALL, "--threads", "-1"], 2, "--threads is a whole number from 0 on, got -1"),
        ("verify_curve", [SMALL, "--output", "no/such/folder/x"], 1, "cannot write 'no/such/folder/x'"),
        ("judge_bench", ["--vocab", "1"], 2, "--vocab is a whole number from 2 on, got 1"),
        ("decode", [], 2, "FOLDER is missing: checkpoint with a tokenizer; see decode --help"),
        ("overhead_bench", [SMALL], 2, "DRAFTER is missing: checkpoint of the drafter"),
    ],
)
def test_refuses_by_name(name, arguments, code, message):
    done = run(name, *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(f"{name}: {message}")
    assert done.stderr.count("\n") == 1
