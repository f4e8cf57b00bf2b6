"""Writes the tiny heads of tests/golden/heads that propose whole blocks (DFlash, arXiv:2602.06036).

    .venv/bin/python tests/golden/make_block_head_fixtures.py [CASE ...]

They are for the target tests/golden/models/mixtral_a. Every tensor is random and matters, every value is exact in its
storage type, and seeds are skipped until the best token of every row has a clear margin. Beside each head lies
expected.safetensors, computed in float64:
    features [TEXT, W] float32, what the target gives at each token of a text
    block [B] int32, the token behind the text and masks; logits [B, V] float32 of its rows
"""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from make_head_fixtures import LLAMA, MARGIN, TARGET, VOCABULARY, random_tensors, write_fixture
from safetensors.torch import load_file
from torch import Tensor

TEXT = 9
MASK = 198
QWEN3 = LLAMA | {
    "architectures": ["DFlashDraftModel"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 24,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
}

CASES = {
    # As published for Qwen3 and gpt-oss targets.
    "dflash": (
        QWEN3
        | {
            "block_size": 5,
            "dflash_config": {"mask_token_id": MASK, "target_layer_ids": [0, 1]},
            "layer_types": ["full_attention", "full_attention"],
            "use_sliding_window": False,
        },
        torch.bfloat16,
    ),
    # With all that later ones may have: a causal layer with a window that the text outgrows, scales and a cap.
    "dflash_window": (
        QWEN3
        | {
            "dflash_config": {
                "block_size": 4,
                "final_logit_softcapping": 20.0,
                "input_embedding_scale": 1.5,
                "mask_token_id": MASK,
                "output_multiplier": 0.75,
                "target_layer_ids": [0],
            },
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 6,
            "use_sliding_window": True,
            "max_window_layers": 2,
            "torch_dtype": "float32",
        },
        torch.float32,
    ),
}


class BlockShape:
    """Names and shapes of a head's tensors."""

    vocabulary = draft_vocab = VOCABULARY

    def __init__(self, config: dict):
        self.config = config
        self.hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.features = len(config["dflash_config"]["target_layer_ids"])

    def tensors(self) -> dict[str, tuple[int, ...]]:
        hidden, inner, width = self.hidden, self.config["intermediate_size"], self.head_dim
        shapes = {
            "fc.weight": (hidden, self.features * hidden),
            "hidden_norm.weight": (hidden,),
            "norm.weight": (hidden,),
        }
        for layer in range(self.config["num_hidden_layers"]):
            shapes |= {
                f"layers.{layer}.{name}.weight": size
                for name, size in {
                    "input_layernorm": (hidden,),
                    "post_attention_layernorm": (hidden,),
                    "self_attn.q_proj": (self.heads * width, hidden),
                    "self_attn.k_proj": (self.kv_heads * width, hidden),
                    "self_attn.v_proj": (self.kv_heads * width, hidden),
                    "self_attn.o_proj": (hidden, self.heads * width),
                    "self_attn.q_norm": (width,),
                    "self_attn.k_norm": (width,),
                    "mlp.gate_proj": (inner, hidden),
                    "mlp.up_proj": (inner, hidden),
                    "mlp.down_proj": (hidden, inner),
                }.items()
            }
        return shapes


class BlockHead:
    """A head in float64, all rows at once."""

    def __init__(self, shape: BlockShape, tensors: dict[str, Tensor]):
        self.shape, self.eps = shape, shape.config["rms_norm_eps"]
        self.weights = {name.removesuffix(".weight"): value.double() for name, value in tensors.items()}

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weights[name]

    def turned(self, x: Tensor, first: int) -> Tensor:
        """Heads [rows, heads, head_dim] at positions from `first` on."""
        half = self.shape.head_dim // 2
        frequencies = self.shape.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = (first + torch.arange(len(x), dtype=torch.float64))[:, None, None] * frequencies
        low, high = x.split(half, -1)
        return torch.cat(
            (low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()),
            -1,
        )

    def keys_and_values(self, x: Tensor, layer: str, first: int) -> tuple[Tensor, Tensor]:
        keys, values = (
            (x @ self.weights[f"{layer}.self_attn.{name}_proj"].T).view(len(x), -1, self.shape.head_dim)
            for name in "kv"
        )
        return self.turned(self.norm(keys, f"{layer}.self_attn.k_norm"), first), values

    def attention(self, x: Tensor, context: Tensor, layer: str, seen: Tensor) -> Tensor:
        """seen [block rows, text and block rows]"""
        shape, text = self.shape, len(context)
        query = (x @ self.weights[f"{layer}.self_attn.q_proj"].T).view(len(x), -1, shape.head_dim)
        query = self.turned(self.norm(query, f"{layer}.self_attn.q_norm"), text)
        pairs = (self.keys_and_values(context, layer, 0), self.keys_and_values(x, layer, text))
        group = shape.heads // shape.kv_heads
        keys, values = (torch.cat(both).repeat_interleave(group, 1) for both in zip(*pairs, strict=True))
        scores = torch.einsum("qhd,khd->hqk", query, keys) * shape.head_dim**-0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out = torch.einsum("hqk,khd->qhd", weights, values).reshape(len(x), -1)
        return out @ self.weights[f"{layer}.self_attn.o_proj"].T

    def seen(self, kind: str, text: int, block: int) -> Tensor:
        """Which keys the block's rows see in a layer of this kind."""
        at, key = text + torch.arange(block)[:, None], torch.arange(text + block)
        if kind == "full_attention":
            return torch.ones(block, text + block, dtype=torch.bool)
        return (key <= at) & (at - key < self.shape.config["sliding_window"])

    def logits(self, block: Tensor, features: Tensor, target: dict[str, Tensor]) -> Tensor:
        config, own = self.shape.config, self.shape.config["dflash_config"]
        context = self.norm(features.double() @ self.weights["fc"].T, "hidden_norm")
        x = target["model.embed_tokens.weight"].double()[block] * own.get("input_embedding_scale", 1.0)
        for i in range(config["num_hidden_layers"]):
            layer = f"layers.{i}"
            seen = self.seen(config["layer_types"][i], len(features), len(block))
            x = x + self.attention(self.norm(x, f"{layer}.input_layernorm"), context, layer, seen)
            normed = self.norm(x, f"{layer}.post_attention_layernorm")
            gate, up = (normed @ self.weights[f"{layer}.mlp.{name}_proj"].T for name in ("gate", "up"))
            x = x + (torch.nn.functional.silu(gate) * up) @ self.weights[f"{layer}.mlp.down_proj"].T
        logits = self.norm(x, "norm") @ target["lm_head.weight"].double().T * own.get("output_multiplier", 1.0)
        cap = own.get("final_logit_softcapping")
        return logits if cap is None else torch.tanh(logits / cap) * cap


def build(config: dict, storage: torch.dtype) -> tuple[dict, dict, int]:
    """The checkpoint, what is expected of it, and the seed of both."""
    target, shape = load_file(TARGET / "model.safetensors"), BlockShape(config)
    rows = config.get("block_size", config["dflash_config"].get("block_size"))
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        tensors = random_tensors(shape, storage, generator)
        features = torch.randn(TEXT, shape.features * shape.hidden, generator=generator)
        block = torch.full((rows,), MASK, dtype=torch.int32)
        block[0] = torch.randint(3, MASK, (), generator=generator)
        logits = BlockHead(shape, tensors).logits(block, features, target)
        best = logits.topk(2, dim=-1).values
        # Mask rows differ by their positions alone, so equal rows would be a sign of something left out.
        apart = all(not torch.allclose(a, b, atol=0.1) for a, b in pairwise(logits))
        if (best[:, 0] - best[:, 1]).min() > MARGIN and apart:
            return tensors, {"features": features, "block": block, "logits": logits.float()}, seed
    raise SystemExit("no seed gives clear margins")


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        config, storage = CASES[name]
        write_fixture(name, config, "model.safetensors", *build(config, storage))


if __name__ == "__main__":
    main()
