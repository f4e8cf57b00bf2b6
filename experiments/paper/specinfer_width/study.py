"""R4: tokens per target pass on the trained pair as the third level of the tree widens."""

from measure import bootstrap, draw_interval, interval_text, tau_ratio, undecided, with_tau

LAWS = {"iid": "independent draws", "without_replacement": "without replacement"}


def curvature(narrow, middle, wide):
    """How much more the first widening adds to the tokens per pass than the second."""
    columns = [cell[f"per_prompt.{name}"] for cell in (narrow, middle, wide) for name in ("emitted", "steps")]
    return bootstrap(
        lambda e1, s1, e3, s3, e5, s5: 2 * e3.sum() / s3.sum() - e1.sum() / s1.sum() - e5.sum() / s5.sum(), *columns
    )


def run(study):
    cells = with_tau(study.sweep())
    cells["width"] = cells["tree"].str.extract(r"expansion\(1,1,(\d+)").astype(int)
    cells["law"] = cells["tree"].str.extract(r"law=(\w+)")
    gains = {}
    for law, some in cells.groupby("law"):
        some = some.sort_values("width")
        narrow, wide = some.iloc[0], some.iloc[-1]
        gains[law] = tau_ratio(wide, narrow)
        study.verdict(
            f"a wider level emits more, {LAWS[law]}",
            gains[law][1] > 1.0,
            f"k = {wide.width} over k = 1: {interval_text(gains[law])}",
            "above 1 (1.06 and 1.09 in the toy of the claim)",
            f"Tokens per pass: {', '.join(f'{t:.2f}' for t in some['tau'])} for k = {', '.join(map(str, some['width']))}."
            + undecided(gains[law], 1.06),
            some["source"].to_list(),
        )
    widest = cells[cells["width"] == cells["width"].max()].set_index("law")
    ahead = tau_ratio(widest.loc["without_replacement"], widest.loc["iid"])
    study.verdict(
        "drawing without replacement emits at least as much",
        ahead[2] >= 1,
        f"at k = {cells['width'].max()}: {interval_text(ahead)} of the tokens of independent draws",
        "no interval wholly below 1",
        "Equal siblings waste a node; they are common where the drafter is sure.",
        widest["source"].to_list(),
    )
    for law, some in cells.groupby("law"):
        by_width = some.set_index("width")
        if {1, 3, 5} <= set(by_width.index):
            bend = curvature(*(by_width.loc[k] for k in (1, 3, 5)))
            study.verdict(f"the gain shrinks with the width, {LAWS[law]}", bend[1] > 0,
                          f"k = 1 to 3 gains {interval_text(bend)} tokens more than k = 3 to 5", "above 0",
                          "A concave curve." + (" The interval holds 0: the bend is smaller than the sampling error."
                                                if bend[1] <= 0 <= bend[2] else ""),
                          some["source"].to_list())  # fmt: skip
    study.table("Tokens per target pass", cells, {
        "law": "draws", "width": "k", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high"})  # fmt: skip

    def draw(axes):
        for law, some in cells.groupby("law"):
            some = some.sort_values("width")
            draw_interval(axes, some["width"], some, "tau", "tau_low", "tau_high", label=LAWS[law])
        axes.set_xlabel("children k of each node of the third level (tokens)")
        axes.set_ylabel("emitted tokens per target pass")
        axes.legend()

    study.plot("width", "Temperature 1, multi-step acceptance, with 95 % bands over prompts.", draw)
