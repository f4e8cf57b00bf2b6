"""Writes the tiny checkpoints of tests/golden/models and what transformers computes with them.

    .venv/bin/python tests/golden/make_model_fixtures.py [CASE ...]

Every tensor is random (freshly initialised norms are 1 and biases 0: a loader that ignores them would pass), sizes are
odd, and seeds are skipped until every router choice and every greedy token has a clear margin. Beside each checkpoint
lies expected.safetensors:
    input_ids [T], logits [T, V] float32, routers [MoE layers, T, K] chosen experts by rank
    greedy_ids [12 + 64]: the first 12 input ids and 64 tokens decoded greedily from them
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

FOLDER = Path(__file__).parent / "models"
LENGTH, PROMPT, GREEDY = 37, 12, 64
MARGIN = 1e-3
BASE = {
    "vocab_size": 199,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
MIXTRAL = BASE | {
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "intermediate_size": 24,
}
LLAMA = BASE | {"intermediate_size": 56}


def rope(**parameters) -> dict:
    return {"rope_parameters": {"rope_theta": 10000.0} | parameters}


# name: (config class, its arguments, storage dtype, and how it is saved)
#   old     transformers 4 spelling of config.json
#   fused   experts as three-dimensional tensors
#   shards  several files and an index
#   bare    tensor names without "model."
#   drop    keys left out of config.json: the class default must do
CASES = {
    "mixtral_a": (MixtralConfig, MIXTRAL | {"head_dim": 24}, torch.bfloat16, {}),
    "mixtral_b": (
        MixtralConfig,
        MIXTRAL
        | {
            "sliding_window": 16,
            "tie_word_embeddings": True,
            "num_local_experts": 5,
            "intermediate_size": 20,
        },
        torch.float32,
        {"shards": True},
    ),
    "mixtral_c": (
        MixtralConfig,
        MIXTRAL
        | {
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
        }
        | rope(rope_type="default", rope_theta=1e6),
        torch.float16,
        {"old": True, "fused": True, "drop": ["num_key_value_heads", "rope_theta"]},
    ),
    "llama_default": (
        LlamaConfig,
        LLAMA | rope(rope_type="default"),
        torch.float32,
        {},
    ),
    "llama_linear": (
        LlamaConfig,
        LLAMA | {"tie_word_embeddings": True} | rope(rope_type="linear", factor=2.0),
        torch.bfloat16,
        {"old": True},
    ),
    "llama_llama3": (
        LlamaConfig,
        LLAMA
        | {"num_key_value_heads": 4}
        | rope(
            rope_type="llama3",
            rope_theta=50.0,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
        torch.float16,
        {"drop": ["num_key_value_heads"]},
    ),
    "llama_yarn": (
        LlamaConfig,
        LLAMA
        | rope(
            rope_type="yarn",
            rope_theta=100.0,
            factor=4.0,
            original_max_position_embeddings=48,
            beta_fast=16.0,
        ),
        torch.bfloat16,
        {"fused": True},
    ),
    "llama_dynamic": (
        LlamaConfig,
        LLAMA | {"num_hidden_layers": 3} | rope(rope_type="dynamic", factor=4.0),
        torch.bfloat16,
        {"old": True, "bare": True},
    ),
    "llama_bias": (
        LlamaConfig,
        LLAMA | {"attention_bias": True, "mlp_bias": True, "head_dim": 24} | rope(rope_type="default"),
        torch.bfloat16,
        {},
    ),
}


def randomise(model: torch.nn.Module, generator: torch.Generator, storage: torch.dtype) -> None:
    """Values every one of which matters, exact in the storage type."""
    # A tied embedding must be small against what the layers add, or every token predicts itself.
    embedding = 0.05 if model.config.tie_word_embeddings else 0.3
    for name, parameter in model.named_parameters():
        if "norm" in name:
            value = torch.rand(parameter.shape, generator=generator) + 0.5
        else:
            spread = 0.5 if name.endswith("bias") else 1.0 if name.endswith("mlp.gate.weight") else 0.08
            spread = embedding if "lm_head" in name or "embed" in name else spread
            value = torch.randn(parameter.shape, generator=generator) * spread
        parameter.copy_(value.to(storage).float())


def run(model: torch.nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, list, float]:
    """Logits [T, V], router choices per layer, and the smallest margin between a chosen expert and the next one."""
    choices, margin = [], float("inf")

    def keep(module, inputs, outputs):
        nonlocal margin
        logits, _, chosen = outputs
        ranked = logits.sort(dim=-1, descending=True).values[:, : chosen.shape[1] + 1]
        margin = min(margin, float((ranked[:, :-1] - ranked[:, 1:]).min()))
        choices.append(chosen.to(torch.int32))

    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    hooks = [gate.register_forward_hook(keep) for gate in gates]
    logits = model(ids[None]).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, choices, margin


def greedy(model: torch.nn.Module, prompt: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The prompt and GREEDY tokens after it, and the smallest margin of a greedy token or a router choice."""
    ids, margin = prompt, float("inf")
    for _ in range(GREEDY):
        logits, _, router_margin = run(model, ids)
        top = logits[-1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]), router_margin)
        if margin < MARGIN:
            break
        ids = torch.cat((ids, top.indices[:1]))
    return ids, margin


def telling(model: torch.nn.Module, expected: dict, experts: int) -> bool:
    """Whether wrong code would show: margins are wide, experts are all used, the greedy text is no short loop."""
    routers = expected["routers"]
    used = all(len(layer.unique()) == experts for layer in routers) if experts else True
    return used and len(expected["greedy_ids"][PROMPT:].unique()) >= 8


def build(config, storage: torch.dtype) -> tuple[torch.nn.Module, dict, int]:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    if hasattr(model, "set_experts_implementation") and hasattr(config, "num_local_experts"):
        model.set_experts_implementation("eager")
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        randomise(model, generator, storage)
        ids = torch.randint(3, config.vocab_size, (LENGTH,), generator=generator)
        logits, routers, margin = run(model, ids)
        if margin < MARGIN:
            continue
        text, margin = greedy(model, ids[:PROMPT])
        if margin < MARGIN:
            continue
        expected = {
            "input_ids": ids.to(torch.int32),
            "logits": logits.contiguous(),
            "routers": torch.stack(routers) if routers else torch.zeros((0, LENGTH, 0), dtype=torch.int32),
            "greedy_ids": text.to(torch.int32),
        }
        if telling(model, expected, getattr(config, "num_local_experts", 0)):
            return model, expected, seed
    raise SystemExit("no seed gives clear margins")


def old_spelling(config: dict) -> dict:
    """config.json as transformers 4 wrote it."""
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind} | parameters
    config["torch_dtype"] = config.pop("dtype")
    return config | {"transformers_version": "4.46.0"}


def save(folder: Path, model: torch.nn.Module, storage: torch.dtype, how: dict) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    size = "100KB" if how.get("shards") else "1GB"
    model.to(storage).save_pretrained(folder, max_shard_size=size, save_original_format=not how.get("fused", False))
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config = old_spelling(config) if how.get("old") else config
    config = {key: value for key, value in config.items() if key not in how.get("drop", ())}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if how.get("bare"):
        weights = folder / "model.safetensors"
        renamed = {name.removeprefix("model."): tensor for name, tensor in load_file(weights).items()}
        save_file(renamed, weights, metadata={"format": "pt"})


@torch.no_grad()
def make(name: str) -> None:
    config_class, arguments, storage, how = CASES[name]
    config = config_class(**arguments)
    model, expected, seed = build(config, storage)
    save(FOLDER / name, model, storage, how)
    for path in (FOLDER / name).iterdir():
        path.chmod(0o644)
    made_by = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "seed": str(seed),
    }
    save_file(expected, FOLDER / name / "expected.safetensors", metadata=made_by)
    kilobytes = sum(path.stat().st_size for path in (FOLDER / name).iterdir()) // 1024
    print(f"{name}: seed {seed}, {kilobytes} KB")


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        make(name)


if __name__ == "__main__":
    main()
