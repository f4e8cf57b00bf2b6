"""The grid: `specmoe bench --cells`, specmoe.sweep and specmoe.load_results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import specmoe

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("SPECMOE_PROGRAM", ROOT / "build/cpu/specmoe"))
SMALL = str(ROOT / "experiments/models/drafter")  # the smaller of the bundled models serves as target here

QUESTIONS = [
    {"question_id": i, "category": category, "turns": [f"Problem: Theo has {i} {what}.\nSolution:"]}
    for i, (category, what) in enumerate([("sharing", "pens"), ("rates", "eggs"), ("sharing", "books")], 2)
]


@pytest.fixture
def grid(tmp_path) -> dict:
    """Two dtypes, three prompt classes, two batch sizes, two temperatures, two trees: 48 cells."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return {
        "target": SMALL, "drafter": "ngram", "tree": ["chain(gamma=2)", "expansion(2,1)"], "accept": "naive",
        "temperature": [0, 0.7], "batch": [1, 2], "dtype": ["float32", "bfloat16"], "category": ["each", "all"],
        "prompts": str(prompts), "max-new-tokens": 8, "threads": 1, "quiet": True,
    }  # fmt: skip


def test_every_combination_is_a_cell(grid):
    frame = specmoe.sweep(grid)
    axes = ["dtype", "category", "batch", "temperature", "drafter", "tree", "acceptance"]
    assert len(frame) == 48 and frame["cell"].nunique() == 48 and len(frame[axes].drop_duplicates()) == 48
    assert list(frame["category"].unique()) == ["sharing", "rates", "all"]
    assert set(frame["prompts"][frame["category"] == "sharing"]) == {2}
    greedy = frame[frame["temperature"] == 0]
    assert greedy["identical"].all() and frame["identical"][frame["temperature"] > 0].isna().all()
    assert (frame["speedup_low"] <= frame["speedup"]).all() and (frame["speedup"] <= frame["speedup_high"]).all()
    assert (frame["counts.emitted"] / frame["counts.steps"]).to_list() == pytest.approx(frame["tau"].to_list())


def test_a_cell_with_penalties_is_another_cell(grid, tmp_path):
    cells = tmp_path / "cells.jsonl"
    one = {**grid, "category": "all", "dtype": "float32", "temperature": 0, "batch": 1, "tree": "chain(gamma=2)"}
    without = specmoe.sweep(one, cells=cells)
    names = {without["cell"][0]}
    for penalty in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert without[penalty][0] == (1 if penalty == "repetition_penalty" else 0)
        frame = specmoe.sweep({**one, penalty.replace("_", "-"): 1.5}, cells=cells)
        assert frame[penalty][0] == 1.5 and frame["identical"].all()
        names.add(frame["cell"][0])
    assert len(names) == len(cells.read_text().splitlines()) == 4
    assert specmoe.sweep({**one, "repetition-penalty": 1}, cells=cells)["cell"][0] == without["cell"][0]
    assert len(cells.read_text().splitlines()) == 4


def test_prompts_are_independent_samples(grid, tmp_path):
    """Every prompt has its own randomness, so that intervals over prompts mean something."""
    prompts = tmp_path / "same.jsonl"
    prompts.write_text("".join(json.dumps({"question_id": i, "turns": [f"{i}"]}) + "\n" for i in range(8)))
    change = {"drafter": "synthetic(alpha=0.5)", "tree": "chain(gamma=1)", "prompts": str(prompts), "category": "all"}
    frame = specmoe.sweep({**grid, **change, "ignore-eos": True, "max-new-tokens": 40}, temperature=0, batch=1)
    assert len(set(frame["per_prompt.accepted"][0])) > 1


def test_rates_by_prompt_add_up(grid):
    frame = specmoe.sweep(grid, category="all", dtype="float32", temperature=0)
    for _, row in frame.iterrows():
        assert sum(row["per_prompt.emitted"]) * row["runs"] == row["counts.emitted"]
        assert row["per_prompt.question_id"] == [2, 3, 4]


def bench(grid: dict, cells: Path, folder: Path, *more: str) -> list:
    config = folder / "grid.json"
    config.write_text(json.dumps(grid))
    return [PROGRAM, "bench", "--config", config, "--cells", cells, *more]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_in_three_places_the_grid_ends_with_the_same_cells(grid, tmp_path):
    # Larger cells, so that a kill falls inside one.
    grid = {**grid, "max-new-tokens": 48, "ignore-eos": True, "repeat": 2, "dtype": "float32"}
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run(bench(grid, whole, tmp_path), check=True, capture_output=True, timeout=300)
    expected = {row["cell"] for row in map(json.loads, whole.read_text().splitlines())}
    assert len(expected) == lines_of(whole) == 24

    stops = []
    for wanted in (1, 9, 17):  # before the second block is whole, in the middle, near the end
        with subprocess.Popen(
            bench(grid, killed, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            deadline = time.monotonic() + 120
            while lines_of(killed) < wanted and run.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        stops.append(lines_of(killed))
    assert 1 <= stops[0] <= stops[1] <= stops[2] < 24, stops
    text = killed.read_bytes()
    killed.write_bytes(text[:-40])  # as a kill in the middle of a write would leave it

    done = subprocess.run(
        bench({**grid, "quiet": False}, killed, tmp_path), check=True, capture_output=True, text=True, timeout=300
    )
    assert "dropped a half-written last line" in done.stderr
    assert f"{stops[2] - 1} of 24 cells are in" in done.stderr
    rows = [json.loads(line) for line in killed.read_text().splitlines()]
    assert len(rows) == 24 and {row["cell"] for row in rows} == expected
    assert killed.read_bytes().startswith(text[: text[:-40].rindex(b"\n") + 1])  # nothing before the kill changed

    again = subprocess.run(bench(grid, killed, tmp_path), check=True, capture_output=True, text=True, timeout=60)
    assert lines_of(killed) == 24 and again.stdout.count("chain(gamma=2)") == 12


def test_a_failed_cell_is_kept_and_the_rest_go_on(grid, tmp_path):
    cells = tmp_path / "cells.jsonl"
    grid = {**grid, "accept": ["token", "naive"], "dtype": "float32", "batch": 1, "category": "all"}
    first = specmoe.sweep(grid, cells=cells)
    failed = first[first["kind"] == "failed"]
    assert (
        len(first) == 8 and failed["tree"].str.startswith("expansion").all() and set(failed["acceptance"]) == {"token"}
    )
    assert failed["error"].str.contains("chains only").all()
    frame = specmoe.load_results(cells)
    assert set(frame["cell"]) == set(first["cell"]) and set(frame["line"]) == set(range(1, 9))
    assert specmoe.sweep(grid, cells=cells)["cell"].to_list() == first["cell"].to_list()
    assert lines_of(cells) == 8


def test_a_policy_written_in_python_takes_part_and_may_fail(grid):
    @specmoe.register("sweep_test_policy")
    class Policy(specmoe.AcceptancePolicy):
        """Keeps nothing; breaks on request."""

        def __init__(self, breaks: bool = False):
            super().__init__()
            self.breaks = breaks

        def lossless_laws(self):
            return ["deterministic"]

        def judges_trees(self):
            return True

        def judge(self, draft, target, uniforms):
            if self.breaks:
                raise RuntimeError("broken on request")
            return [], uniforms.uniform(0, "next").choose(target.row(0))

    grid = {**grid, "dtype": "float32", "batch": 1, "category": "all", "tree": "chain(gamma=2)", "temperature": 0.1}
    grid["drafter"] = "synthetic(alpha=0.9)"  # above temperature 0, where policies are asked
    frame = specmoe.sweep(grid, accept=["sweep_test_policy(breaks=true)", "sweep_test_policy", "naive"])
    assert "broken on request" in frame["error"][0]
    assert frame["tau"][1] == 1 and frame["tau"][2] > 1


def test_a_drafter_written_in_python_is_attached_to_the_target_of_its_dtype(grid):
    attached = []

    @specmoe.register("sweep_test_drafter")
    class Drafter(specmoe.Drafter):
        """Asks the target itself, so that every token is accepted."""

        def attach(self, target):
            attached.append((target.info.dtype, target.path, target.tokenizer.vocab_size))
            self.target = target

        def propose(self, request):
            texts = [[*request.text, *request.tree.path_tokens(node)] for node in request.frontier]
            best = [int(self.target.logits(text)[-1].argmax()) for text in texts]
            return np.eye(request.vocab_size, dtype=np.float32)[best]

    change = {
        "drafter": "sweep_test_drafter",
        "tree": "chain(gamma=3)",
        "temperature": 0,
        "batch": 1,
        "category": "all",
    }
    frame = specmoe.sweep({**grid, **change, "ignore-eos": True})
    assert attached == [(dtype, SMALL, 2048) for dtype in ("float32", "bfloat16")]
    assert frame["identical"].all() and (frame["acceptance_rate"] == 1).all()
    engine = specmoe.Engine(specmoe.load(SMALL, threads=1), drafter="sweep_test_drafter")  # none is left over
    assert len(attached) == 3 and engine.generate("Problem:", max_new_tokens=4).metrics["acceptance_rate"] == 1


def test_a_drafter_may_have_a_dtype_of_its_own(grid):
    model = f"independent(path={SMALL}"
    change = {"drafter": [f"{model})", f"{model},dtype=int8)"], "tree": "chain(gamma=4)", "batch": 1, "category": "all"}
    change |= {"dtype": "float32", "temperature": [0, 1], "accept": "token", "max-new-tokens": 300, "ignore-eos": True}
    frame = specmoe.sweep({**grid, **change})
    assert frame["drafter"].to_list() == [f"{model},dtype={own},vocabulary=same)" for own in ("target", "int8")] * 2
    assert frame["identical"][:2].all() and (frame["dtype"] == "float32").all()
    own, int8 = frame["acceptance_rate"][2:]
    assert own == 1 and 0.9 < int8 < 1  # the target drafts for itself, and its rounded weights nearly do
    with pytest.raises(specmoe.Error, match="float32"):
        specmoe.sweep({**grid, **change, "drafter": f"{model},dtype=int3)"})


@pytest.mark.parametrize("role", ["target", "drafter", "one of two drafters"])
def test_a_model_that_was_trained_further_is_measured_anew(role, grid, tmp_path):
    model, cells = tmp_path / "model", tmp_path / "cells.jsonl"
    shutil.copytree(SMALL, model)
    grid |= {"dtype": "float32", "batch": 1, "category": "all", "temperature": 0, "tree": "chain(gamma=2)"}
    drafter = f"independent(path={model})"
    roles = {"target": {"target": model}, "drafter": {"drafter": drafter}}
    grid |= roles.get(role, {"drafter": f"merged({drafter}, self(experts=0))"})
    for expected in (1, 1):
        specmoe.sweep(grid, cells=cells)
        assert lines_of(cells) == expected
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    weights.write_bytes(content)
    specmoe.sweep(grid, cells=cells)
    assert lines_of(cells) == 2


BAD = {
    "unknown flag": ({"tre": "chain"}, "did you mean --tree?"),
    "unknown name": ({"tree": ["chain", "bush"]}, "known: "),
    "empty list": ({"tree": []}, "the list is empty"),
    "the same twice": ({"tree": ["chain", "chain(gamma=4)"]}, "are the same"),
    "number twice": ({"batch": [1, 2, 1]}, "twice"),
    "unknown class": ({"category": "poems"}, "known: sharing, rates, each, all"),
    "class twice": ({"category": ["each", "rates"]}, "twice"),
    "unknown dtype": ({"dtype": ["float32", "int3"]}, "int3"),
    "batch zero": ({"batch": [1, 0]}, "--batch"),
    "tree without drafter": ({"drafter": None}, "drafter must be"),
    "no value": ({"temperature": {"from": 0}}, "temperature must be"),
    "not JSON": ({"seed": {1}}, "flags are texts"),
    "one file for both": ({"cells": "same.jsonl", "output": "same.jsonl"}, "name the same file"),
    "nothing can run": ({"accept": "typical"}, "--allow-lossy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_grid(name, grid, tmp_path):
    change, wanted = BAD[name]
    cells = tmp_path / "cells.jsonl"
    with pytest.raises(specmoe.Error, match=wanted.replace("?", r"\?")) as caught:
        specmoe.sweep({**grid, "cells": cells, **change})
    assert "\n" not in str(caught.value)
    assert not cells.exists()


def test_two_names_of_one_file_are_one_file(grid, tmp_path):
    """An output takes the place of what was there: cells that took hours must not be that."""
    cells = tmp_path / "cells.jsonl"
    cells.write_text(text := good_line(grid, tmp_path) + "\n")
    (tmp_path / "link.jsonl").symlink_to(cells)
    for output in (f"{tmp_path}/../{tmp_path.name}/cells.jsonl", tmp_path / "link.jsonl"):
        with pytest.raises(specmoe.Error, match="name the same file"):
            specmoe.sweep(grid, cells=cells, output=output)
        assert cells.read_text() == text


def good_line(grid, tmp_path) -> str:
    cells = tmp_path / "good.jsonl"
    specmoe.sweep({**grid, "dtype": "float32", "batch": 1, "category": "all", "temperature": 0}, cells=cells)
    return cells.read_text().splitlines()[0]


def test_bad_files_are_refused_and_left_alone(grid, tmp_path):
    line = good_line(grid, tmp_path)
    cells = tmp_path / "cells.jsonl"
    other = json.dumps({**json.loads(line), "schema": 7})
    unknown = json.dumps({**json.loads(line), "schema": "new"})
    bad = {
        f"{line}\n{unknown}\n": 'line 2: written in version "?new',
        f"{line}\nnonsense\n{line}\n": "line 2: not a line",
        f"{line}\n{other}\n": "line 2: written in version 7",
        '{"a": 1}\n': "line 1: not a",
        "some notes": "line 1",
    }
    for text, wanted in bad.items():
        cells.write_text(text)
        with pytest.raises(specmoe.Error, match=wanted):
            specmoe.sweep(grid, cells=cells)
        assert cells.read_text() == text
        if text.endswith("\n"):
            with pytest.raises(specmoe.Error, match=wanted.split(":")[0]):
                specmoe.load_results(cells)
    with pytest.raises(specmoe.Error, match="cannot write"):
        specmoe.sweep(grid, cells=tmp_path / "no" / "cells.jsonl")
    with pytest.raises(specmoe.Error, match="give a file name"):
        specmoe.sweep(grid, cells=tmp_path)
    with pytest.raises(specmoe.Error, match="No such file"):
        specmoe.load_results(tmp_path / "absent.jsonl")
    with pytest.raises(specmoe.Error, match="Is a directory"):
        specmoe.load_results(tmp_path)
    with pytest.raises(specmoe.Error, match="one result file or more"):
        specmoe.load_results()
    cells.write_text(json.dumps({"kind": "answer", "schema": 1}) + "\n")
    with pytest.raises(specmoe.Error, match="no cell"):  # answers alone
        specmoe.load_results(cells)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(specmoe.Error, match="no cell"):
        specmoe.load_results(tmp_path / "empty.jsonl")


def test_load_results_drops_a_half_written_line_with_a_warning(grid, tmp_path):
    line = good_line(grid, tmp_path)
    cells = tmp_path / "cells.jsonl"
    cells.write_text(f"{line}\n{line[:60]}")
    with pytest.warns(UserWarning, match="half-written"):
        frame = specmoe.load_results(cells)
    assert len(frame) == 1 and frame["line"][0] == 1


def test_two_runs_cannot_write_one_file(grid, tmp_path):
    cells = tmp_path / "cells.jsonl"
    long = {**grid, "max-new-tokens": 400, "ignore-eos": True, "repeat": 500}
    with subprocess.Popen(bench(long, cells, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not cells.exists():
            assert run.poll() is None
            time.sleep(0.01)
        with pytest.raises(specmoe.Error, match="another run is writing"):
            specmoe.sweep(grid, cells=cells)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=30) == 130
    assert not cells.exists()  # it never held a cell


def test_an_interrupt_in_python_reaches_the_caller(grid, tmp_path):
    script = (
        "import json, sys, specmoe\n"
        "try:\n    specmoe.sweep(json.loads(sys.argv[1]))\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    long = {**grid, "max-new-tokens": 400, "ignore-eos": True, "repeat": 500, "quiet": False}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(str, python_path())))}
    with subprocess.Popen(
        [os.sys.executable, "-c", script, json.dumps(long)], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        # A shell starts its background jobs with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:  # fmt: skip
        while "loaded" not in run.stderr.readline():
            assert run.poll() is None
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        assert run.communicate(timeout=30)[0] == "interrupted\n"


def python_path() -> list[Path | str]:
    import _specmoe

    return [Path(specmoe.__file__).parents[1], Path(_specmoe.__file__).parent, os.environ.get("PYTHONPATH", "")]
