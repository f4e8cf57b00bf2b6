"""Writes the GGUF files of tests/golden/gguf, with gguf-py, and what other software reads in them.

    .venv/bin/python tests/golden/make_gguf_fixtures.py [CASE ...]

quants/        one tensor of each type, quantised by gguf-py or, for K-quants, made of random blocks; expected.safetensors
               holds what gguf.quants.dequantize makes of them
CASE/          a tiny model and what transformers computes with its dequantised weights, as in make_model_fixtures.py;
               for architectures that transformers loads from GGUF itself, the script checks that it reads the same
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from make_model_fixtures import LENGTH, MARGIN, PROMPT, Blocks, greedy, randomise, telling
from model_cases import BASE, LIVELY, UNGROUPED, llama3, longrope, rope, yarn
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    Dots1Config,
    Gemma3TextConfig,
    Glm4MoeConfig,
    GptOssConfig,
    GraniteMoeConfig,
    Llama4TextConfig,
    LlamaConfig,
    MixtralConfig,
    OlmoeConfig,
    PhimoeConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments/benchmarks"))
from gguf_export import add, finish, write_metadata  # noqa: E402
from gguf_names import PERMUTED, parts_of, permute, weights_of  # noqa: E402

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
        stored = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), kind)
    return stored, gguf.quants.dequantize(stored, kind).reshape(values.shape).astype(np.float32)


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
TYPES = {"token_embd": Type.Q8_0, "output": Type.Q8_0, "attn": Type.Q8_0, "ffn": Type.Q5_1}
EXPERTS = BASE | {"num_hidden_layers": 2, "intermediate_size": 32, "num_experts": 5, "num_experts_per_tok": 2}
LOCAL_EXPERTS = SMALL | {"intermediate_size": 32, "num_local_experts": 5, "num_experts_per_tok": 2}
LATENT = SMALL | {
    "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": None, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
    "v_head_dim": 32, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
    "intermediate_size": 64, "first_k_dense_replace": 1, "num_hidden_layers": 3,
}  # fmt: skip
LATENT_TYPES = TYPES | {"attn_k_b": Type.Q8_0, "attn_v_b": Type.Q5_0, "attn_kv_a_mqa": Type.Q8_0}
PHIMOE_FACTOR = math.sqrt(1 + math.log(256 / 64) / math.log(64))  # the only one that GGUF can say
# name: (config class, its arguments, GGUF architecture, types by GGUF tensor: the longest prefix counts; spread of
# tensors as in model_cases.py)
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
    # As the releases come: experts in mxfp4, with biases.
    "gpt_oss": (
        GptOssConfig,
        LOCAL_EXPERTS
        | {"head_dim": 32, "sliding_window": 8, "num_experts_per_tok": 3, "num_hidden_layers": 3}
        | yarn(original_max_position_embeddings=32, truncate=False),
        "gpt-oss",
        TYPES | {"attn_sinks": Type.F32, "ffn": Type.MXFP4},
        {"gate_up_proj": 0.6},
    ),
    "deepseek_v2": (
        DeepseekV2Config,
        LATENT
        | {"n_shared_experts": 2, "routed_scaling_factor": 1.7, "rms_norm_eps": 1e-6}
        | yarn(original_max_position_embeddings=64, mscale=0.7, mscale_all_dim=0.7),
        "deepseek2",
        LATENT_TYPES,
        LIVELY,
    ),
    "deepseek_v2_groups": (
        DeepseekV2Config,
        LATENT
        | {"n_shared_experts": 1, "q_lora_rank": 32, "n_group": 4, "topk_group": 2}
        | {"topk_method": "group_limited_greedy"},
        "deepseek2",
        LATENT_TYPES,
        LIVELY,
    ),
    "deepseek_v3": (
        DeepseekV3Config,
        LATENT
        | {"q_lora_rank": 32, "n_group": 4, "topk_group": 2, "n_shared_experts": 1, "routed_scaling_factor": 2.5}
        | yarn(original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0),
        "deepseek2",
        LATENT_TYPES,
        LIVELY,
    ),
    "glm4_moe": (
        Glm4MoeConfig,
        SMALL
        | {"intermediate_size": 64, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
        | {"head_dim": 32, "use_qk_norm": True, "attention_bias": True, "routed_scaling_factor": 1.5}
        | rope(rope_type="default", partial_rotary_factor=0.5),
        "glm4moe",
        TYPES | {"exp_probs_b": Type.F32},
        UNGROUPED,
    ),
    # GGUF has no windows for it.
    "dots1": (
        Dots1Config,
        SMALL
        | {"intermediate_size": 64, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
        | {"first_k_dense_replace": 1, "n_shared_experts": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.5}
        | {"sliding_window": None},
        "dots1",
        TYPES | {"exp_probs_b": Type.F32},
        UNGROUPED,
    ),
    # GGUF cannot say how long chunks are, where temperature begins or which layers know no positions.
    "llama4": (
        Llama4TextConfig,
        LOCAL_EXPERTS
        | {"num_hidden_layers": 4, "head_dim": 32, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2}
        | {"num_experts_per_tok": 1}
        | llama3(low_freq_factor=1.0, high_freq_factor=4.0),
        "llama4",
        TYPES,
        {"router.weight": 0.3},
    ),
    "phimoe": (
        PhimoeConfig,
        LOCAL_EXPERTS
        | {"attention_bias": True, "lm_head_bias": True}
        | longrope(8, 64, short_mscale=PHIMOE_FACTOR, long_mscale=PHIMOE_FACTOR),
        "phimoe",
        TYPES,
        LIVELY | {"lm_head.bias": 0.2},
    ),
}  # fmt: skip


def unpermute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def type_of(name: str, types: dict[str, Type]) -> Type:
    stem = name.split(".")[-2]
    fitting = [prefix for prefix in types if stem == prefix or stem.startswith(prefix + "_")]
    return Type.F32 if "norm" in stem or name.endswith(".bias") else types[max(fitting, key=len)]


def quantise(model: torch.nn.Module, arch: str, types: dict[str, Type], seed: int) -> dict[str, tuple]:
    """Gives the model the values it will have after a trip through the file; returns what goes into the file."""
    rng = np.random.default_rng(seed)
    config, tensors = model.config, {}
    for parameter_name, parameter in weights_of(model):
        for name, part in parts_of(parameter_name, parameter, config, arch):
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


def build(config, arch: str, types: dict[str, Type], spread: dict) -> tuple[torch.nn.Module, dict, dict, int]:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    blocks = Blocks(model)
    if blocks.blocks and config.model_type != "llama4_text":  # which has one implementation
        model.set_experts_implementation("eager")
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        randomise(model, generator, torch.float32, {"spread": spread})
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


def check_with_transformers(path: Path, expected: dict) -> None:
    """transformers reads the same model out of the file. Others it does not load or loads wrongly (the heads of qwen3)."""
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    logits = model(expected["input_ids"][None].long()).logits[0]
    difference = float((logits - expected["logits"]).abs().max())
    assert difference < 1e-4, f"{path}: transformers differs by {difference}"


@torch.no_grad()
def make(name: str) -> None:
    config_class, arguments, arch, types, *spread = CASES[name]
    config = config_class(**arguments)
    model, expected, tensors, seed = build(config, arch, types, *(spread or [{}]))
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
