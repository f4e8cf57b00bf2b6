"""Trains a DFlash head for a finished target, which stays as it is. Resumable.

    python train_dflash.py --target FOLDER --run RUN --export FOLDER --minutes 30

A block begins at an anchor, a token of the text, with mask tokens behind it. Its rows attend to the target's residual
streams at the tokens before the anchor, fused to one row each, and to each other; row i predicts the target's law at
the position before it, that is, of the token i places behind the anchor.

Source: DFlash, arXiv:2602.06036; differs: the cross entropy is that with the target's law, not with the text.

Shapes: B rows, T positions, A anchors a row, S block size, H hidden, V vocabulary, n predicted positions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from corpus import Corpus
from export import export_head, load
from model import DenseMlp, LanguageModel, RMSNorm, SoftCrossEntropy, parameter_count, rope_tables, rotate
from training import HERE, HeadRun, Learner, Lesson, Streams, add_run_options


def head_config(settings: dict, target: dict) -> dict:
    """`config.json` of a head for a target, as the authors write them."""
    own = (
        "block_size",
        "num_hidden_layers",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    )
    config = {key: settings[key] for key in own}
    config |= {key: target[key] for key in ("hidden_size", "vocab_size", "max_position_embeddings")}
    config |= {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "attention_bias": False,
        "dflash_config": {
            "mask_token_id": settings["mask_token"],
            "target_layer_ids": [tap - 1 for tap in settings["taps"]],
        },
        "hidden_act": "silu",
        "layer_types": ["full_attention"] * settings["num_hidden_layers"],
        "num_target_layers": target["num_hidden_layers"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
    }
    return dict(sorted(config.items()))


class BlockAttention(nn.Module):
    """Grouped-query attention of blocks to the text before their anchors and to themselves."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.group = heads // kv_heads
        self.q_proj = nn.Linear(hidden, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, hidden, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config["rms_norm_eps"])
        self.k_norm = RMSNorm(self.head_dim, config["rms_norm_eps"])

    def heads(self, x: Tensor, proj: nn.Linear) -> Tensor:
        """x [B, N, H] -> [B, heads, N, head_dim]"""
        return proj(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def keys_and_values(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        keys = rotate(self.k_norm(self.heads(x, self.k_proj)), *turn)
        values = self.heads(x, self.v_proj)
        return keys.repeat_interleave(self.group, dim=1), values.repeat_interleave(self.group, dim=1)

    def forward(self, x: Tensor, context: Tensor, anchors: Tensor, turns: list[tuple[Tensor, Tensor]]) -> Tensor:
        """x [B, A * S, H], context [B, T, H], anchors [B, A]; cosines and sines of both -> [B, A * S, H]."""
        rows, length, count = x.shape[0], context.shape[1], anchors.shape[1]
        size = x.shape[1] // count
        query = rotate(self.q_norm(self.heads(x, self.q_proj)), *turns[0]) * self.head_dim**-0.5
        keys, values = self.keys_and_values(context, turns[1])
        own_keys, own_values = self.keys_and_values(x, turns[0])
        before = torch.arange(length) < anchors.repeat_interleave(size, dim=1)[:, :, None]  # [B, A * S, T]
        text = (query @ keys.transpose(2, 3)).masked_fill(~before[:, None], -torch.inf)

        def by_block(heads: Tensor) -> Tensor:
            return heads.view(rows, -1, count, size, self.head_dim)

        block = (by_block(query) @ by_block(own_keys).transpose(3, 4)).view(rows, -1, count * size, size)
        probs = torch.cat((text, block), dim=-1).softmax(dim=-1)
        of_block = probs[..., length:].view(rows, -1, count, size, size) @ by_block(own_values)
        out = probs[..., :length] @ values + of_block.view(rows, -1, count * size, self.head_dim)
        return self.o_proj(out.transpose(1, 2).reshape(rows, count * size, -1))


class BlockLayer(nn.Module):
    """A decoder layer of blocks."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.self_attn, self.mlp = BlockAttention(config), DenseMlp(config)

    def forward(self, x: Tensor, context: Tensor, anchors: Tensor, turns: list) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), context, anchors, turns)
        return x + self.mlp(self.post_attention_layernorm(x))


class DflashHead(nn.Module):
    """A head with the tensor names of its checkpoint; embedding and output matrix are the target's."""

    def __init__(self, config: dict):
        super().__init__()
        self.config, own = config, config["dflash_config"]
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.fc = nn.Linear(len(own["target_layer_ids"]) * hidden, hidden, bias=False)
        self.hidden_norm, self.norm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.layers = nn.ModuleList(BlockLayer(config) for _ in range(config["num_hidden_layers"]))
        cos, sin = rope_tables(config["max_position_embeddings"], config["head_dim"], config["rope_theta"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def init_weights(self, seed: int, target: LanguageModel) -> None:
        """Normal init, 0.02; the last norm starts as the target's."""
        generator = torch.Generator().manual_seed(seed)
        for tensor in self.parameters():
            if tensor.dim() > 1:
                nn.init.normal_(tensor, std=0.02, generator=generator)
        with torch.no_grad():
            self.norm.weight.copy_(target.norm.weight)

    def forward(self, embedded: Tensor, features: Tensor, anchors: Tensor) -> Tensor:
        """Final rows [B, A, S, H] of blocks whose anchor's and mask's embeddings are [B, A, S, H], behind the target's
        streams [B, T, taps * H]."""
        rows, count, size, hidden = embedded.shape
        context = self.hidden_norm(self.fc(features))
        at = (anchors[:, :, None] + torch.arange(size)).view(rows, 1, -1)  # positions of the blocks' rows
        turns = [(self.cos[at], self.sin[at]), (self.cos[: context.shape[1]], self.sin[: context.shape[1]])]
        x = embedded.reshape(rows, count * size, hidden)
        for layer in self.layers:
            x = layer(x, context, anchors, turns)
        return self.norm(x).view(rows, count, size, hidden)


def choose_anchors(counts: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[B, A] positions behind which a prediction counts, not the first token; with repetition."""
    weights = counts.float() + 1e-6
    weights[:, 0] = 0
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def losses(
    head: DflashHead, target: LanguageModel, lesson: Lesson, features: Tensor, ids: Tensor, anchors: Tensor
) -> tuple[list[Tensor], list[float]]:
    """Cross entropy with the target's law, and agreement with its best token, of each row behind the anchor."""
    config, length = head.config, lesson.counts.shape[1]
    size = config["block_size"]
    block = torch.full((*anchors.shape, size), config["dflash_config"]["mask_token_id"])
    block[:, :, 0] = ids[:, :-1].gather(1, anchors)
    final = head(target.embed_tokens(block).detach(), features, anchors)
    entropies, agreements = [], []
    for i in range(1, size):
        at = anchors + i - 1  # whose law the row predicts
        inside = at.clamp(max=length - 1)
        wanted = (at < length) & lesson.counts.gather(1, inside)
        law = lesson.law[lesson.row.gather(1, inside)[wanted]]
        best = law.argmax(-1)
        logits = target.lm_head(final[:, :, i][wanted])
        loss, probs = SoftCrossEntropy.apply(logits, best, law, 0.0)
        entropies.append(loss)
        agreements.append(float((probs.argmax(-1) == best).float().mean()))
    return entropies, agreements


class Trainer(HeadRun):
    """A head for the frozen target."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        super().__init__(args, recipe, Corpus(Tokenizer.from_file(str(args.target / "tokenizer.json")), recipe))
        self.target = load(args.target).requires_grad_(False)
        self.streams = Streams(self.target, recipe["taps"])
        self.head = DflashHead(head_config(recipe, self.target.config))
        self.head.init_weights(recipe["seed"], self.target)
        self.learner = Learner(self.head, recipe)
        self.resume()

    def learned(self) -> dict:
        return {"head": self.learner.state()}

    def take(self, learned: dict) -> None:
        self.learner.restore(learned["head"])

    def export(self) -> None:
        """Writes the averaged weights."""
        export_head(self.learner.average.state, self.head.config, self.args.export)
        print(f"exported at step {self.step}", flush=True)

    def train_step(self, factor: float) -> None:
        """One step of the head."""
        recipe, (ids, counts) = self.recipe, self.batch()
        lesson = Lesson(self.target, ids, counts)
        generator = torch.Generator().manual_seed(self.step)
        anchors = choose_anchors(counts, counts.shape[1] // recipe["tokens_per_anchor"], generator)
        entropies, agreements = losses(self.head, self.target, lesson, self.streams.last(), ids, anchors)
        self.learn(self.head, entropies, agreements, recipe["row_weight"], factor)
        self.step += 1
        self.tokens += counts.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--target", type=Path, default=HERE.parent / "models" / "target")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = json.loads(args.recipe.read_text())
    trainer = Trainer(args, recipe | recipe["dflash"])
    print(f"head: {parameter_count(trainer.head):,} parameters", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
