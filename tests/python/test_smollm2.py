"""The real language model of experiments/models/fetch_smollm2.sh: python -m pytest tests/python -m network."""

import os
import subprocess
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
