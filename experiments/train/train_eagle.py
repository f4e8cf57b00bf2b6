"""Trains an EAGLE-3 draft head for a finished target, with training-time test. Resumable.

    python train_eagle.py --target FOLDER --run RUN --export FOLDER --minutes 55

Pair t of a row is (token t + 1, the target's residual streams at position t) and predicts the target's
law at position t + 1. Step j of the training-time test takes the head's own state in place of the
streams, token t + 1 + j and position t + j; besides the first step's keys up to column t it attends to
the later steps' keys of its own column alone, as drafting would.

Shapes: B rows, C pairs, H hidden, V target vocabulary, D draft vocabulary, n predicted positions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from corpus import Corpus
from export import export_head, load
from model import DenseMlp, LanguageModel, RMSNorm, SoftCrossEntropy, parameter_count, rope_tables, rotate
from training import HERE, HeadRun, Learner, Streams, add_run_options


def head_config(settings: dict, target: dict) -> dict:
    """`config.json` of a head for a target, in the dialect of SafeAILab and SpecForge."""
    if settings["hidden_size"] != target["hidden_size"]:
        raise SystemExit("a head that borrows the target's embedding has the target's hidden size")
    own = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    config = {key: settings[key] for key in (*own, "draft_vocab_size")}
    config |= {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "vocab_size": target["vocab_size"],
        "target_hidden_size": target["hidden_size"],
        "max_position_embeddings": target["max_position_embeddings"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "eagle_aux_hidden_state_layer_ids": settings["taps"],
    }
    return dict(sorted(config.items()))


class DraftAttention(nn.Module):
    """Grouped-query attention over the keys of the first step and, by column, of the later ones."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.group = heads // kv_heads
        self.q_proj = nn.Linear(2 * hidden, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(2 * hidden, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(2 * hidden, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, steps: list[tuple[Tensor, Tensor]]) -> Tensor:
        """x [B, C, 2H] -> [B, C, H]. `steps` holds the keys and values of the steps so far; this one's are added."""
        rows, columns, _ = x.shape
        q, k, v = (
            proj(x).view(rows, columns, -1, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = rotate(q, cos, sin) * self.head_dim**-0.5
        k = rotate(k, cos, sin).repeat_interleave(self.group, dim=1)
        steps.append((k, v.repeat_interleave(self.group, dim=1)))
        (first_keys, first_values), *later = [(k[:, :, :columns], v[:, :, :columns]) for k, v in steps]
        above = torch.full((columns, columns), -torch.inf).triu(1)
        scores = [q @ first_keys.transpose(2, 3) + above]
        scores += [(q * keys).sum(-1, keepdim=True) for keys, _ in later]
        probs = torch.cat(scores, dim=-1).softmax(dim=-1)
        out = probs[..., :columns] @ first_values
        for i, (_, values) in enumerate(later):
            out = out + probs[..., columns + i, None] * values
        return self.o_proj(out.transpose(1, 2).reshape(rows, columns, -1))


class DraftLayer(nn.Module):
    """A decoder layer whose attention reads the normed embedding and the normed state side by side."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.hidden_norm = RMSNorm(hidden, eps), RMSNorm(hidden, eps)
        self.self_attn = DraftAttention(config)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.mlp = DenseMlp(config)

    def forward(self, embedded: Tensor, state: Tensor, cos: Tensor, sin: Tensor, steps: list) -> Tensor:
        """Embedded tokens and states [B, C, H] -> new states [B, C, H]."""
        x = torch.cat((self.input_layernorm(embedded), self.hidden_norm(state)), dim=-1)
        y = state + self.self_attn(x, cos, sin, steps)
        return y + self.mlp(self.post_attention_layernorm(y))


class EagleHead(nn.Module):
    """An EAGLE-3 head without embedding, with the tensor names of its checkpoint."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        hidden, taps = config["hidden_size"], len(config["eagle_aux_hidden_state_layer_ids"])
        self.fc = nn.Linear(taps * config["target_hidden_size"], hidden, bias=False)
        self.midlayer = DraftLayer(config)
        self.norm = RMSNorm(hidden, config["rms_norm_eps"])
        self.lm_head = nn.Linear(hidden, config["draft_vocab_size"], bias=False)
        cos, sin = rope_tables(config["max_position_embeddings"], config["head_dim"], config["rope_theta"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def init_weights(self, seed: int, target: LanguageModel, kept: Tensor) -> None:
        """Normal init, 0.02; the output starts as the target's for the tokens `kept` [D]."""
        generator = torch.Generator().manual_seed(seed)
        for tensor in self.parameters():
            if tensor.dim() > 1:
                nn.init.normal_(tensor, std=0.02, generator=generator)
        with torch.no_grad():
            self.lm_head.weight.copy_(target.lm_head.weight[kept])
            self.norm.weight.copy_(target.norm.weight)

    def forward(self, embedded: Tensor, features: Tensor, count: int) -> Iterator[Tensor]:
        """Final states [B, T - 1 - j, H], to be given to `lm_head`, of the steps j = 0 .. count - 1.

        Takes embedded tokens [B, T, H] and the target's streams [B, T, taps * H].
        """
        state, steps = self.fc(features), []
        for j in range(count):
            columns = embedded.shape[1] - 1 - j
            cos, sin = self.cos[j : j + columns], self.sin[j : j + columns]
            state = self.midlayer(embedded[:, 1 + j :], state[:, :columns], cos, sin, steps)
            yield self.norm(state)


class Lesson:
    """What the target says on ids [B, T + 1] where `counts` [B, T].

    embedded [B, T, H] and features [B, T, taps * H] of the first T tokens; best [B, T] the draft id of
    the target's best token, -1 if it has none; law [n, D] the target's law over the draft vocabulary
    where `counts` holds and there is a draft id, row [B, T] the place of a position in it.
    """

    @torch.no_grad()
    def __init__(self, target: LanguageModel, streams: Streams, ids: Tensor, counts: Tensor, kept: Tensor):
        self.counts = counts
        hidden = target.hidden(ids[:, :-1])
        self.features, self.embedded = streams.last(), target.embed_tokens(ids[:, :-1])
        logits = target.lm_head(target.norm(hidden[counts]))
        draft_id = torch.full((logits.shape[1],), -1)
        draft_id[kept] = torch.arange(len(kept))
        best = draft_id[logits.argmax(-1)]
        self.best = torch.full(counts.shape, -1)
        self.best[counts] = best
        self.law = logits[best >= 0][:, kept].softmax(dim=-1)
        self.row = (self.best >= 0).flatten().cumsum(0).view(counts.shape) - 1


def losses(head: EagleHead, lesson: Lesson, count: int) -> tuple[list[Tensor], list[float]]:
    """Cross entropy and agreement of each step; tokens without a draft id count as disagreement."""
    entropies, agreements = [], []
    for j, final in enumerate(head(lesson.embedded, lesson.features, count)):
        best, row = lesson.best[:, 1 + j :], lesson.row[:, 1 + j :]
        wanted = best >= 0
        logits = head.lm_head(final[wanted])
        loss, probs = SoftCrossEntropy.apply(logits, best[wanted], lesson.law[row[wanted]], 0.0)
        entropies.append(loss)
        hits = (probs.argmax(-1) == best[wanted]).sum()
        agreements.append(float(hits / lesson.counts[:, 1 + j :].sum()))
    return entropies, agreements


def frequent_tokens(corpus: Corpus, settings: dict, vocabulary: int) -> Tensor:
    """The `draft_vocab_size` most frequent predicted tokens of the first batches, ascending [D]."""
    uses = np.zeros(vocabulary, dtype=np.int64)
    length = settings["short_length"]
    for step in range(settings["vocabulary_batches"]):
        ids, counts = corpus.batch(step, settings["batch_tokens"] // length, length)
        uses += np.bincount(ids[:, 1:][counts], minlength=vocabulary)
    order = np.argsort(-uses, kind="stable")[: settings["draft_vocab_size"]]
    return torch.from_numpy(np.sort(order))


def export_eagle(state: dict[str, Tensor], config: dict, kept: Tensor, folder: Path) -> None:
    """The folder of a head, with the tables of its vocabulary."""
    said = torch.zeros(config["vocab_size"], dtype=torch.bool)
    said[kept] = True
    export_head(state, config, folder, tables={"d2t": kept - torch.arange(len(kept)), "t2d": said})


class Trainer(HeadRun):
    """A head for the frozen target."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        super().__init__(args, recipe, Corpus(Tokenizer.from_file(str(args.target / "tokenizer.json")), recipe))
        self.target = load(args.target).requires_grad_(False)
        self.streams = Streams(self.target, recipe["taps"])
        config = head_config(recipe, self.target.config)
        self.head = EagleHead(config)
        self.kept = frequent_tokens(self.corpus, recipe, config["vocab_size"])
        self.head.init_weights(recipe["seed"], self.target, self.kept)
        self.learner = Learner(self.head, recipe)
        self.resume()

    def learned(self) -> dict:
        return {"head": self.learner.state(), "kept": self.kept}

    def take(self, learned: dict) -> None:
        self.learner.restore(learned["head"])
        self.kept = learned["kept"]

    def export(self) -> None:
        """Writes the averaged weights."""
        export_eagle(self.learner.average.state, self.head.config, self.kept, self.args.export)
        print(f"exported at step {self.step}", flush=True)

    def train_step(self, factor: float) -> None:
        """One step of the head."""
        recipe, (ids, counts) = self.recipe, self.batch()
        lesson = Lesson(self.target, self.streams, ids, counts, self.kept)
        entropies, agreements = losses(self.head, lesson, recipe["test_steps"])
        self.learn(self.head, entropies, agreements, recipe["step_weight"], factor)
        self.step += 1
        self.tokens += counts.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--target", type=Path, default=HERE.parent / "models" / "target")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = json.loads(args.recipe.read_text())
    trainer = Trainer(args, recipe | recipe["eagle"])
    print(f"head: {parameter_count(trainer.head):,} parameters", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
