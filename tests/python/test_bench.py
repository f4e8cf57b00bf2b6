"""`specmoe bench`, driven as a user drives it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from program import (
    BENCH,
    DRAFTER,
    PROMPT,
    QUESTIONS,
    ROOT,
    SMALL,
    TARGET,
    expect_one_line,
    ok,
    read_jsonl,
    specmoe,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> tuple[str, list[dict], list[dict]]:
    folder = tmp_path_factory.mktemp("bench")
    questions, out = folder / "questions.jsonl", folder / "bench.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    done = ok(
        "bench", "--target", TARGET, "--drafter", DRAFTER, "--tree", "chain(gamma=3)", "--prompts", questions,
        "--max-new-tokens", "24", "--output", out, "--show-text", "--mark", "brackets", "--seed", "3",
    )  # fmt: skip
    rows = read_jsonl(out)
    assert sorted(path.name for path in folder.iterdir()) == ["bench.jsonl", "questions.jsonl"]
    return done.stdout, rows[:-1], rows[-1:]


def test_bench_prints_texts_then_agreement_then_speeds(bench):
    text = bench[0]
    assert text.index("⟦") < text.index("outputs identical: yes") < text.index("speed-up, median")
    for line in ("tau", "acceptance at position", "unique experts", "time: draft / verify / judge / rest"):
        assert line in text


def test_bench_rows_take_turns_and_agree(bench):
    rows = bench[1]
    methods = [row["method"] for row in rows if row["question_id"] == 81]
    assert methods == ["plain", "speculative", "speculative", "plain"]
    for question in (81, "x-2", 3):
        assert len({tuple(row["token_ids"]) for row in rows if row["question_id"] == question}) == 1


def test_bench_rows_keep_the_accounts(bench):
    for row in bench[1]:
        choice = row["choices"][0]
        steps = len(choice["accept_lengths"])
        assert choice["decoding_steps"] == [steps] and choice["new_tokens"] == [len(row["token_ids"])]
        assert sum(choice["accept_lengths"]) == len(row["token_ids"]) == len(row["from_draft"])
        assert row["num_draft_tokens"] == (
            row["num_accepted_draft_tokens"] + row["num_rejected_draft_tokens"] + row["num_unjudged_draft_tokens"]
        )
        assert sum(row["accepted_by_position"]) == row["num_accepted_draft_tokens"] == sum(row["from_draft"])
        assert len(row["per_step_unique_experts"]) == steps
        assert all(1 <= experts <= 8 for step in row["per_step_unique_experts"] for experts in step)
        stages = row["stage_ms"]
        assert stages["total"] == pytest.approx(sum(stages[s] for s in ("draft", "verify", "judge", "rest")))
        if row["method"] == "plain":
            assert set(choice["accept_lengths"]) == {1} and row["num_draft_tokens"] == 0
            assert set(map(tuple, row["per_step_unique_experts"])) == {(2,) * 6}


def test_bench_summary_follows_from_its_rows(bench):
    (summary,) = bench[2]
    rows = [row for row in bench[1] if row["method"] == "speculative"]
    tokens = sum(len(row["token_ids"]) for row in rows)
    steps = sum(row["num_spec_steps"] for row in rows)
    seconds = sum(row["stage_ms"]["total"] for row in rows) / 1000
    assert summary["tau"] == pytest.approx(tokens / steps)
    assert summary["speculative_tokens_per_s"] == pytest.approx(tokens / seconds)
    speedup = summary["speedup"]
    assert speedup["low"] <= speedup["median"] <= speedup["high"]
    assert len(summary["speedup_per_group"]) == 3
    plain = [row for row in bench[1] if row["method"] == "plain"]
    passes = [
        sum(r["stage_ms"]["verify"] for r in some) / sum(r["num_spec_steps"] for r in some) for some in (rows, plain)
    ]
    assert summary["verify_cost_ratio"] == pytest.approx(passes[0] / passes[1])
    assert summary["identical"] is True and summary["lossless"] is True
    provenance = summary["provenance"]
    assert {"commit", "compiler", "cpu", "instruction_set", "threads", "dtype", "seed", "config"} <= set(provenance)
    assert provenance["seed"] == 3 and provenance["dtype"] == "bfloat16"


def test_the_recorded_config_runs_again(bench, tmp_path):
    config = bench[2][0]["provenance"]["config"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps(QUESTIONS[0]) + "\n")
    again = tmp_path / "again.json"
    again.write_text(json.dumps({**config, "prompts": str(questions)}))
    out = tmp_path / "again.jsonl"
    ok("bench", "--config", again, "--output", out)
    first = next(row for row in bench[1] if row["question_id"] == 81)
    assert read_jsonl(out)[0]["token_ids"] == first["token_ids"]


def test_bench_grid_has_one_summary_per_combination(tmp_path):
    out = tmp_path / "grid.jsonl"
    done = ok(
        "bench", "--target", SMALL, "--drafter", "ngram; synthetic(alpha=0.5)", "--tree",
        "chain(gamma=2), expansion(2,1)", "--accept", "naive", "--temperature", "0,1", "--prompt", PROMPT,
        "--max-new-tokens", "8", "--output", out,
    )  # fmt: skip
    summaries = [row for row in read_jsonl(out) if row["kind"] == "summary"]
    assert [row["temperature"] for row in summaries] == [0] * 4 + [1] * 4
    assert {(row["drafter"].split("(")[0], row["tree"].split("(")[0]) for row in summaries} == {
        (drafter, tree) for drafter in ("ngram", "synthetic") for tree in ("chain", "expansion")
    }
    assert [row["identical"] for row in summaries] == [True] * 4 + [None] * 4
    assert len(re.findall(r" sampled +\d", done.stdout)) == 4


def test_a_lossy_policy_must_be_allowed_and_is_labelled():
    arguments = [*BENCH, "--accept", "typical", "--temperature", "1"]
    expect_one_line(specmoe(*arguments), "--allow-lossy")
    assert "typical(epsilon=0.3,delta=0.09) (LOSSY)" in ok(*arguments, "--allow-lossy").stdout


def test_a_grid_goes_on_without_the_cells_that_cannot_run(tmp_path):
    out = tmp_path / "grid.jsonl"
    text = ok(*BENCH, "--accept", "greedy,naive,token", "--tree", "chain(gamma=2);expansion(2,2)", "--temperature",
              "0,1", "--output", out).stdout  # fmt: skip
    rows = read_jsonl(out)
    ran = {(r["acceptance"], r["tree"][:5], r["temperature"]) for r in rows if r["kind"] == "summary"}
    failed = {(r["acceptance"], r["tree"][:5], r["temperature"]): r["error"] for r in rows if r["kind"] == "failed"}
    assert ran == {
        ("greedy", "chain", 0), ("greedy", "expan", 0), *((p, "chain", t) for p in ("naive", "token") for t in (0, 1)),
        ("naive", "expan", 0), ("naive", "expan", 1),
    }  # fmt: skip
    assert len(failed) == 4 and "chains only" in failed["token", "expan", 0] and text.count("not run: ") == 4


def test_plot_of_a_result_file(bench, tmp_path):
    results = tmp_path / "bench.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in bench[1] + bench[2]))
    plot = ROOT / "experiments/plot_results.py"
    done = subprocess.run([sys.executable, plot, results], capture_output=True, text=True, check=True)
    image = tmp_path / "bench.png"
    assert str(image) in done.stdout
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size > 20_000
    results.write_text("")
    assert subprocess.run([sys.executable, plot, results], capture_output=True).returncode != 0


def test_a_number_may_begin_with_zeros(tmp_path):
    out = tmp_path / "zeros.jsonl"
    ok(
        "bench", "--target", SMALL, "--drafter", "ngram", "--prompt", PROMPT, "--max-new-tokens", "08", "--seed", "007",
        "--top-p", ".50", "--repeat", "1", "--output", out,
    )  # fmt: skip
    config = read_jsonl(out)[-1]["provenance"]["config"]
    assert (config["max-new-tokens"], config["seed"], config["top-p"]) == (8, 7, 0.5)
