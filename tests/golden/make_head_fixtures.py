"""Writes the tiny draft heads of tests/golden/heads and what a plain reference computes with them.

    .venv/bin/python tests/golden/make_head_fixtures.py [CASE ...]

Heads of EAGLE-1 and EAGLE-3 for the target tests/golden/models/mixtral_a, one folder per dialect, and
multi-token-prediction modules as DeepSeek-V3 has them, mtp_X for the target tests/golden/models/X_a. Every tensor
is random and matters, every value is exact in its storage type, and seeds are skipped until the best token
of every row and every choice of a router have a clear margin. Beside each head lies expected.safetensors:
    tokens [ROWS] int32; features [TARGET_ROWS, W] float32, what the target gives to the first rows
    logits [ROWS, V] float32 over the target's vocabulary, -inf where no draft token stands for a token
    recycled [ROWS, H] float32, the state that each row hands on
Row t is (tokens[t], features[t]) at position t and attends to rows 0..t; from row TARGET_ROWS on, the
state that row t - 1 handed on stands for the features. The reference is float64; the decoder layer of the
multi-token-prediction module is that of transformers, checked against naive_moe.py.

Medusa heads, for mixtral_a too, read one row of features each:
    features [TARGET_ROWS, H] float32; logits [heads, TARGET_ROWS, V] float32
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import naive_moe
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parent
TARGET = GOLDEN / "models" / "mixtral_a"
VOCABULARY = 199
ROWS, TARGET_ROWS = 12, 8
MARGIN = 1e-3
DEFAULT_THETA = 10000.0
WIDE = ("embed", "lm_head", "mlp.gate.weight", "e_score_correction_bias")

LLAMA = {
    "model_type": "llama",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}
EAGLE3 = LLAMA | {"architectures": ["LlamaForCausalLMEagle3"]}


def mtp_target(family: str) -> Path:
    return GOLDEN / "models" / f"{family}_a"


def mtp_config(family: str) -> dict:
    return json.loads((mtp_target(family) / "config.json").read_text()) | {"num_nextn_predict_layers": 1}


# name: (config.json, storage)
CASES = {
    "eagle1": (LLAMA | {"architectures": ["LlamaForCausalLM"]}, torch.bfloat16),
    "eagle3_safeailab": (
        EAGLE3 | {"draft_vocab_size": 120, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]},
        torch.bfloat16,
    ),
    "eagle3_specforge": (
        EAGLE3
        | {
            "hidden_size": 48,
            "target_hidden_size": 64,
            "head_dim": 16,
            "rope_theta": 500000.0,
            "fc_norm": True,
            "norm_output": True,
            "draft_vocab_size": VOCABULARY,
            "torch_dtype": "float32",
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": [0, 1],
                "use_aux_hidden_state": True,
            },
        },
        torch.float32,
    ),
    "eagle3_speculators": (
        {
            "architectures": ["Eagle3Speculator"],
            "speculators_model_type": "eagle3",
            "draft_vocab_size": 120,
            "target_hidden_size": 64,
            "eagle_aux_hidden_state_layer_ids": [0, 1, 2],
            "norm_before_residual": True,
            "norm_before_fc": True,
            "fc_norm": False,
            "norm_output": False,
            "torch_dtype": "bfloat16",
            "transformer_layer_config": {
                "model_type": "qwen3",
                "attention_bias": False,
                "head_dim": 24,
                "hidden_act": "silu",
                "hidden_size": 64,
                "intermediate_size": 40,
                "max_position_embeddings": 128,
                "num_attention_heads": 4,
                "num_hidden_layers": 1,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0,
                "vocab_size": VOCABULARY,
            },
            "speculators_config": {
                "algorithm": "eagle3",
                "default_proposal_method": "greedy",
                "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 4}],
                "verifier": {
                    "architectures": ["MixtralForCausalLM"],
                    "name_or_path": "tests/golden/models/mixtral_a",
                },
            },
        },
        torch.bfloat16,
    ),
    "mtp_deepseek_v3": (mtp_config("deepseek_v3"), torch.bfloat16),
    "mtp_glm4_moe": (mtp_config("glm4_moe"), torch.bfloat16),
    "mtp_glm4_moe_lite": (mtp_config("glm4_moe_lite"), torch.bfloat16),
}

# name: (config.json, storage, heads, whether they have output matrices, prefix of names, file)
MEDUSA_CASES = {
    "medusa": (
        # The count of heads is that of the base's default, as in published configurations.
        {"medusa_num_heads": 5, "medusa_num_layers": 2, "base_model_name_or_path": "tests/golden/models/mixtral_a"},
        torch.bfloat16,
        3,
        True,
        "",
        "medusa_lm_head.safetensors",
    ),
    "medusa_borrowing": (
        {"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "mixtral_a", "version": "2"},
        torch.float32,
        2,
        False,
        "medusa_head.",
        "model.safetensors",
    ),
}


class Shape:
    """What a config.json says of a head, whatever the dialect."""

    def __init__(self, config: dict):
        layer = config.get("transformer_layer_config", config)
        self.is_eagle3 = "draft_vocab_size" in config
        self.hidden, self.vocabulary = layer["hidden_size"], layer["vocab_size"]
        self.target_hidden = config.get("target_hidden_size", self.hidden)
        self.heads, self.kv_heads = layer["num_attention_heads"], layer["num_key_value_heads"]
        self.head_dim = layer.get("head_dim", self.hidden // self.heads)
        self.inner, self.eps = layer["intermediate_size"], layer["rms_norm_eps"]
        self.theta = layer.get("rope_theta", DEFAULT_THETA)
        self.qk_norm = layer["model_type"] == "qwen3"
        self.layer = "midlayer" if self.is_eagle3 and layer is config else "layers.0"
        self.draft_vocab = config.get("draft_vocab_size", self.vocabulary)
        ids = config.get("eagle_config", config).get("eagle_aux_hidden_state_layer_ids", [0])
        self.features = len(ids)
        self.fc_norm = config.get("fc_norm", False)
        self.norm_before_fc = config.get("norm_before_fc", False)
        self.norm_before_residual = config.get("norm_before_residual", False)
        self.norm_output = config.get("norm_output", False)
        # A head as wide as the target may borrow its embedding.
        self.own_embedding = layer is not config or self.hidden != self.target_hidden

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The checkpoint's names and shapes, without d2t and t2d."""
        hidden, width = self.hidden, self.features * self.target_hidden
        into = 2 * hidden if self.is_eagle3 else hidden
        attention, mlp = f"{self.layer}.self_attn", f"{self.layer}.mlp"
        shapes = {
            f"{attention}.q_proj.weight": (self.heads * self.head_dim, into),
            f"{attention}.k_proj.weight": (self.kv_heads * self.head_dim, into),
            f"{attention}.v_proj.weight": (self.kv_heads * self.head_dim, into),
            f"{attention}.o_proj.weight": (hidden, self.heads * self.head_dim),
            f"{mlp}.gate_proj.weight": (self.inner, hidden),
            f"{mlp}.up_proj.weight": (self.inner, hidden),
            f"{mlp}.down_proj.weight": (hidden, self.inner),
            f"{self.layer}.post_attention_layernorm.weight": (hidden,),
        }
        if not self.is_eagle3:
            return shapes | {"fc.weight": (hidden, 2 * hidden), "fc.bias": (hidden,)}
        shapes |= {
            "fc.weight": (hidden, width),
            f"{self.layer}.hidden_norm.weight": (hidden,),
            f"{self.layer}.input_layernorm.weight": (hidden,),
            "norm.weight": (hidden,),
            "lm_head.weight": (self.draft_vocab, hidden),
        }
        if self.own_embedding:
            shapes["embed_tokens.weight"] = (self.vocabulary, hidden)
        if self.qk_norm:
            shapes[f"{attention}.q_norm.weight"] = (self.head_dim,)
            shapes[f"{attention}.k_norm.weight"] = (self.head_dim,)
        if self.fc_norm:
            shapes |= {f"fc_norm.{i}.weight": (self.target_hidden,) for i in range(self.features)}
        if self.norm_before_fc:
            shapes["input_norm.weight"] = (width,)
        return shapes


class MtpShape:
    """What a target says of its multi-token-prediction module, which is the layer after its last."""

    features, copies = 1, {"embed_tokens": "model.embed_tokens", "shared_head.head": "lm_head"}

    def __init__(self, config: dict, target: dict[str, Tensor]):
        self.config, self.target = config, target
        self.target_hidden = config["hidden_size"]
        self.vocabulary = self.draft_vocab = config["vocab_size"]
        self.prefix = f"model.layers.{config['num_hidden_layers']}."

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The checkpoint's names and shapes, without the copies of the target's tensors."""
        hidden, last = self.target_hidden, f"model.layers.{self.config['num_hidden_layers'] - 1}."
        names = sorted(name for name in self.target if name.startswith(last))
        shapes = {self.prefix + name.removeprefix(last): tuple(self.target[name].shape) for name in names}
        return shapes | {
            f"{self.prefix}enorm.weight": (hidden,),
            f"{self.prefix}hnorm.weight": (hidden,),
            f"{self.prefix}eh_proj.weight": (hidden, 2 * hidden),
            f"{self.prefix}shared_head.norm.weight": (hidden,),
        }

    def copied(self) -> dict[str, Tensor]:
        """The tensors that the checkpoint repeats."""
        return {f"{self.prefix}{own}.weight": self.target[f"{its}.weight"].clone() for own, its in self.copies.items()}


def random_tensors(shape: Shape | MtpShape, storage: torch.dtype, generator: torch.Generator) -> dict[str, Tensor]:
    """The checkpoint."""
    tensors = {}
    for name, size in shape.tensors().items():
        if "norm" in name:
            value = torch.rand(size, generator=generator) + 0.5
        else:
            spread = 0.5 if name.endswith("bias") else 0.08
            spread = 0.3 if any(part in name for part in WIDE) else spread
            value = torch.randn(size, generator=generator) * spread
        tensors[name] = value.to(storage)
    if shape.draft_vocab < shape.vocabulary:
        kept = torch.randperm(shape.vocabulary, generator=generator)[: shape.draft_vocab].sort().values
        tensors["d2t"] = kept - torch.arange(shape.draft_vocab)
        tensors["t2d"] = torch.zeros(shape.vocabulary, dtype=torch.bool)
        tensors["t2d"][kept] = True
    return tensors


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight for one vector."""
    return x / torch.sqrt((x * x).sum() / len(x) + eps) * weight


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """Rotates the pairs (i, i + d/2) of a vector x [d] by position * theta^(-2i/d)."""
    half, out = len(x) // 2, x.clone()
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        cos, sin = math.cos(angle), math.sin(angle)
        out[i] = x[i] * cos - x[i + half] * sin
        out[i + half] = x[i + half] * cos + x[i] * sin
    return out


class Head:
    """A head in float64 that takes one row after the other and keeps their keys and values."""

    def __init__(self, shape: Shape, tensors: dict[str, Tensor], target: dict[str, Tensor]):
        self.shape = shape
        self.weights = {name: value.double() for name, value in tensors.items() if name not in ("d2t", "t2d")}
        if not shape.own_embedding:
            self.weights["embed_tokens.weight"] = target["model.embed_tokens.weight"].double()
        if not shape.is_eagle3:
            self.weights["lm_head.weight"] = target["lm_head.weight"].double()
        self.token_of = torch.arange(shape.draft_vocab) + tensors.get("d2t", 0)
        self.keys: list[list[Tensor]] = []  # per row and key-value head
        self.values: list[list[Tensor]] = []

    def of_layer(self, name: str) -> Tensor:
        return self.weights[f"{self.shape.layer}.{name}.weight"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        return rms_norm(x, self.weights[f"{name}.weight"], self.shape.eps)

    def attention(self, x: Tensor, position: int) -> Tensor:
        """The attention block's output [H] for its input x at the next row."""
        shape, layer = self.shape, self.shape.layer
        q, k, v = ((self.of_layer(f"self_attn.{name}_proj") @ x).split(shape.head_dim) for name in "qkv")
        if shape.qk_norm:
            q = [self.norm(head, f"{layer}.self_attn.q_norm") for head in q]
            k = [self.norm(head, f"{layer}.self_attn.k_norm") for head in k]
        self.keys.append([rotate(head, position, shape.theta) for head in k])
        self.values.append(list(v))
        outputs = []
        for index, head in enumerate(q):
            query = rotate(head, position, shape.theta)
            group = index // (shape.heads // shape.kv_heads)
            scores = torch.stack([query @ key[group] for key in self.keys]) * shape.head_dim**-0.5
            weights = torch.exp(scores - scores.max())
            weights = weights / weights.sum()
            outputs.append(sum(w * value[group] for w, value in zip(weights, self.values, strict=True)))
        return self.of_layer("self_attn.o_proj") @ torch.cat(outputs)

    def mlp(self, x: Tensor) -> Tensor:
        gate, up = self.of_layer("mlp.gate_proj") @ x, self.of_layer("mlp.up_proj") @ x
        return self.of_layer("mlp.down_proj") @ (gate / (1 + torch.exp(-gate)) * up)

    def fused(self, features: Tensor) -> Tensor:
        """The target's features [W] as one state [H]."""
        if not self.shape.is_eagle3:
            return features
        if self.shape.fc_norm:
            parts = features.split(self.shape.target_hidden)
            features = torch.cat([self.norm(part, f"fc_norm.{i}") for i, part in enumerate(parts)])
        if self.shape.norm_before_fc:
            features = self.norm(features, "input_norm")
        return self.weights["fc.weight"] @ features

    def layer_output(self, token: int, state: Tensor, position: int) -> Tensor:
        """The decoder layer's output y [H]."""
        embedded, layer = self.weights["embed_tokens.weight"][token], self.shape.layer
        if self.shape.is_eagle3:
            normed = self.norm(state, f"{layer}.hidden_norm")
            residual = normed if self.shape.norm_before_residual else state
            attended = torch.cat((self.norm(embedded, f"{layer}.input_layernorm"), normed))
        else:
            x = self.weights["fc.weight"] @ torch.cat((embedded, state)) + self.weights["fc.bias"]
            residual = attended = x
        y = residual + self.attention(attended, position)
        return y + self.mlp(self.norm(y, f"{layer}.post_attention_layernorm"))

    def row(self, token: int, state: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Logits [V] over the target's vocabulary and the state [H] handed on."""
        y = self.layer_output(token, state, position)
        normed = self.norm(y, "norm") if self.shape.is_eagle3 else y
        logits = torch.full((self.shape.vocabulary,), -torch.inf, dtype=torch.float64)
        logits[self.token_of] = self.weights["lm_head.weight"] @ normed
        return logits, normed if self.shape.norm_output else y


class MtpHead:
    """A multi-token-prediction module in float64 that takes one row after the other and runs all rows anew for each."""

    def __init__(self, shape: MtpShape, tensors: dict[str, Tensor]):
        from transformers import AutoConfig, AutoModel  # slow, and the other heads do without

        self.weights = {name.removeprefix(shape.prefix): value.double() for name, value in tensors.items()}
        longer = {"num_hidden_layers": shape.config["num_hidden_layers"] + 1}
        if "mlp_layer_types" in shape.config:
            longer["mlp_layer_types"] = [*shape.config["mlp_layer_types"], "sparse"]
        self.config = AutoConfig.for_model(**shape.config | longer)
        model = AutoModel.from_config(self.config, attn_implementation="eager", dtype=torch.float64).eval()
        model.set_experts_implementation("eager")
        self.layer, self.rotary = model.layers[-1], model.rotary_emb
        self.layer.load_state_dict(self.layer_state())
        self.layer.mlp.register_forward_hook(self.keep)
        self.inputs: list[Tensor] = []  # of the layer, per row
        self.passed: tuple[Tensor, Tensor] | None = None  # through the mixture of experts in the last pass

    def layer_state(self) -> dict[str, Tensor]:
        """The layer's tensors with the experts' in one, as transformers holds them."""
        of_layer = ("self_attn.", "mlp.", "input_layernorm.", "post_attention_layernorm.")
        state = {
            name: value
            for name, value in self.weights.items()
            if name.startswith(of_layer) and not name.startswith("mlp.experts.")
        }

        def experts(name: str) -> list[Tensor]:
            count = self.config.n_routed_experts
            return [self.weights[f"mlp.experts.{expert}.{name}_proj.weight"] for expert in range(count)]

        pairs = zip(experts("gate"), experts("up"), strict=True)
        state["mlp.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
        state["mlp.experts.down_proj"] = torch.stack(experts("down"))
        return state

    def keep(self, _, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        self.passed = (inputs[0][0], outputs[0])

    def norm(self, x: Tensor, name: str) -> Tensor:
        return rms_norm(x, self.weights[f"{name}.weight"], self.config.rms_norm_eps)

    def fused(self, features: Tensor) -> Tensor:
        return features

    def row(self, token: int, state: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Logits [V] and the state [H] handed on."""
        embedded = self.norm(self.weights["embed_tokens.weight"][token], "enorm")
        self.inputs.append(self.weights["eh_proj.weight"] @ torch.cat((embedded, self.norm(state, "hnorm"))))
        rows = position + 1
        x = torch.stack(self.inputs)[None]
        mask = torch.full((1, 1, rows, rows), -torch.inf, dtype=x.dtype).triu(1)
        y = self.layer(x, attention_mask=mask, position_embeddings=self.rotary(x, torch.arange(rows)[None]))
        handed_on = self.norm(y[0, -1], "shared_head.norm")
        return self.weights["shared_head.head.weight"] @ handed_on, handed_on

    def is_telling(self) -> bool:
        """Whether all experts are used and every choice among them is clear."""
        block, (inputs, outputs) = self.layer.mlp, self.passed
        if (naive_moe.forward(block, self.config, inputs) - outputs).abs().max() > 1e-5:
            raise SystemExit("the mixture of experts of transformers is off")
        routes = [naive_moe.route(block, self.config, row) for row in inputs]
        used = {expert for chosen, _, _ in routes for expert in chosen}
        # Of sigmoid scores it gives ten times the margin.
        return len(used) == self.config.n_routed_experts and min(gap for _, _, gap in routes) > 10 * MARGIN


def compute(head: Head | MtpHead, tokens: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [ROWS, V] and recycled states [ROWS, H] of all rows."""
    logits, recycled = [], []
    for position, token in enumerate(tokens.tolist()):
        if position >= TARGET_ROWS:
            state = recycled[-1]
        else:
            state = head.fused(features[position].double())
        row_logits, row_state = head.row(token, state, position)
        logits.append(row_logits)
        recycled.append(row_state)
    return torch.stack(logits), torch.stack(recycled)


def build(config: dict, storage: torch.dtype) -> tuple[dict, dict, int]:
    """The checkpoint, what is expected of it, and the seed of both."""
    is_mtp = "num_nextn_predict_layers" in config
    target = load_file((mtp_target(config["model_type"]) if is_mtp else TARGET) / "model.safetensors")
    shape = MtpShape(config, target) if is_mtp else Shape(config)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        tensors = random_tensors(shape, storage, generator)
        tokens = torch.randint(3, shape.vocabulary, (ROWS,), generator=generator)
        features = torch.randn(TARGET_ROWS, shape.features * shape.target_hidden, generator=generator)
        tensors |= shape.copied() if is_mtp else {}
        head = MtpHead(shape, tensors) if is_mtp else Head(shape, tensors, target)
        logits, recycled = compute(head, tokens, features)
        best = logits.topk(2, dim=-1).values
        if (best[:, 0] - best[:, 1]).min() > MARGIN and (not is_mtp or head.is_telling()):
            expected = {
                "tokens": tokens.to(torch.int32),
                "features": features,
                "logits": logits.float(),
                "recycled": recycled.float(),
            }
            return tensors, expected, seed
    raise SystemExit("no seed gives clear margins")


def medusa_logits(tensors: dict[str, Tensor], blocks: int, output: Tensor, features: Tensor) -> Tensor:
    """Logits [V] of one head, whose tensors are named without its number, for features [H]."""
    x = features.double()
    for block in range(blocks):
        y = tensors[f"{block}.linear.weight"].double() @ x + tensors[f"{block}.linear.bias"].double()
        x = x + y / (1 + torch.exp(-y))
    return tensors.get(f"{blocks}.weight", output).double() @ x


def build_medusa(config: dict, storage: torch.dtype, heads: int, own_output: bool, prefix: str) -> tuple:
    """The checkpoint, what is expected of it, and the seed of both."""
    blocks, output = config["medusa_num_layers"], load_file(TARGET / "model.safetensors")["lm_head.weight"]
    vocabulary, hidden = output.shape
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(TARGET_ROWS, hidden, generator=generator)
        own = []
        for _ in range(heads):
            head = {}
            for block in range(blocks):
                head[f"{block}.linear.weight"] = torch.randn(hidden, hidden, generator=generator) * 0.08
                head[f"{block}.linear.bias"] = torch.randn(hidden, generator=generator) * 0.5
            if own_output:
                head[f"{blocks}.weight"] = torch.randn(vocabulary, hidden, generator=generator) * 0.3
            own.append({name: value.to(storage) for name, value in head.items()})
        logits = torch.stack(
            [torch.stack([medusa_logits(head, blocks, output, row) for row in features]) for head in own]
        )
        best = logits.topk(2, dim=-1).values
        if (best[..., 0] - best[..., 1]).min() > MARGIN:
            tensors = {f"{prefix}{i}.{name}": value for i, head in enumerate(own) for name, value in head.items()}
            return tensors, {"features": features, "logits": logits.float()}, seed
    raise SystemExit("no seed gives clear margins")


@torch.no_grad()
def make(name: str) -> None:
    file = "model.safetensors"
    if name in CASES:
        config, storage = CASES[name]
        tensors, expected, seed = build(config, storage)
    else:
        config, *how, file = MEDUSA_CASES[name]
        tensors, expected, seed = build_medusa(config, *how)
    write_fixture(name, config, file, tensors, expected, seed)


def write_fixture(
    name: str,
    config: dict,
    file: str,
    tensors: dict[str, Tensor],
    expected: dict[str, Tensor],
    seed: int,
) -> None:
    """The folder of a head."""
    folder = GOLDEN / "heads" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / file, metadata={"format": "pt"})
    # One key: the order of several is not fixed.
    made_by = {"made_by": f"torch {torch.__version__}, seed {seed}"}
    save_file(expected, folder / "expected.safetensors", metadata=made_by)
    for path in folder.iterdir():
        path.chmod(0o644)
    kilobytes = sum(path.stat().st_size for path in folder.iterdir()) // 1024
    print(f"{name}: seed {seed}, {kilobytes} KB", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or (*CASES, *MEDUSA_CASES):
        make(name)


if __name__ == "__main__":
    main()
