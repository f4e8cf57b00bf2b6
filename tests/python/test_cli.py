"""The program `specmoe`, driven as a user drives it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("SPECMOE_PROGRAM", ROOT / "build/cpu/specmoe"))
MODELS = Path(os.environ.get("SPECMOE_MODELS", ROOT / "experiments/models"))
TARGET, SMALL = str(MODELS / "target"), str(MODELS / "drafter")
DRAFTER = f"independent(path={SMALL})"
PROMPT = "Problem: Theo has 5 pebbles. Paul has 3 more than Theo. How many pebbles does Paul have?\nSolution:"
QUESTIONS = [
    {"question_id": 81, "category": "math", "turns": [PROMPT]},
    {"question_id": "x-2", "turns": ["Problem: Ada has 3 apples", "And then?"]},
    {"question_id": 3, "category": "code", "turns": ["def read(self):\n"]},
]


def specmoe(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=120, **options
    )


def ok(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    done = specmoe(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return path


# ---- help, list, inspect ----


@pytest.mark.parametrize("command", [[], ["generate"], ["bench"], ["list"], ["inspect"], ["convert"]])
def test_help_goes_to_stdout(command):
    done = ok(*command, "--help")
    assert "specmoe" in done.stdout and done.stderr == ""


def test_without_a_command_the_help_is_an_error():
    done = specmoe()
    assert done.returncode == 2 and "generate" in done.stderr and done.stdout == ""


def test_help_names_every_flag_of_the_issue():
    text = ok("generate", "--help").stdout
    for flag in (
        "target drafter tree accept prompt prompts max-new-tokens temperature top-k top-p seed batch threads dtype "
        "device output config stop ignore-eos allow-lossy quiet mark"
    ).split():
        assert re.search(rf"--{flag}\b", text), flag
    assert "--repeat" in ok("bench", "--help").stdout
    assert "Examples:" in text


def test_list_shows_plugins_with_parameters_and_labels():
    text = ok("list").stdout
    for name in ("independent", "ngram", "synthetic", "chain", "expansion", "greedy", "naive", "token"):
        assert re.search(rf"^  {name}\b", text, re.MULTILINE), name
    assert re.search(r"gamma\s+= 4", text) and re.search(r"^    path\s+\(required\)", text, re.MULTILINE)
    assert re.search(r"^  typical\s+LOSSY", text, re.MULTILINE)
    assert re.search(r"^  token\s+lossless", text, re.MULTILINE)


def test_inspect_prints_sizes_without_loading(tmp_path):
    folder = tmp_path / "config_only"
    folder.mkdir()
    shutil.copy(Path(TARGET) / "config.json", folder)
    text = ok("inspect", "--target", folder, "--drafter", DRAFTER).stdout
    for part in ("mixtral", "experts", "total", "active", "KV cache", "llama"):
        assert part in text
    bf16, f32 = (ok("inspect", "--target", folder, "--dtype", dtype).stdout for dtype in ("bfloat16", "float32"))
    experts = [float(re.search(r"^  experts +([\d.]+) MB", text, re.MULTILINE)[1]) for text in (bf16, f32)]
    assert experts[1] == pytest.approx(2 * experts[0], rel=0.01)
    narrow = ok("inspect", "--target", folder, "--kv-dtype", "bfloat16").stdout
    wide_cache, narrow_cache = (float(re.search(r"^  KV cache +([\d.]+)", t, re.MULTILINE)[1]) for t in (bf16, narrow))
    assert wide_cache == pytest.approx(2 * narrow_cache, rel=0.02)


# ---- generate ----


def generate(*arguments: str, **options) -> str:
    return ok(
        "generate", "--target", TARGET, "--prompt", PROMPT, "--max-new-tokens", "40", *arguments, **options
    ).stdout


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_with_narrow_caches_too(kv_dtype):
    plain = generate("--kv-dtype", kv_dtype)
    assert len(plain) > 20
    assert generate("--kv-dtype", kv_dtype, "--drafter", DRAFTER, "--tree", "expansion(2,2,1)") == plain


@pytest.mark.parametrize("drafter", [DRAFTER, "ngram", "synthetic(alpha=0.7)"])
@pytest.mark.parametrize("tree", ["chain(gamma=3)", "expansion(2,2,1)"])
def test_speculative_text_is_the_plain_one(drafter, tree):
    plain = generate()
    assert len(plain) > 20
    marked = generate("--drafter", drafter, "--tree", tree, "--mark", "brackets")
    assert "⟦" in marked
    assert marked.replace("⟦", "").replace("⟧", "") == plain


def test_marks_are_balanced_and_ansi_is_reset():
    text = generate("--drafter", DRAFTER, "--mark", "brackets")
    assert re.fullmatch(r"[^⟦⟧]*(⟦[^⟦⟧]+⟧[^⟦⟧]*)+", text)
    ansi = generate("--drafter", DRAFTER, "--mark", "ansi")
    assert ansi.count("\033[4;32m") == ansi.count("\033[0m") > 0
    assert "\033" not in generate("--drafter", DRAFTER)  # stdout is no terminal


def test_progress_and_statistics_go_to_stderr_unless_quiet():
    arguments = ("generate", "--target", TARGET, "--drafter", DRAFTER, "--prompt", PROMPT, "--max-new-tokens", "16")
    assert "tau" in ok(*arguments).stderr
    assert ok(*arguments, "--quiet").stderr == ""


def test_stop_string_ends_the_text_and_nothing_is_counted_behind_it(tmp_path):
    plain = generate().rstrip("\n")
    stop = plain[12:24]  # several tokens
    out = tmp_path / "out.jsonl"
    for extra in ([], ["--drafter", DRAFTER]):
        text = generate("--stop", stop, "--output", out, *extra).rstrip("\n")
        assert text == plain[: plain.index(stop)].rstrip("\n")
        row = read_jsonl(out)[0]
        assert row["finish_reason"] == "stop_text"
        assert sum(row["choices"][0]["accept_lengths"]) == len(row["token_ids"]) == row["num_emitted_tokens"] < 40
        assert row["choices"][0]["turns"][0] == plain[: plain.index(stop)]


def test_a_rendered_prompt_gets_no_second_begin_token(tmp_path):
    begin = "<|begin_of_text|>"
    rows = [
        {"turns": [PROMPT]},
        {"turns": [begin + PROMPT], "rendered": True},
        {"turns": [begin + PROMPT], "rendered": False},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    ok("generate", "--target", TARGET, "--prompts", tmp_path / "rows.jsonl", "--max-new-tokens", "16", "--output", out)
    plain, rendered, twice = (len(row["prompt_ids"]) for row in read_jsonl(out))
    assert plain == rendered == twice - 1


def test_sampling_depends_on_the_seed_alone(questions, tmp_path):
    def texts(*extra: str) -> list[str]:
        out = tmp_path / "out.jsonl"
        ok(
            "generate", "--target", TARGET, "--drafter", DRAFTER, "--prompts", questions, "--temperature", "0.9",
            "--max-new-tokens", "24", "--output", out, *extra,
        )  # fmt: skip
        return [row["choices"][0]["turns"][0] for row in read_jsonl(out)]

    first = texts("--seed", "1")
    assert texts("--seed", "1", "--batch", "3") == first
    assert texts("--seed", "1", "--batch", "2") == first
    assert texts("--seed", "2") != first


def test_several_prompts_are_printed_in_order_with_headings(questions):
    arguments = ("generate", "--target", TARGET, "--prompts", questions, "--max-new-tokens", "12")
    one_by_one = ok(*arguments).stdout
    assert re.findall(r"^== (.*) ==$", one_by_one, re.MULTILINE) == ["81", "x-2", "3"]
    assert ok(*arguments, "--batch", "3").stdout == one_by_one


def test_text_file_of_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"Problem: Ada has\n\n  \ndef f(\xff\xfe):\r\n")
    out = tmp_path / "out.jsonl"
    ok("generate", "--target", SMALL, "--prompts", path, "--max-new-tokens", "4", "--output", out)
    assert [row["question_id"] for row in read_jsonl(out)] == [1, 4]


def test_config_file_means_the_same_as_flags_and_the_command_line_wins(tmp_path):
    config = tmp_path / "run.json"
    config.write_text(
        json.dumps(
            {
                "target": TARGET,
                "drafter": DRAFTER,
                "tree": "chain(gamma=2)",
                "prompt": [PROMPT],
                "max-new-tokens": 20,
                "temperature": 1.5,
                "seed": 5,
                "ignore-eos": True,
                "quiet": True,
            }
        )
    )
    flags = [
        "--target", TARGET, "--drafter", DRAFTER, "--tree", "chain(gamma=2)", "--prompt", PROMPT, "--max-new-tokens",
        "20", "--temperature", "1.5", "--seed", "5", "--ignore-eos", "--quiet",
    ]  # fmt: skip
    expected = ok("generate", *flags).stdout
    assert ok("generate", "--config", config).stdout == expected
    assert ok("generate", "--config", config, "--seed", "6").stdout != expected


# ---- bench ----


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


# ---- bad input ----

GENERATE = ["generate", "--target", SMALL, "--prompt", "a", "--max-new-tokens", "4"]
BENCH = ["bench", "--target", SMALL, "--drafter", "ngram", "--prompt", "a", "--max-new-tokens", "4"]


def with_config(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "config.json"
    path.write_text(text)
    return ["generate", "--config", str(path)]


def with_prompts(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    return ["generate", "--target", SMALL, "--prompts", str(path)]


BAD_CALLS = {
    "unknown command": (["generat"], "unknown command 'generat'"),
    "unknown flag": ([*GENERATE, "--temprature", "1"], "did you mean --temperature?"),
    "abbreviated flag": ([*GENERATE, "--temp", "1"], "no option --temp"),
    "flag of another command": ([*GENERATE, "--repeat", "2"], "no option --repeat"),
    "missing value": (["generate", "--target"], "--target needs a value"),
    "switch with value": ([*GENERATE, "--quiet=yes"], "--quiet takes no value"),
    "flag twice": ([*GENERATE, "--seed", "1", "--seed", "2"], "--seed was given more than once"),
    "stray word": ([*GENERATE, "word"], "unexpected 'word'"),
    "no target": (["generate", "--prompt", "a"], "needs --target"),
    "no prompt": (["generate", "--target", SMALL], "--prompt TEXT"),
    "both prompts": ([*GENERATE, "--prompts", "x.txt"], "one of the two"),
    "empty prompt": (["generate", "--target", SMALL, "--prompt", ""], "empty"),
    "no such target": (["generate", "--target", "/no/such", "--prompt", "a"], "/no/such"),
    "no such drafter folder": ([*GENERATE, "--drafter", "independent(path=/no/such)"], "/no/such"),
    "drafter without path": ([*GENERATE, "--drafter", "independent"], "path"),
    "unknown drafter": ([*GENERATE, "--drafter", "ngrm"], "known: "),
    "unknown parameter": ([*GENERATE, "--drafter", "ngram(width=3)"], "width"),
    "unclosed parenthesis": ([*GENERATE, "--drafter", "ngram(max_n=3"], "ngram(max_n=3"),
    "unknown tree": ([*GENERATE, "--drafter", "ngram", "--tree", "bush"], "known: "),
    "gamma zero": ([*GENERATE, "--drafter", "ngram", "--tree", "chain(gamma=0)"], "gamma"),
    "unknown policy": ([*GENERATE, "--drafter", "ngram", "--accept", "tokens"], "known: "),
    "chain policy on a tree": (
        [*GENERATE, "--drafter", "ngram", "--tree", "expansion(2,2)", "--accept", "token"],
        "chains only",
    ),
    "greedy above temperature 0": (
        [*GENERATE, "--drafter", "ngram", "--accept", "greedy", "--temperature", "1"],
        "temperature 0",
    ),
    "tree without drafter": ([*GENERATE, "--tree", "chain"], "need a --drafter"),
    "two trees in generate": ([*GENERATE, "--drafter", "ngram", "--tree", "chain,chain"], "one --tree"),
    "empty list item": ([*BENCH, "--tree", "chain,,chain"], "item 2"),
    "bench without drafter": (["bench", "--target", SMALL, "--prompt", "a"], "--drafter"),
    "zero tokens": ([*GENERATE[:5], "--max-new-tokens", "0"], "--max-new-tokens"),
    "negative tokens": ([*GENERATE[:5], "--max-new-tokens", "-3"], "got '-3'"),
    "tokens no number": ([*GENERATE[:5], "--max-new-tokens", "many"], "got 'many'"),
    "tokens too large": ([*GENERATE[:5], "--max-new-tokens", "99999999999999999999"], "--max-new-tokens"),
    "zero batch": ([*GENERATE, "--batch", "0"], "--batch"),
    "zero repeat": ([*BENCH, "--repeat", "0"], "--repeat"),
    "negative threads": ([*GENERATE, "--threads", "-1"], "--threads"),
    "negative temperature": ([*GENERATE, "--temperature", "-1"], "temperature"),
    "temperature nan": ([*GENERATE, "--temperature", "nan"], "temperature"),
    "temperature hot": ([*GENERATE, "--temperature", "hot"], "got 'hot'"),
    "negative top-k": ([*GENERATE, "--top-k", "-1"], "--top-k"),
    "top-p zero": ([*GENERATE, "--top-p", "0"], "top_p"),
    "top-p above 1": ([*GENERATE, "--top-p", "1.5"], "top_p"),
    "negative seed": ([*GENERATE, "--seed", "-1"], "--seed"),
    "empty stop": ([*GENERATE, "--stop", ""], "--stop"),
    "dtype": ([*GENERATE, "--dtype", "int3"], "float32, bfloat16 or int8"),
    "device": ([*GENERATE, "--device", "cuda:9"], "cuda"),
    "mark": ([*GENERATE, "--mark", "loud"], "brackets"),
    "output in no folder": ([*GENERATE, "--output", "/no/such/out.jsonl"], "cannot write"),
    "output is a folder": ([*GENERATE, "--output", "/tmp"], "is a folder"),
    "list with arguments": (["list", "chain"], "takes no arguments"),
    "inspect without target": (["inspect"], "--target"),
    "kv-dtype": (["inspect", "--target", TARGET, "--kv-dtype", "float16"], "float32, bfloat16 or int8"),
    "inspect no such folder": (["inspect", "--target", "/no/such"], "/no/such"),
    "no config": (["generate", "--config", "/no/such.json"], "cannot read"),
    "prompt too long": (["generate", "--target", SMALL, "--prompt", "word 7 " * 2000], "context"),
}
BAD_FILES = {
    "config no json": (with_config, "{target", "not valid JSON"),
    "config no object": (with_config, "[1]", "one JSON object"),
    "config unknown key": (with_config, '{"targt": "x"}', "did you mean --target?"),
    "config underscores": (with_config, '{"max_new_tokens": 3}', "did you mean --max-new-tokens?"),
    "config wrong type": (with_config, '{"seed": "one"}', "seed must be a number"),
    "config switch": (with_config, '{"quiet": 1}', "true or false"),
    "prompts empty": (with_prompts, "\n\n", "holds no prompt"),
    "prompts broken row": (with_prompts, '{"turns": ["a"]}\n{"turns"', "line 2"),
    "prompts no turns": (with_prompts, '{"question_id": 1}', '"turns"'),
    "prompts turns no list": (with_prompts, '{"turns": "a"}', '"turns"'),
    "prompts rendered no flag": (with_prompts, '{"turns": ["a"], "rendered": 1}', "rendered must be true or false"),
    "prompts turn no text": (with_prompts, '{"turns": [1]}', "every turn"),
    "prompts id": (with_prompts, '{"question_id": [1], "turns": ["a"]}', "question_id"),
    "prompts id twice": (with_prompts, '{"question_id": 1, "turns": ["a"]}\n' * 2, "twice"),
}


def expect_one_line(done: subprocess.CompletedProcess[str], wanted: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("loaded ")]
    assert len(errors) == 1 and errors[0].startswith("specmoe: error: "), done.stderr
    assert wanted in errors[0]


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(name, tmp_path):
    arguments, wanted = BAD_CALLS[name]
    if arguments[0] in ("generate", "bench") and "--output" not in arguments:
        arguments = [*arguments, "--output", str(tmp_path / "out.jsonl")] if arguments[-1] != "--target" else arguments
    expect_one_line(specmoe(*arguments), wanted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name, tmp_path):
    write, text, wanted = BAD_FILES[name]
    expect_one_line(specmoe(*write(tmp_path, text)), wanted)


def test_folder_as_prompt_file(tmp_path):
    expect_one_line(specmoe("generate", "--target", SMALL, "--prompts", tmp_path), "is a folder")


def test_drafter_with_another_vocabulary():
    other = ROOT / "tests/golden/models/llama_default"
    expect_one_line(specmoe(*GENERATE, "--drafter", f"independent(path={other})"), "vocabular")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def absurd_header(file: Path) -> None:
    file.write_bytes((1 << 60).to_bytes(8, "little") + file.read_bytes()[8:])


def overlap(file: Path) -> None:
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize("damage", [truncate, absurd_header, overlap, Path.unlink])
def test_damaged_weights(damage, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    damage(folder / "model.safetensors")
    expect_one_line(specmoe("generate", "--target", folder, "--prompt", "a"), "safetensors")


def test_unknown_model_type(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "elephant"}))
    expect_one_line(specmoe("generate", "--target", folder, "--prompt", "a"), "elephant")


def test_unwritable_output_is_found_before_the_run(tmp_path):
    begin = time.monotonic()
    done = specmoe("bench", "--target", TARGET, "--drafter", DRAFTER, "--prompt", "a", "--output", "/proc/out.jsonl")
    expect_one_line(done, "cannot write")
    assert "loaded" not in done.stderr and time.monotonic() - begin < 5


def test_device_as_output_is_not_replaced(tmp_path):
    done = ok(*GENERATE, "--output", "/dev/stdout", "--quiet")
    assert '"kind":"answer"' in done.stdout
    assert Path("/dev/null").is_char_device()
    ok(*GENERATE, "--output", "/dev/null")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_cleanly(number, tmp_path):
    out = tmp_path / "out.jsonl"
    command = [
        PROGRAM, "bench", "--target", TARGET, "--drafter", DRAFTER, "--prompt", PROMPT, "--max-new-tokens", "800",
        "--ignore-eos", "--repeat", "500", "--output", out,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "drafter" not in process.stderr.readline():  # both models are loaded
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "specmoe: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_ends_the_program_without_a_trace(tmp_path):
    out = tmp_path / "out.jsonl"
    command = f"{PROGRAM} generate --target {TARGET} --prompt a --ignore-eos --max-new-tokens 900 --quiet --output {out} | head -c 5"
    subprocess.run(["bash", "-c", command], timeout=60, capture_output=True)
    assert list(tmp_path.iterdir()) == []
