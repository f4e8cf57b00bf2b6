"""Plots a result file of `specmoe bench`: speed-up per prompt, acceptance per position, where the time goes.

python experiments/plot_results.py results/quickstart.jsonl [--output results/quickstart.png]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

STAGES = ("draft", "verify", "judge", "rest")
STAGE_COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#999999")


def read_summaries(path: Path) -> list[dict]:
    """The summary lines of one file."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                sys.exit(f"{path}, line {number}: not a line of JSON ({error.msg})")
    summaries = [row for row in rows if row.get("kind") == "summary"]
    if not summaries:
        sys.exit(f"{path}: no summary line; expected a file that `specmoe bench --output` wrote")
    return summaries


def label(summary: dict) -> str:
    """A method in a few words: drafter without its path, tree, policy, temperature."""
    drafter = summary["drafter"].split("(")[0]
    lossy = "" if summary["lossless"] else " (lossy)"
    return f"{drafter}, {summary['tree']}, {summary['acceptance']}{lossy}, T = {summary['temperature']:g}"


def tick(name: str) -> str:
    """A label in lines that fit beside a panel."""
    return textwrap.fill(name.replace(",", ", ").replace(",  ", ", "), 30, break_long_words=False)


def colours(count: int) -> list:
    """As many colours as there are methods, told apart even when there are many."""
    if count <= 10:
        return list(plt.get_cmap("tab10").colors[:count])
    return [plt.get_cmap("turbo")((i + 0.5) / count) for i in range(count)]


def plot_speedup(axes: Axes, summaries: list[dict]) -> None:
    """A row per method: a dot per prompt (or batch of prompts), the median, its 95 % interval as a bar."""
    for row, (summary, colour) in enumerate(zip(summaries, colours(len(summaries)), strict=True)):
        speedups = summary["speedup_per_group"]
        median, low, high = (summary["speedup"][key] for key in ("median", "low", "high"))
        spread = [row + 0.18 * ((i % 5) - 2) / 2 for i in range(len(speedups))]
        axes.barh(row, high - low, left=low, height=0.7, color=colour, alpha=0.2)
        axes.plot(speedups, spread, "o", color=colour, markersize=4, alpha=0.7)
        axes.plot([median, median], [row - 0.35, row + 0.35], color=colour, linewidth=2.5)
        axes.annotate(f"{median:.2f}x", (median, row - 0.37), ha="center", va="bottom", fontsize=9, color=colour)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(summaries)), [tick(label(summary)) for summary in summaries], fontsize=8)
    axes.set_ylim(len(summaries) - 0.4, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel("speed-up over plain decoding (x)")
    axes.set_title("Speed-up: dots prompts, line median, bar its 95 % interval", fontsize=10)


def plot_acceptance(axes: Axes, summaries: list[dict]) -> None:
    """Given that a position was judged (solid), and over all steps (dashed)."""
    for summary, colour in zip(summaries, colours(len(summaries)), strict=True):
        judged, reached = summary["acceptance_per_position"], summary["reached_per_position"]
        positions = range(1, len(judged) + 1)
        axes.plot(positions, judged, "o-", color=colour, markersize=4, label="accepted / judged there")
        axes.plot(positions, reached, "s--", color=colour, markersize=4, alpha=0.6, label="accepted / steps")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("position in the draft (tokens)")
    axes.set_ylabel("share accepted")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Acceptance per position", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], fontsize=8, loc="lower left")


def time_rows(summaries: list[dict]) -> list[tuple[str, float, dict]]:
    """Label, tokens/s and stage shares of every method, plain decoding of each temperature before its methods."""
    rows, seen = [], set()
    for summary in summaries:
        temperature = summary["temperature"]
        if temperature not in seen:
            seen.add(temperature)
            rows.append((f"plain, T = {temperature:g}", summary["plain_tokens_per_s"], summary["plain_time_share"]))
        rows.append((label(summary), summary["speculative_tokens_per_s"], summary["time_share"]))
    return rows


def plot_time(axes: Axes, summaries: list[dict]) -> None:
    """Stacked microseconds per emitted token."""
    rows = time_rows(summaries)
    lefts = [0.0] * len(rows)
    for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
        widths = [1e6 / rate * share[stage] for _, rate, share in rows]
        axes.barh(range(len(rows)), widths, left=lefts, color=colour, label=stage, height=0.6)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for row, (_, rate, _) in enumerate(rows):
        axes.annotate(
            f"{rate:,.0f} tokens/s",
            (lefts[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [tick(name) for name, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.6 * max(lefts))  # room for the legend
    axes.set_xlabel("decode time per emitted token (µs)")
    axes.set_title("Where the time goes", fontsize=10)
    axes.legend(fontsize=8, loc="center right")


def plot(results: Path, output: Path) -> None:
    """Writes the three panels of one result file as a PNG."""
    summaries = read_summaries(results)
    size = (16, 3.6 + 0.8 * len(summaries))
    figure, panels = plt.subplots(1, 3, figsize=size, layout="constrained", width_ratios=(1.1, 0.9, 1))
    for draw, axes in zip((plot_speedup, plot_acceptance, plot_time), panels, strict=True):
        draw(axes, summaries)
    origin = summaries[0]["provenance"]
    figure.suptitle(
        f"{summaries[0]['model_id']}, {origin['dtype']}, batch {summaries[0]['batch']}; "
        f"{origin['cpu'].strip()}, {origin['instruction_set']}, {origin['threads']} threads",
        fontsize=11,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="JSONL file written by `specmoe bench --output`")
    parser.add_argument("--output", type=Path, help="PNG to write; default: beside the results")
    arguments = parser.parse_args()
    output = arguments.output or arguments.results.with_suffix(".png")
    if not arguments.results.is_file():
        sys.exit(f"{arguments.results}: no such file")
    plot(arguments.results, output)
    print(f"plot: {output}")


if __name__ == "__main__":
    main()
