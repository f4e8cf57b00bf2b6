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
    "decode": [SMALL, "bfloat16", 1, 1, SMALL, "chain(gamma=2)"],
    "verify_curve": [SMALL, "float32", 1, 1],
    "context_bench": [SMALL, "float32", "float32", 1, 1],
    "overhead_bench": [TARGET, SMALL, 4, 1],
    "kernels_bench": [1, 1],
    "judge_bench": [50, 2, "token"],
}


def run(name: str, *arguments) -> subprocess.CompletedProcess[str]:
    command = [Path(PROGRAM).parent / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_benchmark_is_tried_here():
    sources = {path.stem for path in (ROOT / "experiments/benchmarks").glob("*.cpp")}
    assert set(SHORT) == {name for name in sources if not name.startswith("device_")}


@pytest.mark.parametrize("name", SHORT)
def test_runs(name):
    done = run(name, *SHORT[name])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 2


def test_curves_are_drawn_without_what_had_no_quiet_sample(tmp_path):
    output = tmp_path / "curve.jsonl"
    assert run("verify_curve", *SHORT["verify_curve"], output).returncode == 0
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [line["rows"] for line in lines] == [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32]
    measured = {"seconds": [2e-4, 1e-4, 3e-4], "ratio": [1.0, 1.0, 1.0], "read_seconds": 1e-4, "multiply_seconds": 1e-4}
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
    assert re.match(rf"usage: {name} .*\[", done.stdout)
    readme = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
    assert f"build/cpu/{name} " in readme


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("decode", ["no/such/folder"], "decode: model folder 'no/such/folder' does not exist\n"),
        ("decode", [SMALL, "bfloat16", "ten"], "decode: rounds is a whole number from 1 on, got 'ten'\n"),
        (
            "verify_curve",
            [SMALL, "bfloat16", "1", "-1"],
            "verify_curve: threads is a whole number from 0 on, got '-1'\n",
        ),
        ("judge_bench", ["1"], "judge_bench: vocabulary is a whole number from 2 on, got '1'\n"),
    ],
)
def test_refuses_by_name(name, arguments, message):
    done = run(name, *arguments)
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.parametrize(("name", "words"), [("decode", []), ("overhead_bench", [SMALL])])
def test_wants_its_folders(name, words):
    done = run(name, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {name} FOLDER")
