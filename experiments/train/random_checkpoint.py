"""Writes a seeded random checkpoint in the Hugging Face layout, to measure speed on shapes nobody has trained.

    .venv/bin/python experiments/train/random_checkpoint.py M8 /tmp/m8

Weights are normal with the deviation that keeps activations of size 1, so routing is spread and nothing overflows. The text
such a model writes means nothing. The folder holds config.json and model.safetensors; --tokenizer copies a tokenizer of the
same vocabulary beside them.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Shape = tuple[int, ...]

COMMON = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 2048,
}

# What all Qwen3 mixtures have.
QWEN3_MOE = {
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "output_router_logits": False,
}

MODELS = {
    "M8": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "output_router_logits": False,
    },
    "Q64": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 768,
        "intermediate_size": 384,
        "moe_intermediate_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        **QWEN3_MOE,
    },
    # A few layers (--layers) of these stand for the models of these names.
    "mixtral-8x7b": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": None,
        "output_router_logits": False,
    },
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        **QWEN3_MOE,
    },
    "S1": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
    },
    "D1": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
    },
}


def layer_tensors(config: dict, prefix: str) -> Iterator[tuple[str, Shape]]:
    hidden, head_dim = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    yield f"{prefix}.input_layernorm.weight", (hidden,)
    yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
    for name, shape in {
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
    }.items():
        yield f"{prefix}.self_attn.{name}_proj.weight", shape
    if config["model_type"] == "qwen3_moe":
        yield f"{prefix}.self_attn.q_norm.weight", (head_dim,)
        yield f"{prefix}.self_attn.k_norm.weight", (head_dim,)
    if config["model_type"] == "llama":
        parts, width, experts = f"{prefix}.mlp", config["intermediate_size"], [""]
        names = ("gate_proj", "up_proj", "down_proj")
    elif config["model_type"] == "mixtral":
        parts, width = f"{prefix}.block_sparse_moe", config["intermediate_size"]
        experts, names = [f".experts.{e}" for e in range(config["num_local_experts"])], ("w1", "w3", "w2")
        yield f"{parts}.gate.weight", (len(experts), hidden)
    else:
        parts, width = f"{prefix}.mlp", config["moe_intermediate_size"]
        experts, names = [f".experts.{e}" for e in range(config["num_experts"])], ("gate_proj", "up_proj", "down_proj")
        yield f"{parts}.gate.weight", (len(experts), hidden)
    for expert in experts:
        for name, shape in zip(names, ((width, hidden), (width, hidden), (hidden, width)), strict=True):
            yield f"{parts}{expert}.{name}.weight", shape


def tensors(config: dict) -> Iterator[tuple[str, Shape]]:
    table = (config["vocab_size"], config["hidden_size"])
    yield "model.embed_tokens.weight", table
    for layer in range(config["num_hidden_layers"]):
        yield from layer_tensors(config, f"model.layers.{layer}")
    yield "model.norm.weight", (config["hidden_size"],)
    yield "lm_head.weight", table


def values(shape: Shape, random: np.random.Generator) -> np.ndarray:
    """bfloat16 bits: ones for norms, normal with deviation 1 / sqrt(inputs) for matrices."""
    if len(shape) == 1:
        return np.full(shape, 0x3F80, np.uint16)
    drawn = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
    return (drawn.view(np.uint32) >> 16).astype(np.uint16)


def write(config: dict, folder: Path, seed: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    header: dict[str, dict] = {}
    end = 0
    for name, shape in tensors(config):
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in tensors(config):
            file.write(values(shape, random).tobytes())
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, help="layers, where not all are wanted")
    parser.add_argument("--vocab", type=int, default=COMMON["vocab_size"], help="tokens of the vocabulary")
    parser.add_argument("--tokenizer", type=Path, help="folder whose tokenizer files are copied")
    args = parser.parse_args()
    config = COMMON | MODELS[args.model] | {"vocab_size": args.vocab}
    if args.layers:
        config["num_hidden_layers"] = args.layers
    size = write(config, args.folder, args.seed)
    if args.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(args.tokenizer / name, args.folder / name)
    print(f"{args.folder}: {args.model}, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
