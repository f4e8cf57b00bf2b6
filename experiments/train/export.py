"""Writes a model as a Hugging Face folder (bf16 safetensors) and reads one back.

python export.py --check FOLDER     # logits of FOLDER here and in transformers, float32
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corpus import BEGIN_ID, END_ID
from model import LanguageModel

ARCHITECTURES = {"mixtral": "MixtralForCausalLM", "llama": "LlamaForCausalLM"}


def to_checkpoint(state: dict[str, Tensor], config: dict) -> dict[str, Tensor]:
    """Our state dict under Hugging Face names, one tensor per expert matrix."""
    inner = config["intermediate_size"]
    tensors = {}
    for name, tensor in state.items():
        if name == "lm_head.weight":
            if not config["tie_word_embeddings"]:
                tensors[name] = tensor
            continue
        name = "model." + name
        if config["model_type"] == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if ".w13." in name:
            stem, expert = name.split(".w13.")
            tensors[f"{stem}.experts.{expert}.w1.weight"] = tensor[:inner]
            tensors[f"{stem}.experts.{expert}.w3.weight"] = tensor[inner:]
        elif ".w2." in name:
            stem, expert = name.split(".w2.")
            tensors[f"{stem}.experts.{expert}.w2.weight"] = tensor
        elif name.endswith(".block_sparse_moe.gate"):
            tensors[f"{name}.weight"] = tensor
        else:
            tensors[name] = tensor
    return tensors


def from_checkpoint(tensors: dict[str, Tensor], model: LanguageModel) -> dict[str, Tensor]:
    """The inverse of `to_checkpoint`, float32."""
    config, state = model.config, {}
    for name in model.state_dict():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            state[name] = tensors["model.embed_tokens.weight"].float()
            continue
        their = name if name == "lm_head.weight" else "model." + name
        if config["model_type"] == "mixtral":
            their = their.replace(".mlp.", ".block_sparse_moe.")
        if ".w13." in their:
            stem, e = their.split(".w13.")
            parts = [tensors[f"{stem}.experts.{e}.{w}.weight"] for w in ("w1", "w3")]
            state[name] = torch.cat(parts).float()
        elif ".w2." in their:
            stem, e = their.split(".w2.")
            state[name] = tensors[f"{stem}.experts.{e}.w2.weight"].float()
        else:
            their = their + ".weight" if their.endswith(".gate") else their
            state[name] = tensors[their].float()
    return state


def hugging_face_config(config: dict) -> dict:
    """`config.json`: the recipe's fields and the constant ones."""
    constant = {
        "architectures": [ARCHITECTURES[config["model_type"]]],
        "attention_dropout": 0.0,
        "bos_token_id": BEGIN_ID,
        "eos_token_id": END_ID,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    if config["model_type"] == "mixtral":
        constant |= {
            "output_router_logits": False,
            "router_aux_loss_coef": 0.02,
            "router_jitter_noise": 0.0,
            "sliding_window": None,
        }
    else:
        constant |= {"attention_bias": False, "mlp_bias": False, "rope_scaling": None}
    return dict(sorted((config | constant).items()))


def new_folder(folder: Path) -> Path:
    """An empty folder beside `folder`, to be filled and given to `swap_in`."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def swap_in(new: Path, folder: Path) -> None:
    """Puts the finished folder `new` in the place of `folder`."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def export(state: dict[str, Tensor], config: dict, tokenizer: Path, folder: Path) -> None:
    """The folder of a model: configuration, weights in bf16, tokenizer."""
    new = new_folder(folder)
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous().clone()
        for name, tensor in to_checkpoint(state, config).items()
    }
    save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
    (new / "model.safetensors").chmod(0o644)
    generation = {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID, "do_sample": False}
    for name, content in (
        ("config.json", hugging_face_config(config)),
        ("generation_config.json", generation),
    ):
        (new / name).write_text(json.dumps(content, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, new / name)
    swap_in(new, folder)


def export_head(
    state: dict[str, Tensor],
    config: dict,
    folder: Path,
    file: str = "model.safetensors",
    tables: dict[str, Tensor] | None = None,
) -> None:
    """The folder of a draft head: configuration, weights in bf16, and tables as they are."""
    new = new_folder(folder)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_file(tensors | (tables or {}), new / file, metadata={"format": "pt"})
    (new / file).chmod(0o644)
    (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    swap_in(new, folder)


def load(folder: Path) -> LanguageModel:
    """The model of an exported folder, float32."""
    model = LanguageModel(json.loads((folder / "config.json").read_text()))
    model.load_state_dict(from_checkpoint(load_file(folder / "model.safetensors"), model))
    return model.eval()


@torch.no_grad()
def check(folder: Path) -> float:
    """Largest difference of our logits and those of transformers, over max(1, max |logit|)."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, theirs.config.vocab_size, (2, 48), generator=generator)
    expected, got = theirs(ids).logits, load(folder)(ids)
    difference = float((expected - got).abs().max() / expected.abs().max().clamp(min=1))
    assert difference < 1e-4, f"{folder}: logits differ by {difference:.2e}"
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, required=True, help="exported folder")
    folder = parser.parse_args().check
    print(f"{folder.name}: relative difference from transformers {check(folder):.1e}")


if __name__ == "__main__":
    main()
