"""Draws what verify_curve measured: r(T) beside its limit, and passes on the roofline of their minute.

    build/cpu/verify_curve FOLDER --output results/curve.jsonl
    .venv/bin/python experiments/benchmarks/plot_curves.py results/curve.jsonl

Writes curve_cost.png and curve_roofline.png beside the file. One curve a model and type; of several runs in the file the
last counts.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Curve = list[dict]


def read_curves(path: Path) -> dict[str, Curve]:
    """Lines by model and type, by growing T. Leaves out, and says so, what had no quiet sample."""
    found: dict[str, dict[int, dict]] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if line["benchmark"] != "verify_curve":
            raise SystemExit(f"{path}: expected lines of verify_curve, got {line['benchmark']}")
        name = f"{line['model']}, {line['dtype']}"
        if None in (*line["seconds"], *line["ratio"], line["read_seconds"], line["multiply_seconds"]):
            print(f"{name}: no quiet sample of {line['rows']} rows, left out")
            continue
        found.setdefault(name, {})[line["rows"]] = line
    return {name: [rows[t] for t in sorted(rows)] for name, rows in found.items()}


def median(interval: list[float]) -> float:
    return interval[0]


def limit(line: dict) -> float:
    """Seconds that bytes and multiply-adds leave a pass."""
    return max(line["read_seconds"], line["multiply_seconds"])


def panels(curves: dict[str, Curve], title: str) -> tuple[plt.Figure, list[plt.Axes]]:
    columns = min(2, len(curves))
    rows = (len(curves) + columns - 1) // columns
    figure, axes = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.9 * rows), squeeze=False, layout="constrained")
    host = next(iter(curves.values()))[0]
    figure.suptitle(f"{title}\n{host['cpu']}, {host['instruction_set']}, {host['threads']} threads", fontsize=11)
    flat = list(axes.flat)
    for unused in flat[len(curves) :]:
        unused.remove()
    for axis, name in zip(flat, curves, strict=False):
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    return figure, flat


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Powers of two in plain numbers."""
    axis.set_major_locator(LogLocator(base=2, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})


def plot_cost(curves: dict[str, Curve], path: Path) -> None:
    figure, axes = panels(curves, "Cost of a verify pass, r(T) = time of T rows / time of one")
    for axis, lines in zip(axes, curves.values(), strict=False):
        rows = [line["rows"] for line in lines]
        ratio = [median(line["ratio"]) for line in lines]
        spread = [
            [median(line["ratio"]) - line["ratio"][1] for line in lines],
            [line["ratio"][2] - median(line["ratio"]) for line in lines],
        ]
        axis.errorbar(rows, ratio, yerr=spread, fmt="o-", ms=4, capsize=2, label="measured")
        one = median(lines[0]["seconds"]) / median(lines[0]["ratio"])
        axis.plot(rows, [limit(line) / one for line in lines], "k--", label="limit: bytes or arithmetic")
        if "predicted_ratio" in lines[0]:  # lines of before the cost model have none
            axis.plot(rows, [line["predicted_ratio"] for line in lines], "-.", color="C1", label="predicted")
        axis.plot(rows, [line["read_seconds"] / one for line in lines], ":", color="gray", label="bytes alone")
        axis.set(xscale="log", xlabel="T, rows of a pass", ylabel="r(T)", ylim=(0, None))
        log_ticks(axis.xaxis, 0.9, 1.1 * rows[-1])
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)


def plot_roofline(curves: dict[str, Curve], path: Path) -> None:
    figure, axes = panels(curves, "Passes of 1 to 32 rows on the roofline of their minute")
    for axis, lines in zip(axes, curves.values(), strict=False):
        intensity = [line["operations"] / line["bytes"] for line in lines]
        rate = [line["operations"] / median(line["seconds"]) / 1e9 for line in lines]
        axis.plot(intensity, rate, "o-", ms=4)
        roof = [line["operations"] / limit(line) / 1e9 for line in lines]
        axis.plot(intensity, roof, "k--", label="reading the same bytes, multiplying in registers")
        for line, x, y in zip(lines, intensity, rate, strict=True):
            if line["rows"] in (1, 2, 4, 8, 16, 32):
                axis.annotate(f"T={line['rows']}", (x, y), xytext=(4, -11), textcoords="offset points", fontsize=7)
        axis.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s")
        log_ticks(axis.xaxis, 0.8 * min(intensity), 1.6 * max(intensity))
        log_ticks(axis.yaxis, 0.7 * min(rate), 1.5 * max(roof))
    axes[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    args = parser.parse_args()
    if not args.lines.is_file():
        parser.error(f"{args.lines} is no file; give what verify_curve wrote")
    curves = read_curves(args.lines)
    if not curves:
        parser.error(f"{args.lines} has no line of verify_curve with a quiet sample; measure again with more rounds")
    for name, plot in (("cost", plot_cost), ("roofline", plot_roofline)):
        path = args.lines.with_name(f"{args.lines.stem}_{name}.png")
        plot(curves, path)
        print(path)


if __name__ == "__main__":
    main()
