"""Writes a Hugging Face folder as a GGUF file, so that llama.cpp decodes the same weights.

    .venv/bin/python experiments/benchmarks/gguf_export.py FOLDER FILE.gguf [--type f16|bf16|f32]

Norms and routers stay float32, as llama.cpp keeps them. The file has no tokenizer: benchmarks put in token ids. The
families are those whose tensors are named below.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM

# GGUF architecture by model_type.
ARCHITECTURES = {
    "llama": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "olmoe": "olmoe",
    "granitemoe": "granitemoe",
    "gemma3_text": "gemma3",
}


def add(writer: gguf.GGUFWriter, name: str, stored: np.ndarray, kind: Type) -> None:
    plain = kind in (Type.F32, Type.F16)
    writer.add_tensor(name, np.ascontiguousarray(stored), raw_dtype=None if plain else kind)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows as llama.cpp's rotary positions want them: neighbours turn together."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


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
    for parameter_name, parameter in model.named_parameters():
        for name, part in parts_of(parameter_name, parameter.detach(), arch):
            stem = name.split(".")[-2]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stem)
            values = permute(part, heads) if heads and arch in PERMUTED else part
            plus = 1.0 if arch == "gemma3" and "norm" in name else 0.0
            keep = values.dim() == 1 or stem.startswith("ffn_gate_inp")
            stored = gguf.quants.quantize((values.float() + plus).numpy(), Type.F32 if keep else kind)
            add(writer, name, stored, Type.F32 if keep else kind)
    finish(writer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=("f16", "bf16", "f32"), default="f16")
    args = parser.parse_args()
    with torch.no_grad():
        export(args.folder, args.file, Type[args.type.upper()])


if __name__ == "__main__":
    main()
