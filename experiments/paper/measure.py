"""Figures from cells of a grid, with 95 % bootstrap intervals over prompts, and the toy models that proofs run on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas

import specmoe

RESAMPLES = 2000

# The golden toy: rows by last token, start state 0.
TOY_TARGET = [[0.5, 0.35, 0.15], [0.15, 0.55, 0.3], [0.4, 0.35, 0.25]]
TOY_DRAFT = [[0.2, 0.25, 0.55], [0.45, 0.35, 0.2], [0.25, 0.2, 0.55]]


def bootstrap(statistic: Callable[..., float], *columns: np.ndarray) -> tuple[float, float, float]:
    """statistic of the columns, and the interval of it when prompts (rows, drawn together) are drawn with replacement."""
    random = np.random.default_rng(0)
    arrays = [np.asarray(column, dtype=float) for column in columns]
    count = len(arrays[0])
    drawn = [statistic(*(array[pick] for array in arrays)) for pick in random.integers(0, count, (RESAMPLES, count))]
    return float(statistic(*arrays)), *(float(edge) for edge in np.quantile(drawn, [0.025, 0.975]))


def tau(cell: pandas.Series) -> tuple[float, float, float]:
    """Emitted tokens per target pass of one cell."""
    return bootstrap(lambda emitted, steps: emitted.sum() / steps.sum(), cell["per_prompt.emitted"],
                     cell["per_prompt.steps"])  # fmt: skip


def tau_ratio(cell: pandas.Series, base: pandas.Series) -> tuple[float, float, float]:
    """tau of a cell over that of another one, on the same prompts."""
    assert cell["per_prompt.question_id"] == base["per_prompt.question_id"]
    return bootstrap(
        lambda emitted, steps, base_emitted, base_steps: (
            (emitted.sum() / steps.sum()) / (base_emitted.sum() / base_steps.sum())
        ),
        cell["per_prompt.emitted"], cell["per_prompt.steps"], base["per_prompt.emitted"], base["per_prompt.steps"],
    )  # fmt: skip


def with_tau(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The frame with tau_low and tau_high."""
    intervals = [tau(row) for _, row in frame.iterrows()]
    return frame.assign(tau_low=[low for _, low, _ in intervals], tau_high=[high for *_, high in intervals])


def rates_by_rank(star: pandas.DataFrame) -> list[float]:
    """Chance that the accepted child is of rank 1, 2, ..: how acceptance grows with the width of a star, expansion(k)."""
    star = star.assign(width=star["tree"].str.extract(r"expansion\((\d+)", expand=False).astype(int)).sort_values(
        "width"
    )
    accepted = (star["counts.accepted_at"].str[0] / star["counts.steps"]).cummax()
    rates: list[float] = []
    before = 0.0
    for reached, width in zip(accepted, star["width"], strict=True):
        ranks = width - len(rates)
        rates += [max((reached - before) / ranks, 0.001)] * ranks
        before = reached
    return [rate * min(1.0, 0.999 / sum(rates)) for rate in rates]


def short(tree: str) -> str:
    """A topology's spec without the parameters that have their default values."""
    name, _, inside = tree.partition("(")
    defaults = {f"{p.name}={p.default}" for p in specmoe.tree_policies()[name].parameters}
    kept = [part for part in inside.removesuffix(")").split(",") if part not in defaults]
    return f"{name}({','.join(kept)})" if kept else name


def interval_text(values: tuple[float, float, float], digits: int = 3) -> str:
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def undecided(values: tuple[float, float, float], claimed: float) -> str:
    """A sentence for a verdict whose interval holds both no effect (1) and the claimed one."""
    _, low, high = values
    return " The interval holds 1 and the claimed value: this run cannot tell." if low <= 1 and claimed <= high else ""


def draw_interval(axes, x, frame: pandas.DataFrame, value: str, low: str, high: str, **style) -> None:
    """A line of medians or means with its interval as a band."""
    (line,) = axes.plot(x, frame[value], "o-", **style)
    axes.fill_between(x, frame[low], frame[high], alpha=0.18, color=line.get_color(), linewidth=0)
