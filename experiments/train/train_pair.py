"""Trains the target and, on the same batches, the drafter that imitates it. Resumable.

    python train_pair.py --run RUN --tokenizer FOLDER --export OUT --minutes 110

RUN holds the state and the log; OUT/target and OUT/drafter are Hugging Face folders of averaged
weights. The learning rate warms up, stays, and goes down to zero over the last `decay_share` of the
run, which ends after `--steps` steps or `--minutes` minutes, whichever comes first.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from corpus import Corpus
from export import export, load
from model import LanguageModel, SoftCrossEntropy, parameter_count

HERE = Path(__file__).parent
LOG_FIELDS = (
    "step,tokens,seconds,learning_rate,target_loss,drafter_loss,drafter_agreement,balance_loss,"
    "gradient_norm,least_expert_share,most_expert_share"
).split(",")
LOG_EVERY = 25  # steps


class Average:
    """An exponential average of a model's weights."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average; early updates count more, to forget the initial weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in model.state_dict().items():
            self.state[name].lerp_(value, 1 - decay)


class Learner:
    """A model with its optimizer and averaged weights."""

    def __init__(self, model: nn.Module, recipe: dict):
        self.model = model
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": recipe["weight_decay"]},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=tuple(recipe["betas"]), fused=True)
        self.average = Average(self.model, recipe["average_decay"])
        self.clip = recipe["gradient_clip"]

    def apply(self, loss: Tensor, learning_rate: float) -> float:
        """One optimizer step; returns the gradient's norm."""
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def state(self) -> dict:
        """Everything a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
        }

    def restore(self, state: dict) -> None:
        """The inverse of `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.state, self.average.updates = state["average"], state["updates"]


def start_model(config: dict, recipe: dict, init_from: Path | None) -> LanguageModel:
    """A model with the weights of the exported folder `init_from`, or with random ones."""
    model = LanguageModel(config)
    if init_from:
        model.load_state_dict(load(init_from).state_dict())
    else:
        model.init_weights(recipe["seed"])
    return model


def schedule(progress: float, step: int, recipe: dict) -> float:
    """Factor on the learning rates at `progress` in 0..1: warm-up, stable, linear decay to zero."""
    warm = min(1.0, (step + 1) / recipe["warm_up_steps"])
    return warm * min(1.0, max(0.0, 1 - progress) / recipe["decay_share"])


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


class Trainer:
    """The pair, the corpus and the log."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        self.args, self.recipe = args, recipe
        self.corpus = Corpus(Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")), recipe)
        init = args.init_from
        self.target = Learner(start_model(recipe["target"], recipe, init and init / "target"), recipe)
        self.drafter = Learner(start_model(recipe["drafter"], recipe, init and init / "drafter"), recipe)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        args.run.mkdir(parents=True, exist_ok=True)
        self.state_file, self.log_file = args.run / "state.pt", args.run / "log.csv"
        if self.state_file.exists():
            self.restore()
        self.sums: dict[str, float] = {}

    def restore(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        self.target.restore(state["target"])
        self.drafter.restore(state["drafter"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        print(f"resumed at step {self.step}, {self.tokens / 1e6:.2f} M tokens", flush=True)

    def save(self) -> None:
        state = {
            "target": self.target.state(),
            "drafter": self.drafter.state(),
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state_file)

    def export(self) -> None:
        for name, learner in (("target", self.target), ("drafter", self.drafter)):
            folder = self.args.export / name
            export(learner.average.state, learner.model.config, self.args.tokenizer, folder)
        print(f"exported at step {self.step}", flush=True)

    def batch(self) -> tuple[Tensor, Tensor]:
        """ids [B, T+1] and which predictions count [B, T] of the current step."""
        recipe = self.recipe
        every = round(1 / recipe["long_share"])
        length = recipe["long_length" if self.step % every == 0 else "short_length"]
        ids, counts = self.corpus.batch(self.step, recipe["batch_tokens"] // length, length)
        return torch.from_numpy(ids), torch.from_numpy(counts)

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

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)

    def log(self, factor: float) -> None:
        """Appends the means since the last line."""
        row = {name: sum(values) / len(values) for name, values in self.sums.items()}
        row |= {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        row["learning_rate"] = factor * self.recipe["learning_rate"]
        self.sums = {}
        is_new = not self.log_file.exists()
        with self.log_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            if is_new:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        print(
            f"step {self.step} {self.tokens / 1e6:.2f} M tokens {self.tokens / self.seconds:.0f} "
            f"tokens/s loss {row['target_loss']:.3f} drafter {row.get('drafter_agreement', 0):.3f}",
            flush=True,
        )

    def run(self) -> None:
        """Trains to the end of the schedule; a termination signal saves the state and stops."""
        args, stop = self.args, []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        last_save = last_export = time.monotonic()
        while True:
            began = time.monotonic()
            progress = max(self.step / args.steps, self.seconds / (60 * args.minutes))
            if progress >= 1 or stop:
                break
            factor = schedule(progress, self.step, self.recipe)
            self.train_step(factor)
            now = time.monotonic()
            self.seconds += now - began
            if self.step % LOG_EVERY == 0:
                self.log(factor)
            if now - last_save > 60 * args.save_minutes:
                self.save()
                last_save = now
            if now - last_export > 60 * args.export_minutes:
                self.export()
                last_export = now
        self.save()
        self.export()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the state and the log")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--export", type=Path, required=True, help="folder of the two models")
    parser.add_argument("--init-from", type=Path, help="exported pair to start from")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.json")
    parser.add_argument("--phase", help="use the settings of this name under the recipe's `phases`")
    parser.add_argument("--steps", type=int, default=10**9, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=1e9, help="time for the schedule")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--export-minutes", type=float, default=15)
    parser.add_argument("--threads", type=int, default=1)
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
