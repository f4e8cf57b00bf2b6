"""Fixtures of the Python tests: the tiny random checkpoints of tests/golden/models, which have one vocabulary."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "golden" / "models"
VOCAB = 199


@pytest.fixture(scope="session")
def target_path() -> Path:
    """A mixture-of-experts model without a tokenizer."""
    return MODELS / "mixtral_a"


@pytest.fixture(scope="session")
def draft_path() -> Path:
    """A dense model of the same vocabulary, which rarely agrees with it."""
    return MODELS / "llama_default"


@pytest.fixture(scope="session")
def target(target_path):
    import specmoe

    return specmoe.load(target_path, dtype="float32", threads=1)


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


@pytest.fixture(scope="session")
def text_target(target_path, tmp_path_factory):
    """The same model with a tokenizer: one token per byte for as many bytes as its vocabulary holds."""
    import specmoe

    letters = byte_letters()
    order = [*range(32, 127), ord("\n"), *range(0x80, 0xC0), *range(0xC2, 0xF5)]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {letters[b]: 3 + i for i, b in enumerate(order[: VOCAB - 3])}
    special = [
        {"id": i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for i, text in enumerate(["<unk>", "<s>", "</s>"])
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }
    folder = tmp_path_factory.mktemp("text_target")
    for name in ["config.json", "model.safetensors"]:
        shutil.copy(target_path / name, folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return specmoe.load(folder, dtype="float32", threads=1)
