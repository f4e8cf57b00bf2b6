"""Measures an exported pair on held-out problems and held-out library files.

    python evaluate.py --models FOLDER --output FOLDER/results.json

Prints and writes: loss in nats per token, greedy accuracy by kind, the drafter's agreement with the
target's greedy tokens, tokens per target step of a greedy chain of `--gamma` draft tokens, and the
experts' loads.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import BEGIN_ID, END_ID, measured_code_files, read_code
from export import load
from model import LanguageModel, parameter_count
from word_problems import KINDS, Problem, make_problem, read_answer, wrong_sums

SEED = "held-out"
CODE_WINDOW = 256  # tokens


def held_out_problems(per_kind: int, seed: str = SEED) -> list[Problem]:
    """`per_kind` different problems of each kind, none of which training can draw."""
    rng, problems = Random(seed), []
    for kind in KINDS:
        seen: dict[str, Problem] = {}
        while len(seen) < per_kind:
            problem = make_problem(rng, kind, held_out=True)
            seen[problem.prompt] = problem
        problems += seen.values()
    return problems


def code_windows(tokenizer: Tokenizer, count: int) -> Tensor:
    """`count` pieces [count, CODE_WINDOW + 1] of held-out files, each after a begin token."""
    rng, pieces = Random(SEED), []
    files = [read_code(path) for path in measured_code_files()]
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in files]
    encoded = [ids for ids in encoded if len(ids) > CODE_WINDOW]
    while len(pieces) < count:
        ids = rng.choice(encoded)
        start = rng.randrange(len(ids) - CODE_WINDOW)
        pieces.append([BEGIN_ID, *ids[start : start + CODE_WINDOW]])
    return torch.tensor(pieces)


@torch.no_grad()
def generate(model: LanguageModel, prompts: list[list[int]], max_new: int) -> list[list[int]]:
    """Greedy continuations of a batch, each up to and without the end token."""
    rows, longest = len(prompts), max(map(len, prompts))
    ids = torch.full((rows, longest), END_ID)
    real = torch.zeros((rows, longest), dtype=torch.bool)
    for row, prompt in enumerate(prompts):  # padded on the left
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        real[row, longest - len(prompt) :] = True
    positions = (real.cumsum(1) - 1).clamp_min(0)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = (causal & real[:, None]) | torch.eye(longest, dtype=torch.bool)
    past: list[list] = [[] for _ in model.layers]
    produced, done = [], torch.zeros(rows, dtype=torch.bool)
    logits = model(ids, past, positions, mask[:, None])[:, -1]
    for _ in range(max_new):
        token = logits.argmax(-1)
        produced.append(token)
        done |= token == END_ID
        if done.all():
            break
        real = torch.cat((real, torch.ones(rows, 1, dtype=torch.bool)), dim=1)
        positions = positions[:, -1:] + 1
        logits = model(token[:, None], past, positions, real[:, None, None])[:, -1]
    result = []
    for row in torch.stack(produced, dim=1).tolist():
        result.append(row[: row.index(END_ID)] if END_ID in row else row)
    return result


def generate_all(model: LanguageModel, prompts: list[list[int]], max_new: int) -> list[list[int]]:
    """`generate` in batches of 64."""
    texts = []
    for start in range(0, len(prompts), 64):
        texts += generate(model, prompts[start : start + 64], max_new)
    return texts


@torch.no_grad()
def agreement(drafter: LanguageModel, prompt: list[int], text: list[int]) -> list[bool]:
    """For each token of the target's greedy text: is it the drafter's most likely one?"""
    ids = torch.tensor([prompt + text])
    best = drafter(ids)[0].argmax(-1)[len(prompt) - 1 : -1]
    return (best == torch.tensor(text)).tolist()


def tokens_per_step(agrees: list[bool], gamma: int) -> tuple[int, int]:
    """(tokens, target steps) of a greedy chain: a step takes a run (up to gamma) and one more.

    Exact for greedy decoding: while the drafter agrees, it has seen the target's own text.
    """
    at = steps = 0
    while at < len(agrees):
        run = 0
        while run < gamma and at + run < len(agrees) and agrees[at + run]:
            run += 1
        at, steps = at + run + 1, steps + 1
    return len(agrees), steps


@torch.no_grad()
def text_loss(model: LanguageModel, ids: Tensor, first: int = 0) -> tuple[float, int]:
    """Summed loss in nats of ids [B, T+1] from prediction `first` on, and how many there are."""
    law = model(ids[:, :-1]).log_softmax(dim=-1)
    loss = -law.gather(2, ids[:, 1:, None])[:, first:, 0]
    return float(loss.sum()), loss.numel()


def losses(model: LanguageModel, tokenizer: Tokenizer, problems: list[Problem], windows: Tensor):
    """Nats per token on the solutions of problems (after their prompts) and on library windows."""
    total = count = 0
    for problem in problems:
        prompt = tokenizer.encode(problem.prompt).ids
        solution = tokenizer.encode(problem.solution, add_special_tokens=False).ids
        ids = torch.tensor([[*prompt, *solution, END_ID]])
        loss, n = text_loss(model, ids, len(prompt) - 1)
        total, count = total + loss, count + n
    code = [text_loss(model, part) for part in windows.split(16)]
    return {
        "problem_loss_nats": total / count,
        "code_loss_nats": sum(loss for loss, _ in code) / sum(n for _, n in code),
    }


@torch.no_grad()
def expert_shares(model: LanguageModel, batches: list[Tensor]) -> list[list[float]]:
    """Each expert's share of the choices, by layer."""
    counts = torch.zeros(len(model.layers), model.config["num_local_experts"])
    for ids in batches:
        model(ids)
        counts += torch.stack([layer.counts for layer in model.moe_layers()])
    return (counts / counts.sum(dim=1, keepdim=True)).tolist()


def draft_quality(drafter: LanguageModel, pairs: list, gamma: int) -> dict:
    """Agreement and tokens per target step over (prompt ids, greedy text ids)."""
    hits = total = steps = 0
    for prompt, text in pairs:
        if not text:
            continue
        agrees = agreement(drafter, prompt, text)
        hits += sum(agrees)
        tokens, n = tokens_per_step(agrees, gamma)
        total, steps = total + tokens, steps + n
    return {"agreement": hits / total, f"tokens_per_step_chain_{gamma}": total / steps}


def evaluate(folder: Path, per_kind: int, gamma: int) -> dict:
    """All measurements of the pair in `folder`."""
    target, drafter = load(folder / "target"), load(folder / "drafter")
    tokenizer = Tokenizer.from_file(str(folder / "target" / "tokenizer.json"))
    problems = held_out_problems(per_kind)
    prompts = [tokenizer.encode(problem.prompt).ids for problem in problems]
    solutions = generate_all(target, prompts, max_new=128)
    texts = [tokenizer.decode(ids) for ids in solutions]
    right, sums_right = Counter(), Counter()
    for problem, text in zip(problems, texts, strict=True):
        right[problem.kind] += read_answer(text) == problem.answer
        sums_right[problem.kind] += not wrong_sums(text)
    windows = code_windows(tokenizer, 64)
    code_prompts = [ids[:96].tolist() for ids in windows]
    code_texts = generate_all(target, code_prompts, max_new=96)
    sample = problems[:: max(1, len(problems) // 200)]
    problem_pairs = list(zip(prompts, solutions, strict=True))
    code_pairs = list(zip(code_prompts, code_texts, strict=True))
    problem_ids = [torch.tensor([[*prompt, *text]]) for prompt, text in problem_pairs[::4]]
    return {
        "target_parameters": parameter_count(target),
        "drafter_parameters": parameter_count(drafter),
        "held_out_problems": len(problems),
        "greedy_accuracy": sum(right.values()) / len(problems),
        "greedy_accuracy_by_kind": {kind: right[kind] / per_kind for kind in KINDS},
        "solutions_without_a_wrong_sum": sum(sums_right.values()) / len(problems),
        "mean_solution_tokens": sum(map(len, solutions)) / len(solutions),
        "target": losses(target, tokenizer, sample, windows),
        "drafter": losses(drafter, tokenizer, sample, windows),
        "drafter_on_problems": draft_quality(drafter, problem_pairs, gamma),
        "drafter_on_code": draft_quality(drafter, code_pairs, gamma),
        "expert_shares_problems": expert_shares(target, problem_ids),
        "expert_shares_code": expert_shares(target, list(windows.split(16))),
    }


def rounded(value):
    """Floats to four digits after the point, in nested results."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder of target and drafter")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--per-kind", type=int, default=120, help="problems of each kind")
    parser.add_argument("--gamma", type=int, default=4, help="draft tokens per step")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = rounded(evaluate(args.models, args.per_kind, args.gamma))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    shown = {key: value for key, value in results.items() if not key.startswith("expert_shares")}
    print(json.dumps(shown, indent=2))
    for name in ("expert_shares_problems", "expert_shares_code"):
        shares = [share for layer in results[name] for share in layer]
        print(f"{name}: least {min(shares):.3f}, most {max(shares):.3f}")


if __name__ == "__main__":
    main()
