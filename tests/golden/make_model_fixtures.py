"""Writes the tiny checkpoints of tests/golden/models and what transformers computes with them.

    .venv/bin/python tests/golden/make_model_fixtures.py [CASE ...]

Every tensor is random (freshly initialised norms are 1 and biases 0: a loader that ignores them would pass), sizes are
odd, and seeds are skipped until every router choice and every greedy token has a clear margin. Mixtures of experts are
first checked against naive_moe.py. Beside each checkpoint lies expected.safetensors:
    input_ids [T], logits [T, V] float32, routers [MoE layers, T, K] chosen experts by rank
    greedy_ids [12 + 64]: the first 12 input ids and 64 tokens decoded greedily from them
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import naive_moe
import quantize
import torch
import transformers
from model_cases import CASES
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

FOLDER = Path(__file__).parent / "models"
LENGTH, PROMPT, GREEDY = 37, 12, 64
MARGIN = 1e-3


def spread_of(name: str, tied: bool, special: dict) -> float:
    """Standard deviation of a tensor's values."""
    for ending, spread in special.items():
        if name.endswith(ending):
            return spread
    if name.endswith(("bias", "sinks")):
        return 0.5
    if "lm_head" in name or "embed" in name:
        # A tied embedding must be small against what the layers add, or every token predicts itself.
        return 0.05 if tied else 0.3
    routers = ("mlp.gate.weight", "mlp.gate.wg.weight", "router.weight", "expert_gate.weight")
    return 1.0 if name.endswith(routers) else 0.08


def randomise(model: torch.nn.Module, generator: torch.Generator, storage: torch.dtype, how: dict) -> dict:
    """Values every one of which matters, exact in the storage type. Returns those tensors that are stored compressed."""
    config = model.config
    special = {"e_score_correction_bias": 0.3} | how.get("spread", {})
    if naive_moe.ROUTERS.get(config.model_type) in naive_moe.NARROW:
        special["mlp.gate.weight"] = 0.3
    lowest_norm = -0.5 if config.model_type == "gemma3_text" else 0.5
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("correction_bias")]
    for name, parameter in [*model.named_parameters(), *buffers]:
        if "norm" in name and not name.endswith("bias"):
            value = torch.rand(parameter.shape, generator=generator) + lowest_norm
        else:
            spread = spread_of(name, config.tie_word_embeddings, special)
            value = torch.randn(parameter.shape, generator=generator) * spread
        parameter.copy_(value.to(storage).float())
    return quantize.compress(model, how.get("quantize"), generator)


class Blocks:
    """The mixtures of experts of a model, and what went through them in the last pass."""

    def __init__(self, model: torch.nn.Module):
        self.config = model.config
        self.blocks = [module for module in model.modules() if naive_moe.is_moe(module)]
        self.passed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for index, block in enumerate(self.blocks):
            block.register_forward_hook(lambda _, inputs, outputs, index=index: self.keep(index, inputs[0], outputs))

    def keep(self, index: int, inputs: torch.Tensor, outputs) -> None:
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        width = inputs.shape[-1]
        self.passed[index] = (inputs.reshape(-1, width), outputs.reshape(-1, width))

    def choices(self, first: int) -> tuple[list[torch.Tensor], float]:
        """Experts chosen per layer for rows [first, T), and the smallest margin of a choice."""
        layers, margin = [], float("inf")
        for index, block in enumerate(self.blocks):
            rows = [naive_moe.route(block, self.config, row) for row in self.passed[index][0][first:].double()]
            layers.append(torch.tensor([chosen for chosen, _, _ in rows], dtype=torch.int32))
            margin = min(margin, *(gap for _, _, gap in rows))
        return layers, margin

    def check(self) -> None:
        for index, block in enumerate(self.blocks):
            inputs, outputs = self.passed[index]
            naive = naive_moe.forward(block, self.config, inputs)
            error = float((naive - outputs).abs().max() / outputs.abs().max().clamp(min=1.0))
            if error > 1e-5:
                raise SystemExit(f"transformers {transformers.__version__}: layer {index} is off by {error}")


def greedy(model: torch.nn.Module, blocks: Blocks, prompt: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The prompt and GREEDY tokens after it, and the smallest margin of a greedy token or a router choice."""
    ids, margin = prompt, float("inf")
    for _ in range(GREEDY):
        logits = model(ids[None]).logits[0]
        top = logits[-1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]), blocks.choices(len(ids) - 1)[1])
        if margin < MARGIN:
            break
        ids = torch.cat((ids, top.indices[:1]))
    return ids, margin


def telling(blocks: Blocks, expected: dict) -> bool:
    """Whether wrong code would show: experts are all used, the greedy text is no short loop."""
    used = all(
        len(layer.unique()) == len(block.experts.down_proj)
        for layer, block in zip(expected["routers"], blocks.blocks, strict=True)
    )
    return used and len(expected["greedy_ids"][PROMPT:].unique()) >= 8


def build(config, storage: torch.dtype, how: dict) -> tuple[torch.nn.Module, dict, dict, int]:
    """The model, what it computes, its compressed tensors, and the seed of all that."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    blocks = Blocks(model)
    if blocks.blocks and config.model_type != "llama4_text":  # which has one implementation
        model.set_experts_implementation("eager")
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        compressed = randomise(model, generator, storage, how)
        ids = torch.randint(3, config.vocab_size, (LENGTH,), generator=generator)
        logits = model(ids[None]).logits[0]
        routers, margin = blocks.choices(0)
        if margin < MARGIN:
            continue
        blocks.check()
        text, margin = greedy(model, blocks, ids[:PROMPT])
        if margin < MARGIN:
            continue
        expected = {
            "input_ids": ids.to(torch.int32),
            "logits": logits.contiguous(),
            "routers": torch.stack(routers) if routers else torch.zeros((0, LENGTH, 0), dtype=torch.int32),
            "greedy_ids": text.to(torch.int32),
        }
        if telling(blocks, expected):
            return model, expected, compressed, seed
    raise SystemExit("no seed gives clear margins")


def old_rope(parameters: dict) -> dict:
    """The keys that stood for rope_parameters in transformers 4."""
    old = {}
    if "full_attention" in parameters:  # Gemma 3
        old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    old["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    if "partial_rotary_factor" in parameters:
        old["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    key = "rope_type" if "rope_local_base_freq" in old else "type"
    old["rope_scaling"] = None if kind == "default" else {key: kind} | parameters
    return old


def old_spelling(config: dict) -> dict:
    """config.json as transformers 4 wrote it."""
    old = old_rope(config.pop("rope_parameters"))
    old["torch_dtype"] = config.pop("dtype")
    return config | old | {"transformers_version": "4.46.0"}


def save_config(path: Path, how: dict) -> None:
    config = json.loads(path.read_text())
    config = old_spelling(config) if how.get("old") else config
    config = {key: value for key, value in config.items() if key not in how.get("drop", ())}
    config |= how.get("add", {}) | quantize.config(how.get("quantize"))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(folder: Path, model: torch.nn.Module, compressed: dict, storage: torch.dtype, how: dict) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    size = "100KB" if how.get("shards") else "1GB"
    model.to(storage).save_pretrained(folder, max_shard_size=size, save_original_format=not how.get("fused", False))
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_config(folder / "config.json", how)
    if not (how.get("bare") or how.get("extra") or compressed):
        return
    weights = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(weights).items() if f"{name}_blocks" not in compressed}
    tensors |= compressed
    if "extra" in how:
        tensors[how["extra"]] = torch.ones(model.config.hidden_size, dtype=storage)
    if how.get("bare"):
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def check_saved(folder: Path, expected: dict) -> None:
    """That transformers computes the same with the folder: with the keys dropped, added and spelled anew."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    if any(naive_moe.is_moe(module) for module in model.modules()) and model.config.model_type != "llama4_text":
        model.set_experts_implementation("eager")
    error = float((model(expected["input_ids"][None].long()).logits[0] - expected["logits"]).abs().max())
    if error > 1e-4:
        raise SystemExit(f"{folder.name}: transformers reads the saved folder differently, by {error}")


@torch.no_grad()
def make(name: str) -> None:
    config_class, arguments, storage, how = CASES[name]
    config = config_class(**arguments)
    model, expected, compressed, seed = build(config, storage, how)
    save(FOLDER / name, model, compressed, storage, how)
    for path in (FOLDER / name).iterdir():
        path.chmod(0o644)
    if "quantize" not in how and not how.get("release"):  # the first transformers loads only beside packages for GPUs
        check_saved(FOLDER / name, expected)
    made_by = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "seed": str(seed),
    }
    save_file(expected, FOLDER / name / "expected.safetensors", metadata=made_by)
    kilobytes = sum(path.stat().st_size for path in (FOLDER / name).iterdir()) // 1024
    print(f"{name}: seed {seed}, {kilobytes} KB", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        make(name)


if __name__ == "__main__":
    main()
