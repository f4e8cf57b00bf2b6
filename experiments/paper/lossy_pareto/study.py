"""R13: exact distance and exact tokens per pass of lossy policies on the golden toy, and tokens per pass on the pair."""

import numpy as np
import pandas
from measure import TOY_DRAFT, TOY_TARGET, with_tau

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
    dominated = [row.policy for row in lossy.itertuples() if row.expected_tokens < token.expected_tokens]
    study.verdict("every lossy setting emits more than token verification", not dominated,
                  f"{len(dominated)} of {len(lossy)} emit fewer: {', '.join(dominated) or 'none'}", "none",
                  "A lossy rule that emits fewer tokens than an exact one has no use.", lossy["source"].to_list())  # fmt: skip
    cells = with_tau(study.sweep())
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
