"""Writes the GGUF files of tests/golden/gguf, with gguf-py, and what other software reads in them.

    .venv/bin/python tests/golden/make_gguf_fixtures.py [CASE ...]

quants/        one tensor of each type, quantised by gguf-py or, for K-quants, made of random blocks; expected.safetensors
               holds what gguf.quants.dequantize makes of them
CASE/          a tiny model and what transformers computes with its dequantised weights, as in make_model_fixtures.py;
               for architectures that transformers loads from GGUF itself, the script checks that it reads the same
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from make_model_fixtures import LENGTH, MARGIN, PROMPT, Blocks, greedy, randomise, telling
from model_cases import BASE, llama3, rope
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

FOLDER = Path(__file__).parent / "gguf"
ALL_TYPES = [
    Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K,
    Type.Q6_K, Type.MXFP4,
]  # fmt: skip


# --- tensors ---------------------------------------------------------------------------------------------------------


def random_blocks(shape: tuple[int, ...], kind: Type, rng: np.random.Generator) -> np.ndarray:
    """Bytes of K-quant blocks: gguf-py reads but does not write them. Scales give weights of about 0.1."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // block, size), dtype=np.uint8)
    halves = {Type.Q4_K: [(0, 3e-4), (2, 2e-3)], Type.Q5_K: [(0, 1.5e-4), (2, 2e-3)], Type.Q6_K: [(208, 5e-5)]}[kind]
    for at, spread in halves:
        values = (rng.standard_normal(len(blocks)) * spread).astype(np.float16)
        blocks[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(*shape[:-1], shape[-1] // block * size)


def store(values: np.ndarray, kind: Type, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a tensor is in the file, and the float32 values that it then has."""
    if kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        stored = random_blocks(values.shape, kind, rng)
    else:
        stored = gguf.quants.quantize(values.astype(np.float32), kind)
    return stored, gguf.quants.dequantize(stored, kind).reshape(values.shape).astype(np.float32)


def add(writer: gguf.GGUFWriter, name: str, stored: np.ndarray, kind: Type) -> None:
    plain = kind in (Type.F32, Type.F16)
    writer.add_tensor(name, np.ascontiguousarray(stored), raw_dtype=None if plain else kind)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_quants() -> None:
    folder = FOLDER / "quants"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "model.gguf", "quants")
    expected = {}
    for kind in ALL_TYPES:
        block = gguf.GGML_QUANT_SIZES[kind][0]
        # 640 is a row of gemma3-270m: no multiple of a K-quant's 256, so files mix types.
        shape = (3, 2, 512) if block == 256 else (3, 640)
        values = rng.standard_normal(shape) * np.exp(rng.uniform(-12, 6, shape[:-1]))[..., None]
        stored, expected[kind.name] = store(values, kind, rng)
        add(writer, kind.name, stored, kind)
    finish(writer)
    save_file({name: torch.from_numpy(values) for name, values in expected.items()}, folder / "expected.safetensors")
    print(f"quants: {len(expected)} types")


# --- models ----------------------------------------------------------------------------------------------------------

SMALL = BASE | {"num_hidden_layers": 2, "intermediate_size": 256}
TYPES = {"token_embd": Type.Q8_0, "output": Type.Q8_0, "attn": Type.Q8_0, "ffn": Type.Q5_1, "ffn_gate_inp": Type.F32}
EXPERTS = BASE | {"num_hidden_layers": 2, "intermediate_size": 32, "num_experts": 5, "num_experts_per_tok": 2}
# name: (config class, its arguments, GGUF architecture, types by GGUF tensor: the longest prefix counts)
CASES = {
    # As SmolLM2 comes: Q4_1, tied Q8_0 embedding.
    "llama": (
        LlamaConfig,
        SMALL | {"tie_word_embeddings": True, "intermediate_size": 96} | rope(rope_type="default", rope_theta=1e5),
        "llama",
        {"token_embd": Type.Q8_0, "attn": Type.Q4_1, "ffn": Type.Q4_1},
    ),
    "llama_mixed": (
        LlamaConfig,
        SMALL | {"head_dim": 32} | rope(rope_type="linear", factor=2.0),
        "llama",
        {
            "token_embd": Type.BF16, "output": Type.F16, "attn_q": Type.Q5_0, "attn_k": Type.Q5_1, "attn_v": Type.Q4_0,
            "attn_output": Type.Q8_0, "ffn_gate": Type.F32, "ffn_up": Type.Q5_1, "ffn_down": Type.Q6_K,
        },
    ),
    "mixtral": (
        MixtralConfig,
        SMALL | {"num_local_experts": 5, "num_experts_per_tok": 2, "rms_norm_eps": 1e-6},
        "llama",
        {
            "token_embd": Type.Q8_0, "output": Type.Q8_0, "attn": Type.Q8_0, "ffn_gate_inp": Type.F32,
            "ffn_gate_exps": Type.MXFP4, "ffn_up_exps": Type.Q4_0, "ffn_down_exps": Type.Q4_K,
        },
    ),
    "llama3": (LlamaConfig, SMALL | {"intermediate_size": 64} | llama3(low_freq_factor=1.0, high_freq_factor=4.0), "llama", TYPES),
    "qwen2": (Qwen2Config, SMALL | {"intermediate_size": 64} | rope(1e6), "qwen2", TYPES),
    "qwen2_moe": (
        Qwen2MoeConfig,
        EXPERTS | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64} | rope(),
        "qwen2moe",
        TYPES,
    ),
    "qwen3": (Qwen3Config, SMALL | {"intermediate_size": 64, "head_dim": 32} | rope(1e6), "qwen3", TYPES),
    "qwen3_moe": (
        Qwen3MoeConfig,
        EXPERTS | {"head_dim": 32, "moe_intermediate_size": 32, "norm_topk_prob": True} | rope(1e6),
        "qwen3moe",
        TYPES,
    ),
    "olmoe": (OlmoeConfig, EXPERTS | {"clip_qkv": 0.5} | rope(), "olmoe", TYPES),
    "gemma3": (
        Gemma3TextConfig,
        SMALL
        | {"num_hidden_layers": 6, "intermediate_size": 64, "head_dim": 32, "query_pre_attn_scalar": 32}
        | {"sliding_window": 8, "final_logit_softcapping": 30.0, "tie_word_embeddings": True},
        "gemma3",
        TYPES,
    ),
    "granitemoe": (
        GraniteMoeConfig,
        SMALL
        | {"intermediate_size": 32, "num_local_experts": 5, "num_experts_per_tok": 2, "attention_multiplier": 0.35}
        | {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 6.0}
        | rope(),
        "granitemoe",
        TYPES,
    ),
}  # fmt: skip


def permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows as llama.cpp's rotary positions want them: neighbours turn together."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "block_sparse_moe.router.weight": "ffn_gate_inp.weight",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps.weight",
}
# Gemma has norms on both sides of each part.
SANDWICH_NAMES = {
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}
PERMUTED = ("llama", "granitemoe")
MODEL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def parts_of(name: str, parameter: torch.Tensor, arch: str) -> list[tuple[str, torch.Tensor]]:
    """GGUF tensors that a parameter becomes; the values are views into it."""
    if name in MODEL_NAMES:
        return [(MODEL_NAMES[name], parameter)]
    _, _, layer, rest = name.split(".", 3)
    if rest.endswith(".experts.gate_up_proj"):
        gate, up = parameter.chunk(2, dim=1)
        return [(f"blk.{layer}.ffn_gate_exps.weight", gate), (f"blk.{layer}.ffn_up_exps.weight", up)]
    names = LAYER_NAMES | (SANDWICH_NAMES if arch == "gemma3" else {})
    return [(f"blk.{layer}.{names[rest]}", parameter[0] if rest == "mlp.shared_expert_gate.weight" else parameter)]


def type_of(name: str, types: dict[str, Type]) -> Type:
    stem = name.split(".")[-2]
    fitting = [prefix for prefix in types if stem == prefix or stem.startswith(prefix + "_")]
    return Type.F32 if "norm" in stem or name.endswith(".bias") else types[max(fitting, key=len)]


def quantise(model: torch.nn.Module, arch: str, types: dict[str, Type], seed: int) -> dict[str, tuple]:
    """Gives the model the values it will have after a trip through the file; returns what goes into the file."""
    rng = np.random.default_rng(seed)
    config, tensors = model.config, {}
    for parameter_name, parameter in model.named_parameters():
        for name, part in parts_of(parameter_name, parameter, arch):
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(
                name.split(".")[-2]
            )
            permuted = heads if arch in PERMUTED else None
            values = permute(part, permuted) if permuted else part
            plus = 1.0 if arch == "gemma3" and "norm" in name else 0.0  # Gemma's norms are stored as they multiply
            stored, seen = store((values + plus).numpy(), type_of(name, types), rng)
            seen = torch.from_numpy(seen) - plus
            part.copy_(unpermute(seen, permuted) if permuted else seen)
            tensors[name] = (stored, type_of(name, types))
    return tensors


def build(config, arch: str, types: dict[str, Type]) -> tuple[torch.nn.Module, dict, dict, int]:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    blocks = Blocks(model)
    if blocks.blocks:
        model.set_experts_implementation("eager")
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        randomise(model, generator, torch.float32, {})
        tensors = quantise(model, arch, types, seed)
        ids = torch.randint(3, config.vocab_size, (LENGTH,), generator=generator)
        logits = model(ids[None]).logits[0]
        routers, margin = blocks.choices(0)
        if margin < MARGIN:
            continue
        text, margin = greedy(model, blocks, ids[:PROMPT])
        expected = {
            "input_ids": ids.to(torch.int32),
            "logits": logits.contiguous(),
            "routers": torch.stack(routers) if routers else torch.zeros((0, LENGTH, 0), dtype=torch.int32),
            "greedy_ids": text.to(torch.int32),
        }
        if margin >= MARGIN and telling(blocks, expected):
            return model, expected, tensors, seed
    raise SystemExit("no seed gives clear margins")


def llama3_divisors(parameters: dict, head_dim: int) -> np.ndarray:
    """What llama3 scaling divides each frequency by: how llama.cpp's converter writes it."""
    wavelength = 2 * np.pi * parameters["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    original, factor = parameters["original_max_position_embeddings"], parameters["factor"]
    smooth = ((original / wavelength - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def write_metadata(writer: gguf.GGUFWriter, config) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_dim)
    parameters = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(parameters["rope_theta"])
    if parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    if parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(parameters, head_dim))
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if experts:
        writer.add_expert_count(experts)
    optional = {
        "num_experts_per_tok": writer.add_expert_used_count,
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": writer.add_expert_shared_feed_forward_length,
        "head_dim": writer.add_key_length,
        "clip_qkv": writer.add_clamp_kqv,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
    }
    for key, add_value in optional.items():
        if getattr(config, key, None) is not None:
            add_value(getattr(config, key))
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    writer.add_eos_token_id(config.eos_token_id)


def check_with_transformers(path: Path, expected: dict) -> None:
    """transformers reads the same model out of the file. Others it does not load or loads wrongly (the heads of qwen3)."""
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    logits = model(expected["input_ids"][None].long()).logits[0]
    difference = float((logits - expected["logits"]).abs().max())
    assert difference < 1e-4, f"{path}: transformers differs by {difference}"


@torch.no_grad()
def make(name: str) -> None:
    config_class, arguments, arch, types = CASES[name]
    config = config_class(**arguments)
    model, expected, tensors, seed = build(config, arch, types)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = gguf.GGUFWriter(folder / "model.gguf", arch)
    write_metadata(writer, config)
    for tensor, (stored, kind) in tensors.items():
        add(writer, tensor, stored, kind)
    finish(writer)
    if name in ("llama", "qwen2"):
        check_with_transformers(folder / "model.gguf", expected)
    made_by = {"transformers": transformers.__version__, "gguf": "0.19.0", "seed": str(seed)}
    save_file(expected, folder / "expected.safetensors", metadata=made_by)
    for path in folder.iterdir():
        path.chmod(0o644)
    print(f"{name}: seed {seed}, {sum(path.stat().st_size for path in folder.iterdir()) // 1024} KB")


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not sys.argv[1:]:
        make_quants()
    for name in sys.argv[1:] or CASES:
        make(name)


if __name__ == "__main__":
    main()
