"""R1: the closed form against the prover (exactly) and against the engine (with a drafter that is right with chance a)."""

import numpy as np
import pandas
from measure import draw_interval, interval_text, with_tau

import specmoe


def closed_form(a, g):
    return (1 - a ** (g + 1)) / (1 - a)


def prove(a, g):
    """Rows that do not depend on the text, with sum min(p, q) = a."""
    rows = lambda first: [[first, 1 - first]] * 2  # noqa: E731
    proof = specmoe.prove("token", tree=f"chain(gamma={g})", target=rows(1.0), draft=rows(a))
    return {"expected_tokens": proof.expected_tokens, "lossless": proof.lossless}


def run(study):
    config = study.config
    exact = pandas.DataFrame(
        study.row({"alpha": a, "gamma": g}, lambda a=a, g=g: prove(a, g))
        for a in config["alphas"]
        for g in config["proved_gammas"]
    )
    exact["closed_form"] = closed_form(exact["alpha"], exact["gamma"])
    worst = float((exact["expected_tokens"] - exact["closed_form"]).abs().max())
    study.verdict(
        "enumeration gives the closed form",
        worst < config["exact_tolerance"] and exact["lossless"].all(),
        f"largest difference {worst:.1e} over {len(exact)} chains",
        f"below {config['exact_tolerance']:g}",
        "Exact: every way of drafting and judging was visited with the engine's own code.",
        exact["source"].to_list(),
    )

    cells = with_tau(study.sweep())
    cells["alpha"] = cells["drafter"].str.extract(r"alpha=([\d.]+)").astype(float)
    cells["gamma"] = cells["tree"].str.extract(r"gamma=(\d+)").astype(int)
    cells["closed_form"] = closed_form(cells["alpha"], cells["gamma"])
    slack = config["measured_tolerance"] * cells["closed_form"]
    inside = (cells["tau_low"] - slack <= cells["closed_form"]) & (cells["closed_form"] <= cells["tau_high"] + slack)
    last = cells.iloc[-1]
    study.verdict(
        "the engine emits that many",
        bool(inside.all()),
        f"{inside.sum()} of {len(cells)} settings; a = {last.alpha:g}, g = {last.gamma}: "
        + interval_text((last.tau, last.tau_low, last.tau_high)),
        f"{last.closed_form:.3f}, within the interval and {config['measured_tolerance']:.0%}",
        "The slack is for the last step of a text, which is cut at the token limit.",
        cells["source"].to_list(),
    )

    gammas = np.arange(0, 21)
    best = {}
    for cost in config["draft_costs"]:
        speedup = closed_form(0.8, gammas) / (1 + cost * gammas)
        best[cost] = int(gammas[speedup.argmax()])
    study.verdict(
        "the best chain length is neither 0 nor the longest",
        all(0 < g < 20 for g in best.values()) and list(best.values()) == sorted(best.values(), reverse=True),
        "best g at a = 0.8: " + ", ".join(f"{g} for c = {cost:g}" for cost, g in best.items()),
        "inside 1..19, shorter the dearer the draft",
        "Computed from the closed form; c is the time of a draft step over that of a target pass.",
        [],
    )
    study.table("Measured and expected tokens per pass", cells, {
        "alpha": "a", "gamma": "g", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high",
        "closed_form": "closed form"})  # fmt: skip

    def draw(axes):
        for a, some in cells.groupby("alpha"):
            draw_interval(axes, some["gamma"], some, "tau", "tau_low", "tau_high", label=f"a = {a:g}, measured")
            axes.plot(config["gammas"], closed_form(a, np.array(config["gammas"])), "--", color="#8a8f98", linewidth=1)
        axes.set_xlabel("chain length g (tokens)")
        axes.set_ylabel("emitted tokens per target pass")
        axes.legend()

    study.plot("tokens", "Points: engine, with 95 % bands. Dashed: closed form.", draw)
