"""What a user can get wrong: one line, exit code 2."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import (
    BENCH,
    DRAFTER,
    GENERATE,
    PROGRAM,
    PROMPT,
    ROOT,
    SMALL,
    TARGET,
    expect_one_line,
    ok,
    specmoe,
)


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
    "min-p above 1": ([*GENERATE, "--min-p", "1.5"], "min_p must be from 0 (no cut) to 1, got 1.5"),
    "repetition-penalty zero": (
        [*GENERATE, "--repetition-penalty", "0"],
        "repetition_penalty must be above 0 (1: none), from 1e-06 to 1e+06, got 0",
    ),
    "presence-penalty nan": ([*GENERATE, "--presence-penalty", "nan"], "presence-penalty"),
    "frequency-penalty too large": (
        [*GENERATE, "--frequency-penalty", "-2e6"],
        "frequency_penalty must be from -1e+06 to 1e+06 (0: none), got -2e+06",
    ),
    "negative seed": ([*GENERATE, "--seed", "-1"], "--seed"),
    "empty stop": ([*GENERATE, "--stop", ""], "--stop"),
    "gamma past 32 bits": ([*GENERATE, "--drafter", "ngram", "--tree", "chain(gamma=4294967300)"], "got '4294967300'"),
    "temperature too small": (
        [*GENERATE, "--temperature", "1e-40"],
        "temperature must be 0 (greedy) or at least 1e-06",
    ),
    "empty output": ([*GENERATE, "--output", ""], "--output is empty: give FILE.jsonl, or leave it out"),
    "config is a folder": (["generate", "--config", "/tmp"], "is a folder"),
    "file that is no model": (["generate", "--target", __file__, "--prompt", "a"], "a file that ends in .gguf"),
    "branching proof of a chain policy": (["prove", "--accept", "token", "--tree", "expansion(2)"], "such as chain(3)"),
    "dtype": ([*GENERATE, "--dtype", "int3"], "float32, bfloat16 or int8"),
    "device": ([*GENERATE, "--device", "cuda:9"], "cuda"),
    "mark": ([*GENERATE, "--mark", "loud"], "brackets"),
    "output in no folder": ([*GENERATE, "--output", "/no/such/out.jsonl"], "cannot write"),
    "output is a folder": ([*GENERATE, "--output", "/tmp"], "is a folder"),
    "list with arguments": (["list", "chain"], "takes no arguments"),
    "inspect without target": (["inspect"], "--target"),
    "kv-dtype": (
        ["inspect", "--target", TARGET, "--kv-dtype", "float16"],
        "--kv-dtype: expected float32, bfloat16 or int8",
    ),
    "inspect no such folder": (["inspect", "--target", "/no/such"], "/no/such"),
    "no config": (["generate", "--config", "/no/such.json"], "cannot read"),
    "prompt too long": (["generate", "--target", SMALL, "--prompt", "word 7 " * 2000], "context"),
}
BAD_FILES = {
    "config no json": (with_config, "{target", "not valid JSON"),
    "config no object": (with_config, "[1]", "one JSON object"),
    "config unknown key": (with_config, '{"targt": "x"}', "did you mean --target?"),
    "config underscores": (with_config, '{"max_new_tokens": 3}', "did you mean --max-new-tokens?"),
    "config number too large": (with_config, '{"seed": 1e999}', "too large"),
    "config wrong type": (with_config, '{"seed": "one"}', "seed must be a number"),
    "config switch": (with_config, '{"quiet": 1}', "true or false"),
    "prompts empty": (with_prompts, "\n\n", "holds no prompt"),
    "prompts broken row": (with_prompts, '{"turns": ["a"]}\n{"turns"', "line 2"),
    "prompts in one list": (with_prompts, '[{"turns": ["a"]}]', "one a line"),
    "prompts no turns": (with_prompts, '{"question_id": 1}', '"turns"'),
    "prompts turns no list": (with_prompts, '{"turns": "a"}', '"turns"'),
    "prompts rendered no flag": (with_prompts, '{"turns": ["a"], "rendered": 1}', "rendered must be true or false"),
    "prompts turn no text": (with_prompts, '{"turns": [1]}', "every turn"),
    "prompts id": (with_prompts, '{"question_id": [1], "turns": ["a"]}', "question_id"),
    "prompts id twice": (with_prompts, '{"question_id": 1, "turns": ["a"]}\n' * 2, "twice"),
}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_ends_cleanly(number, tmp_path):
    out = tmp_path / "out.jsonl"
    command = [
        PROGRAM, "bench", "--target", TARGET, "--drafter", DRAFTER, "--prompt", PROMPT, "--max-new-tokens", "800",
        "--ignore-eos", "--repeat", "500", "--output", out,
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # The tests themselves may run under nohup.
    with subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        while "drafter" not in process.stderr.readline():  # both models are loaded
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "specmoe: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_hangup_is_ignored_under_nohup():
    command = [PROGRAM, "generate", "--target", TARGET, "--prompt", PROMPT, "--ignore-eos", "--max-new-tokens", "400"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ) as process:
        process.stdout.read(1)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_closed_pipe_ends_the_program_without_a_trace(tmp_path):
    out = tmp_path / "out.jsonl"
    command = f"{PROGRAM} generate --target {TARGET} --prompt a --ignore-eos --max-new-tokens 900 --quiet --output {out} | head -c 5"
    subprocess.run(["bash", "-c", command], timeout=60, capture_output=True)
    assert list(tmp_path.iterdir()) == []
