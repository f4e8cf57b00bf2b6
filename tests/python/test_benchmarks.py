"""The programs of experiments/benchmarks, which measure and are not part of the library: that they run."""

import re
import subprocess
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
