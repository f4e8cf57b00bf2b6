"""specmoe.logits against transformers on models made here and now: sizes and values no fixture has."""

import json

import numpy as np
import pytest
import torch
import transformers

import specmoe

BASE = {
    "vocab_size": 157,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DENSE = {
    "hidden_size": 60,
    "intermediate_size": 42,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
}
EXPERTS = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 18}
LOCAL_EXPERTS = {"num_local_experts": 7, "num_experts_per_tok": 3, "intermediate_size": 18}
ROUTED = {
    "n_routed_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 18,
    "first_k_dense_replace": 1,
}
LATENT = ROUTED | {
    "kv_lora_rank": 14,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 12,
}
CASES = {
    "mixtral": (
        transformers.MixtralConfig,
        {
            "hidden_size": 80,
            "intermediate_size": 36,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 20,
            "num_local_experts": 7,
            "num_experts_per_tok": 3,
        },
    ),
    "mixtral_window": (
        transformers.MixtralConfig,
        {
            "hidden_size": 48,
            "intermediate_size": 17,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "sliding_window": 9,
            "tie_word_embeddings": True,
        },
    ),
    "llama": (
        transformers.LlamaConfig,
        {
            "hidden_size": 72,
            "intermediate_size": 50,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 200.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 3.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "llama_bias": (
        transformers.LlamaConfig,
        {
            "hidden_size": 40,
            "intermediate_size": 70,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "attention_bias": True,
            "mlp_bias": True,
            "rms_norm_eps": 1e-3,
        },
    ),
    "mistral": (
        transformers.MistralConfig,
        DENSE | {"sliding_window": 11, "num_key_value_heads": 2, "head_dim": 18},
    ),
    "qwen2": (
        transformers.Qwen2Config,
        DENSE | {"use_sliding_window": True, "sliding_window": 13, "max_window_layers": 2, "num_hidden_layers": 3},
    ),
    "qwen3": (transformers.Qwen3Config, DENSE | {"head_dim": 22, "num_key_value_heads": 1, "attention_bias": True}),
    "gemma3_text": (
        transformers.Gemma3TextConfig,
        DENSE
        | {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
            "sliding_window": 9,
            "head_dim": 16,
            "query_pre_attn_scalar": 30,
            "final_logit_softcapping": 2.5,
            "num_key_value_heads": 2,
        },
    ),
    "qwen2_moe": (
        transformers.Qwen2MoeConfig,
        DENSE | EXPERTS | {"shared_expert_intermediate_size": 30, "decoder_sparse_step": 2, "norm_topk_prob": True},
    ),
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,
        DENSE | EXPERTS | {"head_dim": 10, "norm_topk_prob": True, "num_key_value_heads": 3},
    ),
    "olmoe": (transformers.OlmoeConfig, DENSE | EXPERTS | {"intermediate_size": 18, "clip_qkv": 1.1}),
    "granitemoe": (
        transformers.GraniteMoeConfig,
        DENSE
        | LOCAL_EXPERTS
        | {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.0,
        },
    ),
    "gpt_oss": (
        transformers.GptOssConfig,
        DENSE | LOCAL_EXPERTS | {"head_dim": 12, "sliding_window": 10, "num_key_value_heads": 2},
    ),
    "phimoe": (
        transformers.PhimoeConfig,
        DENSE | LOCAL_EXPERTS | {"num_experts_per_tok": 2, "num_key_value_heads": 2, "router_jitter_noise": 0.15},
    ),
    "deepseek_v2": (
        transformers.DeepseekV2Config,
        DENSE | LATENT | {"q_lora_rank": None, "n_shared_experts": 2, "routed_scaling_factor": 0.8},
    ),
    "deepseek_v3": (
        transformers.DeepseekV3Config,
        DENSE | LATENT | {"q_lora_rank": 26, "n_group": 3, "topk_group": 2, "first_k_dense_replace": 0},
    ),
    "glm4_moe": (
        transformers.Glm4MoeConfig,
        DENSE
        | ROUTED
        | {
            "head_dim": 24,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "use_qk_norm": True,
            "n_group": 3,
            "topk_group": 2,
            "routed_scaling_factor": 1.6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.25},
        },
    ),
    "dots1": (
        transformers.Dots1Config,
        DENSE
        | ROUTED
        | {"n_shared_experts": 1, "num_key_value_heads": 2, "sliding_window": 12, "max_window_layers": 1, "n_group": 3},
    ),
    "glm4_moe_lite": (
        transformers.Glm4MoeLiteConfig,
        DENSE | LATENT | {"q_lora_rank": 26, "n_group": 3, "topk_group": 2, "n_shared_experts": 2},
    ),
    "solar_open": (
        transformers.SolarOpenConfig,
        DENSE
        | ROUTED
        | {
            "first_k_dense_replace": 0,
            "head_dim": 14,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "n_group": 3,
            "routed_scaling_factor": 0.7,
        },
    ),
    "ernie4_5_moe": (
        transformers.Ernie4_5_MoeConfig,
        DENSE
        | {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "moe_num_experts": 9,
            "moe_k": 3,
            "moe_intermediate_size": 18,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 0,
            "moe_layer_interval": 2,
            "tie_word_embeddings": False,
        },
    ),
    "exaone_moe": (
        transformers.ExaoneMoeConfig,
        DENSE
        | EXPERTS
        | {
            "num_hidden_layers": 3,
            "head_dim": 14,
            "num_key_value_heads": 2,
            "num_experts": 9,
            "sliding_window": 12,
            "sliding_window_pattern": 3,
            "n_group": 3,
            "topk_group": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
    "hunyuan_v1_moe": (
        transformers.HunYuanMoEV1Config,
        DENSE
        | {
            "head_dim": 14,
            "num_key_value_heads": 3,
            "num_experts": 7,
            "moe_topk": 2,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 50.0, "alpha": 20.0, "factor": 1.0},
        },
    ),
    "minimax_m2": (
        transformers.MiniMaxM2Config,
        DENSE
        | LOCAL_EXPERTS
        | {
            "head_dim": 12,
            "num_key_value_heads": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
        },
    ),
    "llama4_text": (
        transformers.Llama4TextConfig,
        DENSE
        | LOCAL_EXPERTS
        | {
            "num_hidden_layers": 4,
            "head_dim": 10,
            "num_key_value_heads": 2,
            "attention_chunk_size": 14,
            "no_rope_layer_interval": 3,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 44,
            "floor_scale": 5,
            "attn_scale": 0.5,
        },
    ),
}

# The score of a larger logit is 1.
NARROW_ROUTERS = (
    "deepseek_v2",
    "deepseek_v3",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "llama4_text",
    "minimax_m2",
    "solar_open",
)


def spread(name, config):
    """Standard deviation of a tensor's values."""
    if name.endswith(("bias", "sinks")):
        return 0.3
    if any(router in name for router in ("gate.weight", "gate.wg.weight", "router.weight")):
        return 0.3 if config.model_type in NARROW_ROUTERS else 1.0
    return 0.1


def random_model(config_class, arguments, seed):
    config = config_class(**BASE, **arguments)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    if hasattr(config, "num_experts_per_tok") and config.model_type != "llama4_text":
        model.set_experts_implementation("eager")  # the fused one wants sizes in multiples of 16 bytes
    generator = torch.Generator().manual_seed(seed)
    lowest_norm = -0.5 if config.model_type == "gemma3_text" else 0.5
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("correction_bias")]
    with torch.no_grad():
        for name, parameter in [*model.named_parameters(), *buffers]:
            if "norm" in name and not name.endswith("bias"):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + lowest_norm)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread(name, config))
    return model


def compare(reference, folder):
    ids = torch.randint(0, BASE["vocab_size"], (61,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = reference(ids[None]).logits[0].numpy()
    got = specmoe.load(str(folder), dtype="float32").logits(ids.tolist())
    assert got.dtype == np.float32 and got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("fused", [False, True], ids=["classic", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name, fused, tmp_path):
    config_class, arguments = CASES[name]
    reference = random_model(config_class, arguments, seed=3)
    reference.save_pretrained(tmp_path, save_original_format=not fused)
    compare(reference, tmp_path)


@pytest.mark.parametrize("model_type", ["mistral", "ministral"])
def test_a_mistral_may_slide_in_some_layers(model_type, tmp_path):
    """AutoConfig reads a mistral with layer_types as a ministral."""
    arguments = DENSE | {"head_dim": 10, "sliding_window": 11, "layer_types": ["full_attention", "sliding_attention"]}
    reference = random_model(transformers.MinistralConfig, arguments, seed=3)
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    compare(reference, tmp_path)
