"""Trains the target and, on the same batches, the drafter that imitates it. Resumable.

    python train_pair.py --run RUN --tokenizer FOLDER --export OUT --minutes 110

RUN holds the state and the log; OUT/target and OUT/drafter are Hugging Face folders of averaged
weights. The learning rate warms up, stays, and goes down to zero over the last `decay_share` of the
run, which ends after `--steps` steps or `--minutes` minutes, whichever comes first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import Corpus
from export import export, load
from model import LanguageModel, SoftCrossEntropy, parameter_count
from training import Learner, TrainingRun, add_run_options


def start_model(config: dict, recipe: dict, init_from: Path | None) -> LanguageModel:
    """A model with the weights of the exported folder `init_from`, or with random ones."""
    model = LanguageModel(config)
    if init_from:
        model.load_state_dict(load(init_from).state_dict())
    else:
        model.init_weights(recipe["seed"])
    return model


def loss_and_law(
    model: LanguageModel,
    ids: Tensor,
    wanted: Tensor,
    law: Tensor | None = None,
    labels: Tensor | None = None,
    label_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The loss on ids [B, T+1] where `wanted` [B, T], and the probabilities [wanted.sum(), V].

    Labels are the text's next tokens unless given. Without `law` the loss is that of the labels;
    with it, a mixture of both. Products are in bf16.
    """
    if labels is None:
        labels = ids[:, 1:][wanted]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits_at(ids[:, :-1], wanted)
    return SoftCrossEntropy.apply(logits, labels, law, label_weight)


class Trainer(TrainingRun):
    """The pair, trained on one corpus."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        super().__init__(args, recipe, Corpus(Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")), recipe))
        init = args.init_from
        self.target = Learner(start_model(recipe["target"], recipe, init and init / "target"), recipe)
        self.drafter = Learner(start_model(recipe["drafter"], recipe, init and init / "drafter"), recipe)
        self.resume()

    def learned(self) -> dict:
        return {"target": self.target.state(), "drafter": self.drafter.state()}

    def take(self, learned: dict) -> None:
        self.target.restore(learned["target"])
        self.drafter.restore(learned["drafter"])

    def export(self) -> None:
        for name, learner in (("target", self.target), ("drafter", self.drafter)):
            folder = self.args.export / name
            export(learner.average.state, learner.model.config, self.args.tokenizer, folder)
        print(f"exported at step {self.step}", flush=True)

    def train_step(self, factor: float) -> None:
        """One step of the target and, every `drafter_every` steps, one of the drafter."""
        recipe = self.recipe
        ids, wanted = self.batch()
        loss, law = loss_and_law(self.target.model, ids, wanted)
        moe = self.target.model.moe_layers()
        balance = torch.stack([layer.balance_loss for layer in moe]).mean()
        total = loss + recipe["balance_weight"] * len(moe) * balance
        norm = self.target.apply(total, factor * recipe["learning_rate"])
        if self.step % recipe["drafter_every"] == 0:
            self.drafter_step(ids, wanted, law, factor)
        if self.step % recipe["average_every"] == 0:
            self.target.average.update(self.target.model)
            self.drafter.average.update(self.drafter.model)
        shares = torch.stack([layer.counts / layer.counts.sum() for layer in moe])
        self.add(
            target_loss=loss.item(),
            balance_loss=balance.item(),
            gradient_norm=norm,
            least_expert_share=shares.min().item(),
            most_expert_share=shares.max().item(),
        )
        self.step += 1
        self.tokens += ids.shape[0] * (ids.shape[1] - 1)

    def drafter_step(self, ids: Tensor, wanted: Tensor, law: Tensor, factor: float) -> None:
        """Moves the drafter towards the target's law [n, V] on the same tokens."""
        weight = self.recipe["drafter_text_weight"]
        loss, draft = loss_and_law(self.drafter.model, ids, wanted, law, label_weight=weight)
        self.drafter.apply(loss, factor * self.recipe["drafter_learning_rate"])
        agreement = (draft.argmax(-1) == law.argmax(-1)).float().mean()
        self.add(drafter_loss=loss.item(), drafter_agreement=agreement.item())

    def summary(self, row: dict) -> str:
        return f"loss {row['target_loss']:.3f} drafter {row.get('drafter_agreement', 0):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_options(parser)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--init-from", type=Path, help="exported pair to start from")
    parser.add_argument("--phase", help="use the settings of this name under the recipe's `phases`")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = json.loads(args.recipe.read_text())
    if args.phase:
        recipe |= recipe["phases"][args.phase]
    trainer = Trainer(args, recipe)
    for name in ("target", "drafter"):
        count = parameter_count(getattr(trainer, name).model)
        print(f"{name}: {count:,} parameters", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
