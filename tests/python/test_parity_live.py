"""specmoe.logits against transformers on models made here and now: sizes and values no fixture has."""

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
}


def random_model(config_class, arguments, seed):
    config = config_class(**BASE, **arguments)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    if config.model_type == "mixtral":
        model.set_experts_implementation("eager")  # the fused one wants sizes in multiples of 16 bytes
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
            else:
                spread = 1.0 if "gate.weight" in name else 0.1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


@pytest.mark.parametrize("fused", [False, True], ids=["classic", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name, fused, tmp_path):
    config_class, arguments = CASES[name]
    reference = random_model(config_class, arguments, seed=3)
    reference.save_pretrained(tmp_path, save_original_format=not fused)
    ids = torch.randint(0, BASE["vocab_size"], (61,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = reference(ids[None]).logits[0].numpy()
    got = specmoe.load(str(tmp_path), dtype="float32").logits(ids.tolist())
    assert got.dtype == np.float32 and got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
