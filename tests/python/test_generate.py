"""`specmoe generate`, driven as a user drives it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from program import (
    DRAFTER,
    PROMPT,
    QUESTIONS,
    SMALL,
    TARGET,
    generate,
    ok,
    read_jsonl,
)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return path


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_with_narrow_caches_too(kv_dtype):
    plain = generate("--kv-dtype", kv_dtype)
    assert len(plain) > 20
    assert generate("--kv-dtype", kv_dtype, "--drafter", DRAFTER, "--tree", "expansion(2,2,1)") == plain


@pytest.mark.parametrize("drafter", [DRAFTER, "ngram", "self", f"merged({DRAFTER}, self)", "synthetic(alpha=0.7)"])
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
