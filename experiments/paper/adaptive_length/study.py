"""R11: discarded drafts against tokens per pass, fixed and adaptive chains of the trained pair."""

import numpy as np
from measure import bootstrap, interval_text, short


def figures(cell):
    """tokens per pass, discarded drafts per emitted token."""
    columns = [cell[f"per_prompt.{name}"] for name in ("emitted", "steps", "drafted", "accepted")]
    tau = bootstrap(lambda e, s, d, a: e.sum() / s.sum(), *columns)
    waste = bootstrap(lambda e, s, d, a: (d - a).sum() / e.sum(), *columns)
    return (*tau, *waste)


def saved(cell, fixed, first=0, every=1):
    """Discarded drafts over those of a fixed chain with the same tokens per pass (read off between two lengths).

    On prompts first, first + every, ..
    """
    names = ("emitted", "steps", "drafted", "accepted")
    chains = [cell, *(other for _, other in fixed.iterrows())]
    columns = [chain[f"per_prompt.{name}"][first::every] for chain in chains for name in names]

    def statistic(*drawn):
        groups = [drawn[i : i + 4] for i in range(0, len(drawn), 4)]
        points = [(e.sum() / s.sum(), (d - a).sum() / e.sum()) for e, s, d, a in groups]
        (own_tau, own_waste), curve = points[0], sorted(points[1:])
        at = np.interp(own_tau, [tau for tau, _ in curve], [waste for _, waste in curve])
        return own_waste / at if at > 0 else 1.0

    return bootstrap(statistic, *columns)


def run(study):
    cells = study.sweep()
    names = ["tau", "tau_low", "tau_high", "waste", "waste_low", "waste_high"]
    cells[names] = [figures(cell) for _, cell in cells.iterrows()]
    cells["fixed"] = cells["tree"].str.startswith("chain")
    for temperature, some in cells.groupby("temperature"):
        fixed, adaptive = some[some["fixed"]], some[~some["fixed"]]
        ratios = {cell["tree"]: saved(cell, fixed) for _, cell in adaptive.iterrows()}
        by_tree = adaptive.set_index("tree")
        best = min(ratios, key=lambda tree: saved(by_tree.loc[tree], fixed, 0, 2)[0])
        judged = saved(by_tree.loc[best], fixed, 1, 2)
        study.verdict(f"the best adaptive chain discards less at equal tokens per pass, temperature {temperature:g}",
                      judged[2] < 1, f"{short(best)}: {interval_text(judged)} of the fixed chain's discards",
                      "below 1", "Compared with the fixed lengths at the same tokens per pass, between two of them. The "
                      "setting was chosen on every second prompt and is judged on the others.",
                      some["source"].to_list())  # fmt: skip
        better = sum(ratio[0] < 1 for ratio in ratios.values())
        study.verdict(f"most settings do, temperature {temperature:g}", better > len(ratios) / 2, f"{better} of {len(ratios)}",
                      "more than half", "Rules: confidence, survival and entropy.", adaptive["source"].to_list())  # fmt: skip
    cells["tree"] = cells["tree"].map(short)
    study.table("Fixed and adaptive chains", cells, {
        "temperature": "temperature", "tree": "tree", "tau": "tokens per pass", "waste": "discarded per emitted",
        "waste_low": "low", "waste_high": "high"})  # fmt: skip

    def draw(axes):
        some = cells[cells["temperature"] == cells["temperature"].min()]
        fixed = some[some["fixed"]].sort_values("tau")
        axes.plot(fixed["waste"], fixed["tau"], "o-", label="fixed length")
        rest = some[~some["fixed"]]
        axes.plot(rest["waste"], rest["tau"], "s", label="adaptive")
        axes.set_xlabel("discarded drafts per emitted token")
        axes.set_ylabel("emitted tokens per target pass")
        axes.legend()

    study.plot("discards", "Up and left is better; lowest temperature of the run.", draw)
