"""What the training scripts share: learners, the schedule, and a run that can be resumed."""

from __future__ import annotations

import argparse
import csv
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from corpus import Corpus
from model import LanguageModel

HERE = Path(__file__).parent
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


def schedule(progress: float, step: int, recipe: dict) -> float:
    """Factor on the learning rates at `progress` in 0..1: warm-up, stable, linear decay to zero."""
    warm = min(1.0, (step + 1) / recipe["warm_up_steps"])
    return warm * min(1.0, max(0.0, 1 - progress) / recipe["decay_share"])


class TrainingRun:
    """A training run: its corpus, its state and its log.

    A subclass defines `train_step(factor)`, which adds what is to be logged, `learned()` and
    `take(learned)` (what besides the counts a resumed run needs), `export()`, and `summary(row)`,
    a few words about a line of the log.
    """

    def __init__(self, args: argparse.Namespace, recipe: dict, corpus: Corpus):
        self.args, self.recipe, self.corpus = args, recipe, corpus
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.values: dict[str, list[float]] = {}  # since the last line of the log
        args.run.mkdir(parents=True, exist_ok=True)
        self.state_file, self.log_file = args.run / "state.pt", args.run / "log.csv"

    def resume(self) -> None:
        """Goes on from the saved state, if there is one."""
        if self.state_file.exists():
            state = torch.load(self.state_file, weights_only=True)
            self.take(state)
            self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
            print(f"resumed at step {self.step}, {self.tokens / 1e6:.2f} M tokens", flush=True)
        self.cut_log()

    def cut_log(self) -> None:
        """Drops a half-written line of the log, and those of steps that a killed run did not save: they come again."""
        if not self.log_file.exists():
            return
        head, *lines = self.log_file.read_bytes().splitlines(keepends=True) or [b""]
        kept = [line for line in lines if line.endswith(b"\n") and int(line.split(b",")[0]) <= self.step]
        if not head.endswith(b"\n"):
            self.log_file.unlink()
        elif kept != lines:
            partial = self.log_file.with_suffix(".partial")
            partial.write_bytes(head + b"".join(kept))
            partial.replace(self.log_file)

    def save(self) -> None:
        """Writes the state under another name first."""
        counts = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        partial = self.state_file.with_suffix(".partial")
        torch.save(self.learned() | counts, partial)
        partial.replace(self.state_file)

    def batch(self) -> tuple[Tensor, Tensor]:
        """ids [B, T+1] and which predictions count [B, T] of the current step."""
        recipe = self.recipe
        every = round(1 / recipe["long_share"])
        length = recipe["long_length" if self.step % every == 0 else "short_length"]
        ids, counts = self.corpus.batch(self.step, recipe["batch_tokens"] // length, length)
        return torch.from_numpy(ids), torch.from_numpy(counts)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def log(self, factor: float) -> None:
        """Appends the means since the last line."""
        row = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        row["learning_rate"] = factor * self.recipe["learning_rate"]
        row |= {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values = {}
        fields = list(row)
        is_new = not self.log_file.exists()
        if not is_new:
            with self.log_file.open(newline="") as file:
                fields = next(csv.reader(file))
        with self.log_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, fields)
            if is_new:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        speed = f"{self.tokens / 1e6:.2f} M tokens {self.tokens / self.seconds:.0f} tokens/s"
        print(f"step {self.step} {speed} {self.summary(row)}", flush=True)

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


class Streams:
    """The residual stream of a target at boundaries: entering that layer, or leaving the last one."""

    def __init__(self, target: LanguageModel, boundaries: list[int]):
        self.boundaries, self.kept = boundaries, {}
        for boundary in boundaries:
            module = target.layers[boundary - 1] if boundary else target.embed_tokens
            module.register_forward_hook(lambda _, inputs, output, at=boundary: self.keep(at, output))

    def keep(self, boundary: int, stream: Tensor) -> None:
        self.kept[boundary] = stream

    def last(self) -> Tensor:
        """Those of the last forward pass, side by side [B, T, boundaries * H]."""
        return torch.cat([self.kept[boundary] for boundary in self.boundaries], dim=-1)


class Lesson:
    """A frozen target on ids [B, T + 1] where `counts` [B, T]: hidden rows [B, T, H] after the final norm,
    its law [n, V] where `counts` holds, row [B, T] the place of a position in it.
    """

    @torch.no_grad()
    def __init__(self, target: LanguageModel, ids: Tensor, counts: Tensor):
        self.counts = counts
        self.hidden = target.norm(target.hidden(ids[:, :-1]))
        self.law = target.lm_head(self.hidden[counts]).softmax(dim=-1)
        self.row = counts.flatten().cumsum(0).view(counts.shape) - 1


class HeadRun(TrainingRun):
    """A run of what makes several predictions a position for a frozen target, prediction i weighing less.

    Subclasses set `learner`."""

    def learn(
        self, module: nn.Module, entropies: list[Tensor], agreements: list[float], weight: float, factor: float
    ) -> None:
        """One step on the sum of weight^i times entropy i."""
        recipe = self.recipe
        loss = sum(weight**i * entropy for i, entropy in enumerate(entropies))
        norm = self.learner.apply(loss, factor * recipe["learning_rate"])
        if self.step % recipe["average_every"] == 0:
            self.learner.average.update(module)
        self.add(loss=loss.item(), gradient_norm=norm)
        self.add(**{f"agreement_{i}": value for i, value in enumerate(agreements)})

    def summary(self, row: dict) -> str:
        agreements = (f"{value:.3f}" for name, value in row.items() if name.startswith("agreement"))
        return f"loss {row['loss']:.3f} agreement {' '.join(agreements)}"


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of a TrainingRun."""
    parser.add_argument("--run", type=Path, required=True, help="folder of the state and the log")
    parser.add_argument("--export", type=Path, required=True, help="folder of what was trained")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.json")
    parser.add_argument("--steps", type=int, default=10**9, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=1e9, help="time for the schedule")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--export-minutes", type=float, default=15)
    parser.add_argument("--threads", type=int, default=1)
