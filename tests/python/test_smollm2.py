"""The real language model of experiments/models/fetch_smollm2.sh: python -m pytest tests/python -m network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import specmoe

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = {
    "What is the capital of France?": "Paris",
    "How many days are in a week?": "seven|7",
    "Write a Python function that adds two numbers.": "def |return",
}

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    """Fetched anew, or taken from SPECMOE_SMOLLM2 (a folder)."""
    folder = Path(os.environ.get("SPECMOE_SMOLLM2") or tmp_path_factory.mktemp("smollm2"))
    subprocess.run([ROOT / "experiments/models/fetch_smollm2.sh", folder], check=True)
    return folder / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def model(gguf):
    return specmoe.load(gguf, dtype="float32", threads=1)


def test_logits_are_those_of_transformers(gguf, model):
    """Both expand the same file to float32: relative error below 1e-3 on every row."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    for question in QUESTIONS:
        ids = specmoe.chat(model, question)
        with torch.no_grad():
            expected = reference(torch.tensor([ids])).logits[0].numpy()
        actual = model.logits(ids)
        error = np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert error.max() < 1e-3
        assert (actual.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_answers_make_sense_and_speculation_changes_nothing(model):
    prompts = [specmoe.chat(model, question) for question in QUESTIONS]
    plain = specmoe.Engine(model).generate(prompts, max_new_tokens=64)
    for result, wanted in zip(plain, QUESTIONS.values(), strict=True):
        assert any(word in result.text for word in wanted.split("|")), result.text
    for tree in ("chain(gamma=4)", "chains(k=2,gamma=3)"):
        engine = specmoe.Engine(model, drafter="ngram", tree=tree)
        drafted = engine.generate(prompts, max_new_tokens=64)
        assert [list(result.token_ids) for result in drafted] == [list(result.token_ids) for result in plain]


def test_converted_it_answers_alike(gguf, tmp_path):
    """The folder that is made of the file has its tokenizer, its chat template and the bits of its weights."""
    program = os.environ.get("SPECMOE_PROGRAM", ROOT / "build/cpu/specmoe")
    subprocess.run([program, "convert", "--target", gguf, "--dtype", "int8", "--out", tmp_path / "int8"], check=True)
    texts = []
    for path in (gguf, tmp_path / "int8"):
        model = specmoe.load(path, dtype="int8", threads=1)
        prompts = [specmoe.chat(model, question) for question in QUESTIONS]
        texts.append([result.text for result in specmoe.Engine(model).generate(prompts, max_new_tokens=48)])
    assert texts[0] == texts[1]


@pytest.fixture(scope="module")
def mixture(gguf, tmp_path_factory) -> Path:
    """Made anew, which takes minutes and ends with its gates, or taken from SPECMOE_UPCYCLED (a folder)."""
    if "SPECMOE_UPCYCLED" in os.environ:
        return Path(os.environ["SPECMOE_UPCYCLED"])
    folder = tmp_path_factory.mktemp("upcycled")
    script = ROOT / "experiments/train/upcycle.py"
    done = subprocess.run(
        [sys.executable, script, "--gguf", gguf, "--output", folder, "--threads", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count("\nok ") == 4, done.stdout + done.stderr
    return folder


def test_the_mixture_passes_its_gates_and_drafts_change_nothing(mixture, gguf):
    target = specmoe.load(mixture, threads=1)
    assert (target.info.experts, target.info.experts_per_token) == (8, 2)
    prompts = [specmoe.chat(target, question) for question in QUESTIONS]
    plain = specmoe.Engine(target).generate(prompts, max_new_tokens=32)
    assert "Paris" in plain[0].text
    for drafter in ("ngram", f"independent(path={gguf})", f"independent(path={gguf},dtype=int8)"):
        drafted = specmoe.Engine(target, drafter=drafter, tree="chain(gamma=3)").generate(prompts, max_new_tokens=32)
        assert [list(result.token_ids) for result in drafted] == [list(result.token_ids) for result in plain], drafter
