"""The programs of experiments/benchmarks, which measure and are not part of the library: that they run."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROGRAM, ROOT, SMALL, TARGET, read_jsonl

# What each takes for a short run.
SHORT = {
    "decode": [SMALL, "--rounds", 1, "--drafter", f"independent(path={SMALL})", "--tree", "chain(gamma=2)"],
    "verify_curve": [SMALL, "--dtype", "float32", "--rounds", 1],
    "context_bench": [SMALL, "--dtype", "float32", "--rounds", 1],
    "overhead_bench": [TARGET, SMALL, "--steps", 4],
    "kernels_bench": ["--threads", 1, "--megabytes", 1, "--rounds", 1],
    "bandwidth": ["--most-megabytes", 1, "--rounds", 1],
    "judge_bench": ["--vocab", 50, "--repeat", 2, "--accept", "token"],
}


def run(name: str, *arguments) -> subprocess.CompletedProcess[str]:
    command = [Path(PROGRAM).parent / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_benchmark_is_tried_here():
    sources = {path.stem for path in (ROOT / "experiments/benchmarks").glob("*.cpp")}
    assert set(SHORT) == {name for name in sources if not name.startswith("device_")}


@pytest.mark.parametrize("name", SHORT)
def test_prints_a_table_and_writes_lines(name, tmp_path):
    output = tmp_path / "lines.jsonl"
    done = run(name, *SHORT[name], "--output", output)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 2
    lines = read_jsonl(output)
    assert lines
    assert all(line["benchmark"] == name and line["commit"] and line["cpu"] for line in lines)


def test_predicts_distinct_experts_and_the_cost_of_a_pass(tmp_path):
    output = tmp_path / "curve.jsonl"
    assert run("verify_curve", TARGET, "--rounds", 1, "--output", output).returncode == 0
    lines = read_jsonl(output)
    assert (lines[0]["experts"], lines[0]["predicted_experts"]) == pytest.approx((2, 2))
    assert -1 <= lines[0]["routing_correlation"] <= 1
    off = [line["predicted_experts"] / line["experts"] - 1 for line in lines]
    # One number for all T is no closer on this text: see experiments/benchmarks/README.md.
    assert max(map(abs, off)) < 0.15


def test_curves_are_drawn_without_what_had_no_quiet_sample(tmp_path):
    output = tmp_path / "curve.jsonl"
    assert run("verify_curve", *SHORT["verify_curve"], "--output", output).returncode == 0
    lines = read_jsonl(output)
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


KERNELS = (
    "packed_linear linear_argmax moe_up moe_down tree_attention moe_router "
    "rms_norm layer_norm rope row_argmax sampling_probs"
).split()


def test_a_line_for_every_kernel(tmp_path):
    output = tmp_path / "kernels.jsonl"
    done = run("kernels_bench", *SHORT["kernels_bench"], "--output", output)
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(output)
    assert list(dict.fromkeys(line["op"] for line in lines)) == KERNELS
    assert len(lines) == len(done.stdout.splitlines()) - 2  # two lines of heading
    assert len({json.dumps([line["op"], line["shape"], line["rows"]]) for line in lines}) == len(lines)
    for line in lines:
        assert (line["benchmark"], line["threads"], line["measured"]) == ("kernels_bench", 1, 1)
        assert {"instruction_set", "cpu", "commit", "started", "read_seconds", "multiply_seconds"} <= set(line)
        assert line["bytes"] > 0
        assert len(line["seconds"]) == 3
        assert line["quiet"] in (0, 1)
        counted = line["op"] not in ("moe_router", "row_argmax", "sampling_probs")
        assert (line["operations"] > 0) == counted
    products = [line for line in lines if line["op"] == "packed_linear"]
    assert {(line["shape"]["dtype"], line["shape"]["K"], line["rows"]) for line in products} == set(
        itertools.product(("float32", "bfloat16", "int8"), (512, 2048), (1, 2, 4, 8, 16))
    )
    for line in products:
        assert line["operations"] == 2 * line["rows"] * line["shape"]["K"] * line["shape"]["N"]


def test_kernels_are_chosen_by_how_their_names_start(tmp_path):
    output = tmp_path / "kernels.jsonl"
    assert run("kernels_bench", "--rounds", 1, "--op", "r", "--output", output).returncode == 0
    assert {line["op"] for line in read_jsonl(output)} == {"rms_norm", "rope", "row_argmax"}
    done = run("kernels_bench", "--op", "nonsense")
    assert done.returncode == 1
    assert done.stderr == f"kernels_bench: no op starts with 'nonsense'; there are {', '.join(KERNELS)}\n"


def test_a_policy_with_parameters_is_judged(tmp_path):
    output, policy = tmp_path / "judge.jsonl", "multi_step(siblings=independent)"
    assert run("judge_bench", "--vocab", 50, "--repeat", 2, "--accept", policy, "--output", output).returncode == 0
    judged = [line for line in read_jsonl(output) if line["stage"] == "judge"]
    assert {line["law"] for line in judged} == {"iid", "deterministic"}
    assert {line["acceptance"] for line in judged} == {policy}


def test_bandwidth_of_every_size_by_one_thread_and_by_all(tmp_path):
    output = tmp_path / "bandwidth.jsonl"
    done = run("bandwidth", "--threads", 2, "--most-megabytes", 4, "--rounds", 1, "--output", output)
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(output)
    reads = [(line["what"], line["threads"]) for line in lines if line["unit"] == "GB/s"]
    assert reads == list(itertools.product(("read 256 KB", "read 1 MB", "read 4 MB"), (1, 2)))
    assert [(line["what"], line["threads"]) for line in lines if line["unit"] == "us"] == [
        ("barrier", 2),
        ("run of the team", 2),
    ]
    for line in lines:
        assert {"benchmark", "seconds", "quiet", "measured", "cpu", "commit", "started"} <= set(line)
        assert line["unit"] in ("GB/s", "GFLOP/s", "us")


@pytest.mark.parametrize("name", SHORT)
def test_says_what_it_takes(name):
    done = run(name, "--help")
    assert done.returncode == 0
    assert re.match(rf"Usage: {name} .*\[", done.stdout)
    readme = (ROOT / "experiments/benchmarks/README.md").read_text(encoding="utf-8")
    assert re.search(rf"`build/cpu/{name}[ `]", readme)


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
