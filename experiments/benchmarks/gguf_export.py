"""Writes a Hugging Face folder as a GGUF file, so that llama.cpp decodes the same weights.

    .venv/bin/python experiments/benchmarks/gguf_export.py FOLDER FILE.gguf [--type f16|bf16|f32]

Norms and routers stay float32, as llama.cpp keeps them. The file has no tokenizer: benchmarks put in token ids. The
families are those of gguf_names.py.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf_names import ARCHITECTURES, PERMUTED, parts_of, permute, weights_of
from transformers import AutoModelForCausalLM


def add(writer: gguf.GGUFWriter, name: str, stored: np.ndarray, kind: Type) -> None:
    plain = kind in (Type.F32, Type.F16)
    writer.add_tensor(name, np.ascontiguousarray(stored), raw_dtype=None if plain else kind)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_divisors(parameters: dict, head_dim: int) -> np.ndarray:
    """What llama3 scaling divides each frequency by: how llama.cpp's converter writes it."""
    wavelength = 2 * np.pi * parameters["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    original, factor = parameters["original_max_position_embeddings"], parameters["factor"]
    smooth = ((original / wavelength - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def write_rope(writer: gguf.GGUFWriter, config, width: int) -> None:
    parameters = config.rope_parameters.get("full_attention", config.rope_parameters)
    kind, theta = parameters["rope_type"], parameters["rope_theta"]
    if kind == "dynamic" and "alpha" in parameters:  # Hunyuan: worked out
        theta *= parameters["alpha"] ** (width / (width - 2))
    writer.add_rope_dimension_count(int(width * parameters.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(theta)
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(parameters["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(parameters.get("beta_fast", 32.0))
        writer.add_rope_scaling_yarn_beta_slow(parameters.get("beta_slow", 1.0))
        if "mscale_all_dim" in parameters:  # llama.cpp's converter writes a tenth of it
            writer.add_rope_scaling_yarn_log_mul(0.1 * parameters["mscale_all_dim"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(parameters, width))
    if kind == "longrope":
        original = parameters["original_max_position_embeddings"]
        stretch = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(original)))
        for name in ("long", "short"):
            factors = np.array(parameters[f"{name}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors)


def write_latent(writer: gguf.GGUFWriter, config) -> None:
    """Latent attention is written as one wide key head; the widths of what it stands for have keys of their own."""
    if config.q_lora_rank is not None:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
    writer.add_value_length(config.kv_lora_rank)
    writer.add_key_length_mla(config.qk_nope_head_dim + config.qk_rope_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    sigmoid = config.model_type == "deepseek_v3"
    if sigmoid and config.norm_topk_prob:
        writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID if sigmoid else gguf.ExpertGatingFuncType.SOFTMAX)
    if getattr(config, "n_group", None):
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)


def write_mixture(writer: gguf.GGUFWriter, config) -> None:
    """What the mixtures of DeepSeek-V3 behind other attention and those of ERNIE and Hunyuan have keys for."""
    kind = config.model_type
    if kind in ("glm4_moe", "dots1", "minimax_m2"):
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if kind in ("glm4_moe", "dots1"):
        writer.add_leading_dense_block_count(config.first_k_dense_replace)
        writer.add_expert_shared_count(config.n_shared_experts)
        writer.add_expert_weights_scale(config.routed_scaling_factor)
        writer.add_expert_weights_norm(config.norm_topk_prob)
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)
    if kind == "ernie4_5_moe":
        writer.add_expert_used_count(config.moe_k)
        writer.add_interleave_moe_layer_step(config.moe_layer_interval)
        writer.add_leading_dense_block_count(config.moe_layer_start_index)
        writer.add_expert_shared_count(config.moe_num_shared_experts)
        writer.add_expert_shared_feed_forward_length(config.moe_num_shared_experts * config.moe_intermediate_size)
    if kind == "hunyuan_v1_moe":
        writer.add_expert_shared_count(1)
        writer.add_expert_shared_feed_forward_length(config.intermediate_size)
    if kind in ("hunyuan_v1_moe", "minimax_m2") and not hasattr(config, "moe_intermediate_size"):
        writer.add_expert_feed_forward_length(config.intermediate_size)


def one_for_all(value):
    """A number for all layers, or a list of one for each, all the same."""
    return value[0] if isinstance(value, list) else value


def first_of(config, *keys):
    return next((value for key in keys if (value := getattr(config, key, None)) is not None), None)


def write_metadata(writer: gguf.GGUFWriter, config) -> None:
    latent = config.model_type in ("deepseek_v2", "deepseek_v3")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(first_of(config, "intermediate_size_mlp", "intermediate_size"))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(1 if latent else config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    write_rope(writer, config, config.qk_rope_head_dim if latent else head_dim)
    if latent:
        write_latent(writer, config)
    elif getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if experts := first_of(config, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        writer.add_expert_count(experts)
    write_mixture(writer, config)
    if config.model_type in ("gpt_oss", "llama4_text"):
        writer.add_expert_feed_forward_length(config.intermediate_size)
    if config.model_type in ("gemma3_text", "gpt_oss", "phimoe"):
        writer.add_sliding_window(config.sliding_window or 0)
    optional = {
        "num_experts_per_tok": writer.add_expert_used_count,
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": writer.add_expert_shared_feed_forward_length,
        "interleave_moe_layer_step": writer.add_interleave_moe_layer_step,
        "clip_qkv": writer.add_clamp_kqv,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
        "attention_multiplier": writer.add_attention_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "logits_scaling": writer.add_logit_scale,
    }
    for key, add_value in optional.items():
        if getattr(config, key, None) is not None:
            add_value(one_for_all(getattr(config, key)))
    writer.add_eos_token_id(config.eos_token_id)


def export(folder: Path, file: Path, kind: Type) -> None:
    """Tensor by tensor; the model itself is in memory once, in its own type."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    config = model.config
    if config.model_type not in ARCHITECTURES:
        raise SystemExit(f"{folder}: model_type {config.model_type!r}; known are {', '.join(ARCHITECTURES)}")
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(file, arch)
    write_metadata(writer, config)
    writer.add_tokenizer_model("none")
    for parameter_name, parameter in weights_of(model):
        for name, part in parts_of(parameter_name, parameter.detach(), config, arch):
            stem = name.split(".")[-2]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stem)
            values = permute(part, heads) if heads and arch in PERMUTED else part
            plus = 1.0 if arch == "gemma3" and "norm" in name else 0.0
            keep = values.dim() == 1 or name.endswith(".bias") or stem.startswith("ffn_gate_inp")
            stored = gguf.quants.quantize((values.float() + plus).numpy(), Type.F32 if keep else kind)
            add(writer, name, stored, Type.F32 if keep else kind)
    finish(writer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=("f16", "bf16", "f32"), default="f16")
    args = parser.parse_args()
    if not (args.folder / "config.json").is_file():
        parser.error(f"{args.folder} has no config.json; give a Hugging Face folder")
    with torch.no_grad():
        export(args.folder, args.file, Type[args.type.upper()])


if __name__ == "__main__":
    main()
