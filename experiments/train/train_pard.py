"""Teaches a finished drafter to propose for several depths in one pass, from mask tokens. Resumable.

    python train_pard.py --target FOLDER --drafter FOLDER --run RUN --export FOLDER --minutes 30

Behind a text that ends at position t, depth i is predicted at position t + i from i masks: it is the target's law
there, of token t + 1 + i. One pass holds all depths of all texts, which a mask of attention keeps apart.

Source: PARD, An et al. 2025, arXiv:2504.18583; differs: no depth of a position is dropped, and the cross entropy is
that with the target's law, not with the text.

Shapes: B rows, T positions, D depths, H hidden, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import Corpus
from export import export, load
from model import LanguageModel, SoftCrossEntropy, parameter_count
from training import HERE, HeadRun, Learner, Lesson, add_run_options


@cache
def layout(length: int, depths: int) -> tuple[Tensor, Tensor]:
    """Position of each input [D * T], and which inputs each one sees, bool [D * T, D * T].

    Input (i, t) is mask i of the text that ends at t - i, or the token at t for i = 0.
    """
    depth = torch.arange(depths).repeat_interleave(length)
    position = torch.arange(length).repeat(depths)
    end = position - depth
    of_text = (depth == 0) & (position <= end[:, None])
    of_same_masks = (depth > 0) & (depth <= depth[:, None]) & (end == end[:, None])
    return position, of_text | of_same_masks


def losses(drafter: LanguageModel, lesson: Lesson, ids: Tensor, settings: dict) -> tuple[list[Tensor], list[float]]:
    """Cross entropy with the target's law, and agreement with its best token, of each depth."""
    rows, length = lesson.counts.shape
    depths = settings["depths"]
    inputs = torch.full((rows, depths, length), settings["mask_token"])
    inputs[:, 0] = ids[:, :-1]
    positions, seen = layout(length, depths)
    hidden = drafter.hidden(inputs.flatten(1), positions=positions.expand(rows, -1), mask=seen)
    hidden = drafter.norm(hidden).view(rows, depths, length, -1)
    entropies, agreements = [], []
    for i in range(depths):
        wanted = lesson.counts.clone()
        wanted[:, :i] = False  # behind no text at all
        law = lesson.law[lesson.row[wanted]]
        best = law.argmax(-1)
        loss, probs = SoftCrossEntropy.apply(drafter.lm_head(hidden[:, i][wanted]), best, law, 0.0)
        entropies.append(loss)
        agreements.append(float((probs.argmax(-1) == best).float().mean()))
    return entropies, agreements


class Trainer(HeadRun):
    """A drafter for the frozen target."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        super().__init__(args, recipe, Corpus(Tokenizer.from_file(str(args.target / "tokenizer.json")), recipe))
        self.target = load(args.target).requires_grad_(False)
        self.drafter = load(args.drafter)
        self.learner = Learner(self.drafter, recipe)
        self.resume()

    def learned(self) -> dict:
        return {"drafter": self.learner.state()}

    def take(self, learned: dict) -> None:
        self.learner.restore(learned["drafter"])

    def export(self) -> None:
        """Writes the averaged weights."""
        config = self.drafter.config | {"pard_token": self.recipe["mask_token"]}
        export(self.learner.average.state, config, self.args.target, self.args.export)
        print(f"exported at step {self.step}", flush=True)

    def train_step(self, factor: float) -> None:
        """One step of all depths."""
        recipe, (ids, counts) = self.recipe, self.batch()
        entropies, agreements = losses(self.drafter, Lesson(self.target, ids, counts), ids, recipe)
        self.learn(self.drafter, entropies, agreements, recipe["depth_weight"], factor)
        self.step += 1
        self.tokens += counts.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    models = HERE.parent / "models"
    parser.add_argument("--target", type=Path, default=models / "target")
    parser.add_argument("--drafter", type=Path, default=models / "drafter", help="folder of the drafter to begin with")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = json.loads(args.recipe.read_text())
    trainer = Trainer(args, recipe | recipe["pard"])
    print(f"drafter: {parameter_count(trainer.drafter):,} parameters", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
