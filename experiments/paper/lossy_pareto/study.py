"""R13: exact distance and exact tokens per pass of lossy policies on the golden toy, and tokens per pass on the pair."""

import numpy as np
import pandas
from measure import TOY_DRAFT, TOY_TARGET, interval_text, tau_ratio, with_tau

import specmoe


def prove(policy, gamma):
    proof = specmoe.prove(policy, tree=f"chain(gamma={gamma})", target=TOY_TARGET, draft=TOY_DRAFT)
    return {"expected_tokens": proof.expected_tokens, "distance": proof.tvd, "lossless": proof.lossless}


def run(study):
    config, gamma = study.config, study.config["gamma"]
    specs = [(family, spec) for family, list_ in config["policies"].items() for spec in list_]
    specs += [("exact", spec) for spec in config["exact"]]
    proofs = pandas.DataFrame(
        {**study.row({"policy": spec, "gamma": gamma}, lambda s=spec: prove(s, gamma)), "family": family}
        for family, spec in specs
    )
    token = proofs[proofs["policy"] == "token"].iloc[0]
    for family in ("lenient", "mentored"):
        some = proofs[proofs["family"] == family]
        rising = (np.diff(some["expected_tokens"]) >= -1e-9).all() and (np.diff(some["distance"]) >= -1e-9).all()
        study.verdict(f"{family}: more tokens only for more distance", bool(rising),
                      f"{some.iloc[0].expected_tokens:.3f} tokens at distance {some.iloc[0].distance:.3f} to "
                      f"{some.iloc[-1].expected_tokens:.3f} at {some.iloc[-1].distance:.3f}", "both rise with the knob",
                      f"Exact, joint law of {gamma + 1} tokens on the golden toy.", some["source"].to_list())  # fmt: skip
    strict = proofs[proofs["policy"] == "lenient(lenience=1)"].iloc[0]
    study.verdict("the strict end of lenience is token verification",
                  abs(strict.expected_tokens - token.expected_tokens) < 1e-9 and strict.distance < 1e-9,
                  f"{strict.expected_tokens:.6f} tokens, distance {strict.distance:.1e}",
                  f"{token.expected_tokens:.6f} and 0", "Exact.", [strict.source, token.source])  # fmt: skip
    for family in ("typical", "relaxed"):
        some = proofs[proofs["family"] == family]
        study.verdict(f"{family}: more tokens as it loosens, and never exact above temperature 0",
                      bool((np.diff(some["expected_tokens"]) >= -1e-9).all() and (some["distance"] > 1e-3).all()),
                      f"distance {some['distance'].min():.3f} to {some['distance'].max():.3f}, tokens "
                      f"{some['expected_tokens'].min():.3f} to {some['expected_tokens'].max():.3f}",
                      "tokens rise with the knob, distance above 0",
                      "Threshold rules accept by the target's probability alone, so even strict ones shift the law; "
                      "only at temperature 0 do they meet the greedy rule.", some["source"].to_list())  # fmt: skip
    lossy = proofs[~proofs["lossless"]]
    exact = proofs[proofs["family"] == "exact"]["expected_tokens"].max()
    best = lossy.groupby("family")["expected_tokens"].max()
    dominated = lossy[lossy["expected_tokens"] < exact]
    study.verdict("every family can be loosened beyond every exact rule", bool((best > exact).all()),
                  ", ".join(f"{family} {tokens:.3f}" for family, tokens in best.items()), f"each above {exact:.3f}, block's",
                  f"But {len(dominated)} of {len(lossy)} settings are worth nothing here, as they emit fewer tokens than an "
                  f"exact rule: {', '.join(dominated['policy']) or 'none'}.", lossy["source"].to_list())  # fmt: skip
    cells = with_tau(study.sweep())
    base = cells[cells["acceptance"] == "token"].iloc[0]
    for name, whose in (("typical", "Medusa's typical acceptance"), ("relaxed", "relaxed acceptance")):
        cell = cells[cells["acceptance"].str.startswith(name)].iloc[0]
        gain = tau_ratio(cell, base)
        study.verdict(f"on the trained pair, {whose} emits more than token verification", gain[1] > 1,
                      f"{cell.acceptance}: {interval_text(gain)}", "above 1",
                      "Temperature 1. A threshold rule keeps what the target finds likely, token verification what both "
                      "models find likely: which keeps more depends on how close the drafter is.",
                      [cell.source, base.source])  # fmt: skip
    study.table("Exact, golden toy", proofs, {
        "policy": "policy", "expected_tokens": "tokens per pass", "distance": "total variation distance",
        "lossless": "lossless"})  # fmt: skip
    study.table("Trained pair, temperature 1, chain of 4", cells, {
        "acceptance": "policy", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high",
        "acceptance_rate": "acceptance", "lossless": "lossless"})  # fmt: skip

    def draw(axes):
        for family, some in proofs.groupby("family", sort=False):
            axes.plot(some["distance"], some["expected_tokens"], "o" if family == "exact" else "o-", label=family)
        axes.set_xlabel(f"total variation distance of {gamma + 1} tokens from the target")
        axes.set_ylabel("expected tokens per target pass")
        axes.legend()

    study.plot("pareto", "Exact values; up and left is better.", draw)
