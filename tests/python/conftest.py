"""Fixtures of the Python tests: the tiny random checkpoints of tests/golden/models, which have one vocabulary."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="session")
def random_checkpoint() -> Callable[..., Path]:
    return write_random_checkpoint


def write_random_checkpoint(folder: Path, layers: int, context: int = 64) -> Path:
    """A mixture of experts of some size, bfloat16; each layer has 12.9 MB."""
    target = ROOT / "experiments" / "models" / "target"
    config = json.loads((target / "config.json").read_text())
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2}
    config |= sizes | {"head_dim": 64, "num_local_experts": 4, "num_hidden_layers": layers, "vocab_size": 512}
    config |= {"max_position_embeddings": context, "eos_token_id": None}
    shapes = {"model.embed_tokens.weight": (512, 512), "lm_head.weight": (512, 512), "model.norm.weight": (512,)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name, rows in {"q": 512, "k": 128, "v": 128, "o": 512}.items():
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, 512)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = (512,)
        shapes[f"{layer}block_sparse_moe.gate.weight"] = (4, 512)
        for expert in range(4):
            for name, shape in {"w1": (1024, 512), "w3": (1024, 512), "w2": (512, 1024)}.items():
                shapes[f"{layer}block_sparse_moe.experts.{expert}.{name}.weight"] = shape
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(target / "tokenizer.json", folder)
    text = json.dumps(header).encode()
    values = np.random.default_rng(1).standard_normal(1 << 20, dtype=np.float32) * 0.03
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            ones = np.full(count, 0x3F80, np.uint16)
            file.write((ones if "norm" in name else np.resize(bits, count)).tobytes())
    return folder
