"""The tiny checkpoints that make_model_fixtures.py writes: what transformers is asked for, and how it is saved."""

from __future__ import annotations

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Dots1Config,
    Ernie4_5_MoeConfig,
    ExaoneMoeConfig,
    Gemma3TextConfig,
    Glm4MoeConfig,
    Glm4MoeLiteConfig,
    GptOssConfig,
    GraniteMoeConfig,
    HunYuanMoEV1Config,
    Llama4TextConfig,
    LlamaConfig,
    MiniMaxM2Config,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    PhimoeConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SolarOpenConfig,
)

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16

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

SMALL = BASE | {"vocab_size": 131, "hidden_size": 48, "intermediate_size": 40}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 14}
LOCAL_EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 14}
WINDOW = {"use_sliding_window": True, "sliding_window": 16}
LATENT = SMALL | {
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
}
GLM = SMALL | {
    "num_hidden_layers": 3,
    "head_dim": 16,
    "attention_bias": True,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
}
DOTS = SMALL | {
    "num_hidden_layers": 3,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
    "first_k_dense_replace": 1,
}
SOLAR = SMALL | {
    "head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
}
ERNIE = SMALL | {
    "moe_num_experts": 8,
    "moe_k": 3,
    "moe_intermediate_size": 12,
}
EXAONE = SMALL | {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "sliding_window": 8,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 12,
}
HUNYUAN = SMALL | {
    "head_dim": 16,
    "num_experts": 8,
    "moe_topk": 3,
    "intermediate_size": 12,
}
MINIMAX = SMALL | {
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "intermediate_size": 12,
}
LLAMA4 = SMALL | {
    "num_hidden_layers": 4,
    "head_dim": 16,
    "intermediate_size": 12,
    "intermediate_size_mlp": 28,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "attention_chunk_size": 16,
    "floor_scale": 8,
    "attn_scale": 0.3,
}
GPT_OSS = SMALL | {
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "head_dim": 14,
    "sliding_window": 8,
}
GRANITE = SMALL | LOCAL_EXPERTS | {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 0.5}
PHIMOE = SMALL | LOCAL_EXPERTS
LIVELY = {
    "_proj.weight": 0.2,
    "_proj": 0.2,
}  # layers that outweigh a tied embedding, or the text is one token again and again
UNGROUPED = LIVELY | {"e_score_correction_bias": 0.1}  # a larger one leaves the same experts out at all tokens


def rope(theta: float = 10000.0, **parameters) -> dict:
    return {"rope_parameters": {"rope_theta": theta} | parameters}


def yarn(**parameters) -> dict:
    return rope(100.0, rope_type="yarn", factor=4.0, beta_fast=16.0, **parameters)


def longrope(pairs: int, original: int, **parameters) -> dict:
    """More text than `original` positions takes the long factors."""
    return rope(
        100.0,
        rope_type="longrope",
        short_factor=[1.0 + 0.2 * j for j in range(pairs)],
        long_factor=[1.5 + 0.5 * j for j in range(pairs)],
        original_max_position_embeddings=original,
        **parameters,
    )


def llama3(**parameters) -> dict:
    return rope(50.0, rope_type="llama3", factor=8.0, original_max_position_embeddings=64, **parameters)


# name: (config class, its arguments, storage dtype, and how it is saved)
#   old     transformers 4 spelling of config.json
#   fused   experts as three-dimensional tensors
#   shards  several files and an index
#   bare    tensor names without "model."
#   drop    keys left out of config.json: the class default must do
#   add     keys written over config.json
#   extra   a tensor that the model has no use for
#   spread  standard deviation of tensors by the end of their names, where the usual one does not do
#   release    config.json says with `add` and `drop` what the release says, and transformers does not read it
#   quantize   "fp8" blocks of the matrices, "mxfp4" blocks of the experts
DENSE_CASES = {
    "llama_default": (LlamaConfig, LLAMA | rope(rope_type="default"), FLOAT32, {}),
    "llama_linear": (
        LlamaConfig,
        LLAMA | {"tie_word_embeddings": True} | rope(rope_type="linear", factor=2.0),
        BFLOAT16,
        {"old": True},
    ),
    "llama_llama3": (
        LlamaConfig,
        LLAMA | {"num_key_value_heads": 4} | llama3(low_freq_factor=1.0, high_freq_factor=4.0),
        FLOAT16,
        {"drop": ["num_key_value_heads"]},
    ),
    "llama_yarn": (LlamaConfig, LLAMA | yarn(original_max_position_embeddings=48), BFLOAT16, {"fused": True}),
    "llama_dynamic": (
        LlamaConfig,
        LLAMA | {"num_hidden_layers": 3} | rope(rope_type="dynamic", factor=4.0),
        BFLOAT16,
        {"old": True, "bare": True},
    ),
    "llama_bias": (
        LlamaConfig,
        LLAMA | {"attention_bias": True, "mlp_bias": True, "head_dim": 24} | rope(rope_type="default"),
        BFLOAT16,
        {},
    ),
    "llama_longrope_short": (LlamaConfig, SMALL | longrope(6, 128, attention_factor=1.25), BFLOAT16, {}),
    "llama_longrope_long": (LlamaConfig, SMALL | longrope(6, 8), BFLOAT16, {"old": True}),
    "mistral_a": (MistralConfig, SMALL | {"sliding_window": 16, "head_dim": 20}, BFLOAT16, {}),
    "mistral_b": (
        MistralConfig,
        SMALL | {"num_attention_heads": 8, "num_key_value_heads": 8, "tie_word_embeddings": True},
        FLOAT16,
        {"old": True, "drop": ["sliding_window", "num_key_value_heads"], "spread": LIVELY},
    ),
    "qwen2_a": (
        Qwen2Config,
        SMALL | WINDOW | {"max_window_layers": 1, "num_hidden_layers": 3, "tie_word_embeddings": True},
        BFLOAT16,
        {"old": True, "drop": ["layer_types"], "spread": LIVELY},
    ),
    "qwen2_b": (
        Qwen2Config,
        SMALL
        | WINDOW
        | {"layer_types": ["sliding_attention", "full_attention"]}
        | rope(rope_type="linear", factor=3.0),
        BFLOAT16,
        {},
    ),
    "qwen3_a": (Qwen3Config, SMALL | {"head_dim": 20}, BFLOAT16, {}),
    "qwen3_b": (
        Qwen3Config,
        SMALL | WINDOW | {"head_dim": 16, "max_window_layers": 1, "attention_bias": True, "tie_word_embeddings": True},
        BFLOAT16,
        {"old": True, "drop": ["layer_types"], "spread": LIVELY},
    ),
    "gemma3_text_a": (
        Gemma3TextConfig,
        SMALL
        | {
            "num_hidden_layers": 6,
            "head_dim": 14,
            "intermediate_size": 28,
            "sliding_window": 8,
            "query_pre_attn_scalar": 20,
            "final_logit_softcapping": 3.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        BFLOAT16,
        {"drop": ["tie_word_embeddings"]},
    ),
    "gemma3_text_b": (
        Gemma3TextConfig,
        SMALL
        | {
            "num_hidden_layers": 3,
            "sliding_window_pattern": 3,
            "head_dim": 18,
            "sliding_window": 8,
            "query_pre_attn_scalar": 20,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
        FLOAT16,
        {
            "old": True,
            "drop": ["layer_types", "_sliding_window_pattern"],
            "add": {"sliding_window_pattern": 3},
            "spread": {"_proj.bias": 0.1},
        },
    ),
}

MOE_CASES = {
    "mixtral_a": (MixtralConfig, MIXTRAL | {"head_dim": 24}, BFLOAT16, {}),
    "mixtral_b": (
        MixtralConfig,
        MIXTRAL
        | {
            "sliding_window": 16,
            "tie_word_embeddings": True,
            "num_local_experts": 5,
            "intermediate_size": 20,
        },
        FLOAT32,
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
        | rope(1e6, rope_type="default"),
        FLOAT16,
        {"old": True, "fused": True, "drop": ["num_key_value_heads", "rope_theta"]},
    ),
    "qwen2_moe_a": (
        Qwen2MoeConfig,
        SMALL
        | EXPERTS
        | WINDOW
        | {
            "num_hidden_layers": 4,
            "max_window_layers": 2,
            "mlp_only_layers": [2],
            "shared_expert_intermediate_size": 20,
        },
        BFLOAT16,
        {},
    ),
    "qwen2_moe_b": (
        Qwen2MoeConfig,
        SMALL
        | EXPERTS
        | {
            "num_hidden_layers": 4,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "qkv_bias": False,
            "shared_expert_intermediate_size": 10,
        },
        BFLOAT16,
        {"old": True, "fused": True, "drop": ["layer_types", "norm_topk_prob"], "add": {"norm_topk_prob": True}},
    ),
    "qwen3_moe_a": (
        Qwen3MoeConfig,
        SMALL | EXPERTS | {"head_dim": 20, "num_experts_per_tok": 3, "norm_topk_prob": True},
        BFLOAT16,
        {},
    ),
    "qwen3_moe_b": (
        Qwen3MoeConfig,
        SMALL
        | EXPERTS
        | WINDOW
        | {"num_hidden_layers": 3, "attention_bias": True, "tie_word_embeddings": True, "mlp_only_layers": [1]},
        BFLOAT16,
        {"old": True, "fused": True, "spread": LIVELY},
    ),
    "olmoe_a": (
        OlmoeConfig,
        SMALL | EXPERTS | {"intermediate_size": 14, "num_key_value_heads": 4, "clip_qkv": 0.8},
        BFLOAT16,
        {"drop": ["num_key_value_heads"]},
    ),
    "olmoe_b": (
        OlmoeConfig,
        SMALL | EXPERTS | {"intermediate_size": 14, "norm_topk_prob": True, "attention_bias": True},
        FLOAT16,
        {"old": True, "fused": True, "spread": LIVELY},
    ),
    "granitemoe_a": (
        GraniteMoeConfig,
        GRANITE | {"num_key_value_heads": 4, "attention_multiplier": 0.35, "tie_word_embeddings": True},
        BFLOAT16,
        {"drop": ["num_key_value_heads"], "spread": LIVELY | {"embed_tokens.weight": 0.01}},
    ),
    "granitemoe_b": (
        GraniteMoeConfig,
        GRANITE | {"attention_multiplier": 0.015625, "attention_bias": True, "residual_multiplier": 0.7},
        BFLOAT16,
        {"old": True, "fused": True, "spread": LIVELY},
    ),
    "phimoe_a": (
        PhimoeConfig,
        PHIMOE
        | {"attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 0.2}
        | longrope(6, 128, short_mscale=1.2, long_mscale=1.5),
        BFLOAT16,
        {"spread": LIVELY | {"lm_head.bias": 0.2}},
    ),
    "phimoe_b": (
        PhimoeConfig,
        PHIMOE | {"sliding_window": 16} | longrope(6, 8, short_mscale=1.2, long_mscale=1.5),
        BFLOAT16,
        {"old": True, "fused": True},
    ),
    "gpt_oss_a": (
        GptOssConfig,
        GPT_OSS | yarn(original_max_position_embeddings=32, truncate=False),
        BFLOAT16,
        {"spread": {"gate_up_proj": 0.6}},
    ),
    "gpt_oss_b": (
        GptOssConfig,
        GPT_OSS
        | {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
        | yarn(original_max_position_embeddings=32, truncate=True),
        BFLOAT16,
        {"old": True, "spread": {"gate_up_proj": 0.6}},
    ),
    "gpt_oss_mxfp4": (
        GptOssConfig,
        GPT_OSS
        | {"hidden_size": 64, "intermediate_size": 32, "num_local_experts": 4, "num_hidden_layers": 2}
        | yarn(original_max_position_embeddings=32, truncate=False),
        BFLOAT16,
        {"quantize": "mxfp4"},
    ),
    "deepseek_v2_a": (
        DeepseekV2Config,
        LATENT
        | {"n_shared_experts": 2, "routed_scaling_factor": 1.7}
        | yarn(original_max_position_embeddings=64, mscale=0.7, mscale_all_dim=0.9),
        BFLOAT16,
        {"drop": ["num_key_value_heads"], "spread": LIVELY},
    ),
    "deepseek_v2_b": (
        DeepseekV2Config,
        LATENT
        | {
            "n_shared_experts": 1,
            "q_lora_rank": 20,
            "n_group": 4,
            "topk_group": 2,
            "topk_method": "group_limited_greedy",
            "attention_bias": True,
        },
        BFLOAT16,
        {"old": True, "fused": True, "spread": LIVELY},
    ),
    "deepseek_v3_a": (
        DeepseekV3Config,
        LATENT | {"q_lora_rank": 20, "n_group": 4, "topk_group": 2, "n_shared_experts": 2},
        BFLOAT16,
        {"extra": "model.layers.3.enorm.weight"},
    ),
    "deepseek_v3_b": (
        DeepseekV3Config,
        LATENT
        | {
            "n_group": 2,
            "topk_group": 1,
            "norm_topk_prob": False,
            "rope_interleave": False,
            "attention_bias": True,
            "routed_scaling_factor": 1.3,
        }
        | yarn(original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.7),
        BFLOAT16,
        {"old": True, "fused": True, "spread": LIVELY},
    ),
    "deepseek_v3_fp8": (
        DeepseekV3Config,
        LATENT | {"num_hidden_layers": 2, "q_lora_rank": 20, "n_group": 2, "topk_group": 2, "num_experts_per_tok": 4},
        BFLOAT16,
        {"quantize": "fp8"},
    ),
    "dots1_a": (
        Dots1Config,
        DOTS
        | {
            "head_dim": 16,
            "n_shared_experts": 2,
            "sliding_window": 8,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "norm_topk_prob": True,
            "attention_bias": True,
            "n_group": 4,
            "topk_group": 2,
        },
        BFLOAT16,
        {"spread": LIVELY},
    ),
    "dots1_b": (
        Dots1Config,
        DOTS
        | {
            "num_key_value_heads": 4,
            "n_shared_experts": 1,
            "sliding_window": 16,
            "max_window_layers": 2,
            "routed_scaling_factor": 2.5,
        },
        FLOAT16,
        {"old": True, "fused": True, "drop": ["layer_types"], "spread": UNGROUPED},
    ),
    "glm4_moe_a": (
        Glm4MoeConfig,
        GLM
        | {"n_shared_experts": 2, "routed_scaling_factor": 1.4}
        | rope(rope_type="default", partial_rotary_factor=0.75),
        BFLOAT16,
        {"drop": ["partial_rotary_factor"], "extra": "model.layers.3.enorm.weight", "spread": UNGROUPED},
    ),
    "glm4_moe_b": (
        Glm4MoeConfig,
        GLM
        | {
            "use_qk_norm": True,
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 2,
            "norm_topk_prob": False,
        }
        | yarn(original_max_position_embeddings=64),
        BFLOAT16,
        {"old": True, "fused": True, "drop": ["partial_rotary_factor"], "spread": LIVELY},
    ),
    "glm4_moe_lite_a": (
        Glm4MoeLiteConfig,
        LATENT | {"q_lora_rank": 20, "mlp_layer_types": ["dense", "dense", "sparse"], "rms_norm_eps": 1e-3},
        BFLOAT16,
        {
            "drop": ["first_k_dense_replace"],
            "add": {"num_nextn_predict_layers": 1},
            "extra": "model.layers.3.enorm.weight",
            "spread": UNGROUPED,
        },
    ),
    "glm4_moe_lite_b": (
        Glm4MoeLiteConfig,
        LATENT
        | {"n_group": 2, "norm_topk_prob": False, "rope_interleave": False, "attention_bias": True}
        | yarn(original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.7),
        BFLOAT16,
        {"old": True, "fused": True, "drop": ["mlp_layer_types"], "spread": UNGROUPED},
    ),
    "solar_open_a": (
        SolarOpenConfig,
        SOLAR
        | {
            "attention_bias": True,
            "n_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.4,
        },
        BFLOAT16,
        {"drop": ["intermediate_size", "partial_rotary_factor"], "spread": LIVELY},
    ),
    "solar_open_b": (
        SolarOpenConfig,
        SOLAR | {"norm_topk_prob": False} | yarn(original_max_position_embeddings=64),
        BFLOAT16,
        {
            "old": True,
            "fused": True,
            "drop": ["n_group", "topk_group"],
            "add": {"first_k_dense_replace": 0, "partial_rotary_factor": 1.0, "use_qk_norm": False},
            "spread": UNGROUPED,
        },
    ),
    "ernie4_5_moe_a": (
        Ernie4_5_MoeConfig,
        ERNIE | {"num_hidden_layers": 3, "moe_num_shared_experts": 2, "tie_word_embeddings": True},
        BFLOAT16,
        {
            "drop": ["moe_norm_min"],
            "add": {"moe_layer_end_index": -1, "num_nextn_predict_layers": 1},
            "extra": "model.mtp_enorm.0.weight",
            "spread": UNGROUPED,
        },
    ),
    "ernie4_5_moe_b": (
        Ernie4_5_MoeConfig,
        ERNIE
        | {
            "num_hidden_layers": 4,
            "head_dim": 16,
            "moe_num_shared_experts": 0,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
            "moe_layer_interval": 2,
            "tie_word_embeddings": False,
        }
        | rope(rope_type="linear", factor=2.0),
        FLOAT16,
        {"old": True, "fused": True, "spread": UNGROUPED},
    ),
    "exaone_moe_a": (
        ExaoneMoeConfig,
        EXAONE
        | {
            "num_shared_experts": 2,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "first_k_dense_replace": 2,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.4,
        }
        | rope(5000.0, rope_type="default"),
        BFLOAT16,
        {"drop": ["sliding_window_pattern"], "extra": "mtp.enorm.weight", "spread": LIVELY},
    ),
    "exaone_moe_b": (
        ExaoneMoeConfig,
        EXAONE
        | {"num_hidden_layers": 3, "sliding_window_pattern": 2, "norm_topk_prob": False}
        | rope(100.0, rope_type="default"),
        FLOAT16,
        {"old": True, "fused": True, "drop": ["layer_types", "mlp_layer_types"], "spread": UNGROUPED},
    ),
    "hunyuan_v1_moe_a": (
        HunYuanMoEV1Config,
        HUNYUAN | {"attention_bias": True} | rope(100.0, rope_type="linear", factor=2.0),
        BFLOAT16,
        {"spread": LIVELY | {"gate.wg.weight": 0.3}},
    ),
    "hunyuan_v1_moe_b": (
        HunYuanMoEV1Config,
        HUNYUAN
        | {"head_dim": 12, "num_key_value_heads": 4, "tie_word_embeddings": True}
        | rope(100.0, rope_type="dynamic", alpha=50.0, factor=1.0),
        BFLOAT16,
        {
            "old": True,
            "fused": True,
            "add": {
                "attention_head_dim": 12,
                "group_limited_greedy": False,
                "mlp_bias": False,
                "moe_drop_tokens": False,
                "moe_intermediate_size": [12, 12],
                "moe_layer_num_skipped": 0,
                "moe_topk": [3, 3],
                "norm_topk_prob": True,
                "norm_type": "rms",
                "num_shared_expert": [1, 1],
                "position_embedding_xdrope": False,
                "routed_scaling_factor": 1.0,
                "use_cla": False,
                "use_mixed_mlp_moe": True,
                "use_mla": False,
                "use_qk_norm": True,
                "use_rotary_pos_emb": True,
            },
            "spread": LIVELY,
        },
    ),
    "minimax_m2_a": (
        MiniMaxM2Config,
        MINIMAX | rope(5000.0, rope_type="default", partial_rotary_factor=0.75),
        BFLOAT16,
        {"drop": ["partial_rotary_factor"], "spread": UNGROUPED},
    ),
    "minimax_m2_b": (
        MiniMaxM2Config,
        MINIMAX | {"num_local_experts": 6} | rope(rope_type="default", partial_rotary_factor=0.5),
        BFLOAT16,
        {
            "old": True,
            "fused": True,
            "drop": ["partial_rotary_factor"],
            "add": {
                "attn_type_list": [1, 1],
                "num_mtp_modules": 3,
                "qk_norm_type": "per_layer",
                "rotary_dim": 8,
                "scoring_func": "sigmoid",
                "shared_intermediate_size": 0,
                "use_mtp": True,
                "use_qk_norm": True,
                "use_routing_bias": True,
            },
            "release": True,
            "spread": UNGROUPED,
        },
    ),
    "kimi_k2": (
        DeepseekV3Config,
        LATENT
        | {
            "q_lora_rank": 20,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "routed_scaling_factor": 2.827,
            "num_mtp_layers": 0,
        }
        | rope(
            10.0,
            rope_type="yarn",
            factor=4.0,
            beta_fast=1.0,
            beta_slow=1.0,
            original_max_position_embeddings=24,
            mscale=1.0,
            mscale_all_dim=1.0,
        ),
        BFLOAT16,
        {
            "old": True,
            "drop": ["head_dim", "qk_head_dim", "rope_interleave"],
            "add": {
                "model_type": "kimi_k2",
                "moe_layer_freq": 1,
                "scoring_func": "sigmoid",
                "seq_aux": True,
                "topk_method": "noaux_tc",
            },
            "release": True,
            "spread": UNGROUPED,
        },
    ),
    "llama4_text_scout": (
        Llama4TextConfig,
        LLAMA4 | llama3(low_freq_factor=1.0, high_freq_factor=1.0),
        BFLOAT16,
        {"spread": {"router.weight": 0.3}},
    ),
    "llama4_text_maverick": (
        Llama4TextConfig,
        LLAMA4
        | {
            "interleave_moe_layer_step": 2,
            "use_qk_norm": False,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "no_rope_layer_interval": 2,
        }
        | llama3(low_freq_factor=1.0, high_freq_factor=4.0),
        BFLOAT16,
        {
            "old": True,
            "drop": ["layer_types", "moe_layers", "no_rope_layers"],
            "add": {"no_rope_layers": []},
            "spread": {"router.weight": 0.3},
        },
    ),
    "llama4_text_dense": (
        Llama4TextConfig,
        LLAMA4 | {"moe_layers": [], "no_rope_layer_interval": 2, "attn_temperature_tuning": False},
        BFLOAT16,
        {"drop": ["no_rope_layers"], "add": {"no_rope_layers": []}},
    ),
    "llama4_text_lists": (
        Llama4TextConfig,
        LLAMA4 | {"moe_layers": [0, 3], "no_rope_layers": [1, 0, 0, 1]},
        BFLOAT16,
        {"drop": ["layer_types"], "spread": {"router.weight": 0.3}},
    ),
}

CASES = DENSE_CASES | MOE_CASES
