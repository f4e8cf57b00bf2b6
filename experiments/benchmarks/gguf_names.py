"""What GGUF calls the tensors of Hugging Face models, and how it lays them out."""

from __future__ import annotations

import torch

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
    "gpt_oss": "gpt-oss",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "llama4_text": "llama4",
    "phimoe": "phimoe",
    "glm4_moe": "glm4moe",
    "dots1": "dots1",
    "minimax_m2": "minimax-m2",
    "ernie4_5_moe": "ernie4_5-moe",
    "hunyuan_v1_moe": "hunyuan-moe",
}
PERMUTED = ("llama", "granitemoe")
MODEL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "model.norm.bias": "output_norm.bias",
    "lm_head.weight": "output.weight",
    "lm_head.bias": "output.bias",
}
# Modules; .weight and .bias follow.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "block_sparse_moe.router": "ffn_gate_inp",
    "mlp.gate.wg": "ffn_gate_inp",
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
}
# Where an architecture says something else: Gemma has norms on both sides of each part.
OWN_NAMES = {
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    "gpt-oss": {"post_attention_layernorm": "post_attention_norm"},
    "glm4moe": {"post_attention_layernorm": "post_attention_norm"},
}


def permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows as llama.cpp's rotary positions want them: neighbours turn together."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def experts_of(tensor: str, parameter: torch.Tensor, arch: str) -> list[tuple[str, torch.Tensor]]:
    """Fused experts. gpt-oss and Llama 4 keep them by inputs, gpt-oss with gate and up in turns."""
    kind = "bias" if tensor.endswith("_bias") else "weight"
    if kind == "weight" and arch in ("gpt-oss", "llama4"):
        parameter = parameter.transpose(1, 2)
    if tensor.startswith("down_proj"):
        return [(f"ffn_down_exps.{kind}", parameter)]
    gate, up = (parameter[:, ::2], parameter[:, 1::2]) if arch == "gpt-oss" else parameter.chunk(2, dim=1)
    return [(f"ffn_gate_exps.{kind}", gate), (f"ffn_up_exps.{kind}", up)]


def latent_parts(parameter: torch.Tensor, config) -> list[tuple[str, torch.Tensor]]:
    """kv_b_proj as current files have it: the keys' part transposed, the values' part beside it."""
    heads = parameter.reshape(config.num_attention_heads, -1, parameter.shape[-1])
    keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
    return [("attn_k_b.weight", keys.transpose(1, 2)), ("attn_v_b.weight", values)]


def layer_parts(name: str, parameter: torch.Tensor, config, arch: str) -> list[tuple[str, torch.Tensor]]:
    name = name.replace("feed_forward.", "mlp.").replace("shared_experts.", "shared_expert.")
    name = name.replace("shared_mlp.", "shared_expert.")
    if ".experts." in name:
        return experts_of(name.rpartition(".")[2], parameter, arch)
    module, _, kind = name.rpartition(".")
    if module == "self_attn.kv_b_proj":
        return latent_parts(parameter, config)
    if name == "self_attn.sinks":
        return [("attn_sinks.weight", parameter)]
    if kind == "e_score_correction_bias":
        return [("exp_probs_b.bias", parameter.flatten())]
    own = (LAYER_NAMES | OWN_NAMES.get(arch, {}))[module]
    return [(f"{own}.{kind}", parameter[0] if module == "mlp.shared_expert_gate" else parameter)]


def parts_of(name: str, parameter: torch.Tensor, config, arch: str) -> list[tuple[str, torch.Tensor]]:
    """GGUF tensors that a parameter becomes; the values are views into it."""
    if name in MODEL_NAMES:
        return [(MODEL_NAMES[name], parameter)]
    _, _, layer, rest = name.split(".", 3)
    return [(f"blk.{layer}.{part}", values) for part, values in layer_parts(rest, parameter, config, arch)]


def weights_of(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("correction_bias")]
    return [*model.named_parameters(), *buffers]
