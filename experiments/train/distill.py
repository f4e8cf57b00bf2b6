"""Trains the drafter further to say what the finished target would say.

    python distill.py --models FOLDER --output FOLDER/drafter --log distill.csv --minutes 18

A step takes problems and library text from the corpus and library-like text that the target wrote.
The loss mixes the cross entropy with the target's law and with its best token.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import END_ID, Corpus
from evaluate import generate
from export import export, load
from train_pair import loss_and_law, start_model
from training import HERE, Learner, schedule

LOG_FIELDS = (
    "step",
    "tokens",
    "seconds",
    "learning_rate",
    "loss",
    "agreement",
    "written_agreement",
)
LOG_EVERY = 50  # steps
PROMPT_TOKENS = (24, 128)  # of library text before the target goes on


def written_rows(target, corpus: Corpus, count: int, length: int, seed: str) -> Tensor:
    """Library text continued greedily by the target, [count, length + 1], END_ID after its end."""
    rng, rows = Random(seed), torch.full((count, length + 1), END_ID)
    for start in range(0, count, 64):
        size = min(64, count - start)
        prompts = [corpus.code_piece(rng, rng.randint(*PROMPT_TOKENS)).tolist() for _ in range(size)]
        texts = generate(target, prompts, length + 1 - min(map(len, prompts)))
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True), start):
            ids = (prompt + text)[: length + 1]
            rows[row, : len(ids)] = torch.tensor(ids)
    return rows


class Distiller:
    """The frozen target, the drafter, and where batches come from."""

    def __init__(self, args: argparse.Namespace, recipe: dict):
        self.args, self.recipe, self.settings = args, recipe, recipe["distill"]
        tokenizer = Tokenizer.from_file(str(args.models / "target" / "tokenizer.json"))
        corpus_recipe = recipe | {"seed": self.settings["seed"]}
        corpus_recipe |= {"code_share": [[0, self.settings["corpus_code_share"]]]}
        self.corpus = Corpus(tokenizer, corpus_recipe)
        self.target = load(args.models / "target")
        self.drafter = Learner(start_model(recipe["drafter"], recipe, args.models / "drafter"), recipe)
        self.length = recipe["short_length"]
        seed = f"distill/{self.settings['seed']}"
        began = time.monotonic()
        count = self.settings["written_rows"]
        self.written = written_rows(self.target, self.corpus, count, self.length, seed)
        print(f"the target wrote {count} rows in {time.monotonic() - began:.0f} s", flush=True)

    def batch(self, step: int) -> tuple[Tensor, Tensor, int]:
        """ids [B, T+1], which predictions count [B, T], and the number of written rows (first)."""
        rows = self.settings["batch_tokens"] // self.length
        own = round(rows * self.settings["written_share"])
        ids, counts = map(torch.from_numpy, self.corpus.batch(step, rows - own, self.length))
        chosen = Random(f"{self.settings['seed']}/{step}").sample(range(len(self.written)), own)
        written = self.written[chosen]
        ids = torch.cat((written, ids))
        counts = torch.cat((written[:, 1:] != END_ID, counts))
        return ids, counts, own

    def train_step(self, step: int, factor: float) -> dict:
        """One step of the drafter; returns what is logged."""
        ids, wanted, own = self.batch(step)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            law = self.target.logits_at(ids[:, :-1], wanted).float().softmax(dim=-1)
        best = law.argmax(-1)
        weight = self.settings["best_token_weight"]
        loss, draft = loss_and_law(self.drafter.model, ids, wanted, law, best, weight)
        self.drafter.apply(loss, factor * self.settings["learning_rate"])
        if step % self.settings["average_every"] == 0:
            self.drafter.average.update(self.drafter.model)
        agrees = (draft.argmax(-1) == best).float()
        n = int(wanted[:own].sum())
        return {
            "loss": loss.item(),
            "agreement": agrees[n:].mean().item(),
            "written_agreement": agrees[:n].mean().item(),
        }

    def export(self) -> None:
        tokenizer = self.args.models / "target"
        state = self.drafter.average.state
        export(state, self.recipe["drafter"], tokenizer, self.args.output)

    def run(self) -> None:
        """Trains to the end of the schedule, logging means."""
        began, step, rows = time.monotonic(), 0, []
        with self.args.log.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            while True:
                seconds = time.monotonic() - began
                progress = max(step / self.args.steps, seconds / (60 * self.args.minutes))
                if progress >= 1:
                    break
                factor = schedule(progress, step, self.recipe)
                rows.append(self.train_step(step, factor))
                step += 1
                if step % LOG_EVERY == 0:
                    line = {k: round(sum(r[k] for r in rows) / len(rows), 5) for k in rows[0]}
                    line |= {"step": step, "tokens": step * self.settings["batch_tokens"]}
                    line |= {"seconds": round(seconds, 1)}
                    line |= {"learning_rate": factor * self.settings["learning_rate"]}
                    writer.writerow(line)
                    file.flush()
                    print(" ".join(f"{k} {v}" for k, v in line.items()), flush=True)
                    rows = []
                if step % self.settings["export_every"] == 0:
                    self.export()
        self.export()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder of target and drafter")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new drafter")
    parser.add_argument("--log", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.json")
    parser.add_argument("--steps", type=int, default=10**9, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=1e9, help="time for the schedule")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    Distiller(args, json.loads(args.recipe.read_text())).run()


if __name__ == "__main__":
    main()
