"""Question: does block verification pay on a mixture of experts?

It accepts at least as much as token verification, so a pass emits more tokens. But a longer accepted run only helps if
the longer drafts that it makes worth while do not wake more experts than they save passes. One grid answers it.

    .venv/bin/python experiments/first_study.py [FOLDER]      # default: results/first_study
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

import specmoe

MODELS = Path(__file__).resolve().parent / "models"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/first_study")
folder.mkdir(parents=True, exist_ok=True)

# 1. Is the method right at all? Exactly, on small models, before anything is timed.
for policy in ("token", "block"):
    print(policy, specmoe.prove(policy, tree="chain(gamma=3)"))

# 2. One grid: both policies at several lengths, sampled. Interrupt it when you like: the same command goes on.
frame = specmoe.sweep(
    {
        "target": MODELS / "target",
        "drafter": f"independent(path={MODELS / 'drafter'})",
        "tree": [f"chain(gamma={gamma})" for gamma in (1, 2, 4, 8)],
        "accept": ["token", "block"],
        "temperature": 1.0,
        "prompts": MODELS / "prompts/quickstart.jsonl",
        "max-new-tokens": 64,
        "threads": 1,
    },
    cells=folder / "cells.jsonl",
)
frame["gamma"] = frame["tree"].str.extract(r"gamma=(\d+)").astype(int)
print(frame[["acceptance", "gamma", "tau", "unique_experts", "verify_cost_ratio", "speedup"]].round(2).to_string())

# 3. The answer as a plot: what a pass emits, and what that is worth.
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for policy, some in frame.groupby("acceptance"):
    panels[0].plot(some["gamma"], some["tau"], "o-", label=policy)
    errors = [some["speedup"] - some["speedup_low"], some["speedup_high"] - some["speedup"]]
    panels[1].errorbar(some["gamma"], some["speedup"], errors, fmt="o-", capsize=3, label=policy)
panels[0].set_ylabel("emitted tokens per target pass")
panels[1].set_ylabel("speed-up over plain decoding (x)")
for axes in panels:
    axes.set_xlabel("drafted tokens per step")
    axes.legend(title="acceptance")
figure.savefig(folder / "first_study.png", dpi=120)
print(f"plot: {folder / 'first_study.png'}")
