"""R4: tokens per target pass on the trained pair as the third level of the tree widens."""

from measure import draw_interval, interval_text, tau_ratio, with_tau

LAWS = {"iid": "independent draws", "without_replacement": "without replacement"}


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
            f"Tokens per pass: {', '.join(f'{t:.2f}' for t in some['tau'])} for k = {', '.join(map(str, some['width']))}.",
            some["source"].to_list(),
        )
    study.verdict(
        "drawing without replacement gains at least as much",
        gains["without_replacement"][0] >= gains["iid"][0],
        f"{gains['without_replacement'][0]:.3f} against {gains['iid'][0]:.3f}",
        "the first not below the second",
        "Equal siblings waste a node; they are common where the drafter is sure.",
        cells["source"].to_list(),
    )
    for law, some in cells.groupby("law"):
        steps = some.sort_values("width")["tau"].to_list()
        if len(steps) > 3:
            first, last = steps[2] - steps[0], steps[-1] - steps[2]
            study.verdict(f"the gain shrinks with the width, {LAWS[law]}", first > last,
                          f"k = 1 to 3: {first:+.3f}; k = 3 to 5: {last:+.3f} tokens per pass",
                          "the first the larger", "A concave curve; differences of this size are near the sampling error.",
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
