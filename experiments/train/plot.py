"""Draws the training log: losses, the drafter's agreement, and the experts' shares.

python plot.py --log loss_curve.csv --output loss_curve.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTHING = 8  # log lines per plotted mean


def read_log(path: Path) -> dict[str, list[float]]:
    """Columns of the log; empty cells are NaN."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}


def smooth(values: list[float]) -> list[float]:
    """Trailing means over up to SMOOTHING values, NaN left out."""
    result = []
    for i in range(len(values)):
        part = [v for v in values[max(0, i + 1 - SMOOTHING) : i + 1] if v == v]
        result.append(sum(part) / len(part) if part else float("nan"))
    return result


def draw(log: dict[str, list[float]], output: Path) -> None:
    """Three panels over millions of tokens."""
    tokens = [t / 1e6 for t in log["tokens"]]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    axes[0].plot(tokens, smooth(log["target_loss"]), label="target")
    axes[0].plot(tokens, smooth(log["drafter_loss"]), label="drafter (imitation)")
    axes[0].set(ylabel="training loss, nats per token", yscale="log")
    axes[0].set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    axes[0].minorticks_off()
    axes[0].legend()
    axes[1].plot(tokens, smooth(log["drafter_agreement"]), color="C1")
    axes[1].set(ylabel="drafter's best token = target's", ylim=(0, 1))
    axes[2].plot(tokens, smooth(log["least_expert_share"]), label="least used expert")
    axes[2].plot(tokens, smooth(log["most_expert_share"]), label="most used expert")
    axes[2].axhline(1 / 8, color="grey", linewidth=0.8, label="even share")
    axes[2].set(ylabel="share of a layer's choices", ylim=(0, None))
    axes[2].legend()
    for axis in axes:
        axis.set_xlabel("million tokens")
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="log.csv of the run")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    args = parser.parse_args()
    draw(read_log(args.log), args.output)


if __name__ == "__main__":
    main()
