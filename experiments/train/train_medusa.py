"""Trains Medusa heads for a finished target, which stays as it is (Medusa-1). Resumable.

    python train_medusa.py --target FOLDER --run RUN --export FOLDER --minutes 30

Head i reads the target's hidden row at position t, after the final norm, and predicts the target's law
at position t + 1 + i, that is, of token t + 2 + i.

Source: Cai et al. 2024, arXiv:2401.10774, the loss of its section 2.2.1 with the weights 0.8^i; differs:
the cross entropy is that with the target's law, not with the text.

Shapes: B rows, T positions, H hidden, V vocabulary, n predicted positions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from corpus import Corpus
from export import export_head, load
from model import LanguageModel, SoftCrossEntropy, parameter_count
from training import HERE, HeadRun, Learner, Lesson, add_run_options


class ResBlock(nn.Module):
    """x + silu(W x + b)."""

    def __init__(self, hidden: int):
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.linear(x))


class MedusaHeads(nn.ModuleList):
    """Heads with the tensor names of their checkpoint."""

    def __init__(self, settings: dict, target: LanguageModel):
        hidden, vocabulary = target.config["hidden_size"], target.config["vocab_size"]
        layers = settings["medusa_num_layers"]
        super().__init__(
            nn.Sequential(*(ResBlock(hidden) for _ in range(layers)), nn.Linear(hidden, vocabulary, bias=False))
            for _ in range(settings["medusa_num_heads"])
        )
        self.config = {"medusa_num_heads": len(self), "medusa_num_layers": layers}

    @torch.no_grad()
    def init_weights(self, target: LanguageModel) -> None:
        """Every head starts as the target's own output."""
        for head in self:
            for block in head[:-1]:
                block.linear.weight.zero_()
                block.linear.bias.zero_()
            head[-1].weight.copy_(target.lm_head.weight)


def losses(heads: MedusaHeads, lesson: Lesson) -> tuple[list[Tensor], list[float]]:
    """Cross entropy with the target's law, and agreement with its best token, of each head."""
    entropies, agreements = [], []
    for i, head in enumerate(heads):
        wanted = lesson.counts[:, 1 + i :]
        law = lesson.law[lesson.row[:, 1 + i :][wanted]]
        best = law.argmax(-1)
        logits = head(lesson.hidden[:, : -1 - i][wanted])
        loss, probs = SoftCrossEntropy.apply(logits, best, law, 0.0)
        entropies.append(loss)
        agreements.append(float((probs.argmax(-1) == best).float().mean()))
    return entropies, agreements


def export_heads(state: dict[str, Tensor], config: dict, folder: Path) -> None:
    """The folder of heads, in the file that the authors name so."""
    export_head(state, config, folder, "medusa_lm_head.safetensors")


class Trainer(HeadRun):
    """Heads for the frozen target."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        super().__init__(args, recipe, Corpus(Tokenizer.from_file(str(args.target / "tokenizer.json")), recipe))
        self.target = load(args.target).requires_grad_(False)
        self.heads = MedusaHeads(recipe, self.target)
        self.heads.config["base_model_name_or_path"] = args.target.resolve().name
        self.heads.init_weights(self.target)
        self.learner = Learner(self.heads, recipe)
        self.resume()

    def learned(self) -> dict:
        return {"heads": self.learner.state()}

    def take(self, learned: dict) -> None:
        self.learner.restore(learned["heads"])

    def export(self) -> None:
        """Writes the averaged weights."""
        export_heads(self.learner.average.state, self.heads.config, self.args.export)
        print(f"exported at step {self.step}", flush=True)

    def train_step(self, factor: float) -> None:
        """One step of all heads."""
        recipe, (ids, counts) = self.recipe, self.batch()
        entropies, agreements = losses(self.heads, Lesson(self.target, ids, counts))
        self.learn(self.heads, entropies, agreements, recipe["head_weight"], factor)
        self.step += 1
        self.tokens += counts.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--target", type=Path, default=HERE.parent / "models" / "target")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = json.loads(args.recipe.read_text())
    trainer = Trainer(args, recipe | recipe["medusa"])
    print(f"heads: {parameter_count(trainer.heads):,} parameters", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
