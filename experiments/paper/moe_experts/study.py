"""R8: uniform routing simulated, and the trained router along the target's own greedy text."""

import json
from pathlib import Path

import numpy as np
import pandas
from measure import bootstrap, interval_text

import specmoe

ROOT = Path(__file__).resolve().parents[3]


def expected(experts, chosen, rows):
    return experts * (1 - (1 - chosen / experts) ** rows)


def simulate(experts, chosen, rows, runs):
    random = np.random.default_rng(1)
    keys = random.random((runs, rows, experts))
    picked = np.argpartition(keys, chosen - 1, axis=-1)[..., :chosen]
    return {"distinct": float(np.mean([len(np.unique(run)) for run in picked]))}


def route(config):
    """Mean distinct experts over windows of t rows, per text; layers together."""
    target = specmoe.load(ROOT / config["target"], dtype="float32", threads=1)
    prompts = [json.loads(line)["turns"][0] for line in (ROOT / config["prompts"]).read_text().splitlines()]
    results = specmoe.Engine(target).generate(prompts, max_new_tokens=config["max_new_tokens"])
    means: dict[str, list[float]] = {str(t): [] for t in config["rows"]}
    for result in results:
        text = np.concatenate([result.prompt_ids, result.token_ids])
        experts = target.experts(text)[:, len(result.prompt_ids) :]  # [layers, rows, k]
        for t in config["rows"]:
            starts = range(0, max(1, experts.shape[1] - t + 1), max(1, t // 2))
            windows = [layer[s : s + t] for layer in experts for s in starts if s + t <= experts.shape[1]]
            if windows:
                means[str(t)].append(float(np.mean([len(np.unique(w)) for w in windows])))
    info = target.info
    return {"means": means, "experts": info.experts, "chosen": info.experts_per_token}


def run(study):
    config = study.config
    simulated = pandas.DataFrame(
        study.row(
            {"experts": e, "chosen": k, "rows": t}, lambda e=e, k=k, t=t: simulate(e, k, t, config["simulations"])
        )
        for e, k in config["simulated_experts"]
        for t in config["rows"]
    )
    simulated["expected"] = expected(simulated["experts"], simulated["chosen"], simulated["rows"])
    off = float((simulated["distinct"] / simulated["expected"] - 1).abs().max())
    study.verdict("uniform routing wakes E (1 - (1 - K/E)^t)", off < config["simulation_tolerance"],
                  f"largest relative difference {off:.3f} over {len(simulated)} settings",
                  f"below {config['simulation_tolerance']}", "Simulated choices of K distinct experts per row.",
                  simulated["source"].to_list())  # fmt: skip

    routed = study.row({"router": "trained"}, lambda: route(config))
    trained = pandas.DataFrame(
        [(t, *bootstrap(np.mean, routed["means"][str(t)])) for t in config["rows"]],
        columns=["rows", "distinct", "low", "high"],
    )
    trained["uniform"] = expected(routed["experts"], routed["chosen"], trained["rows"])
    trained["source"] = routed["source"]
    middle = trained[trained["rows"].between(2, 16)]
    saved = 1 - middle["high"] / middle["uniform"]
    at8 = trained[trained["rows"] == 8].iloc[0]
    study.verdict("the trained router wakes fewer", bool((saved > config["least_saving"]).all()),
                  f"at 8 rows {interval_text((at8.distinct, at8.low, at8.high))} of {routed['experts']} experts",
                  f"below {at8.uniform:.3f} by {config['least_saving']:.0%} or more at 2 to 16 rows",
                  "Windows of the target's own greedy text, all layers, as a verify pass over a chain sees them.",
                  [routed["source"]])  # fmt: skip
    study.table("Distinct experts per layer and pass, trained router", trained, {
        "rows": "rows", "distinct": "distinct experts", "low": "low", "high": "high", "uniform": "uniform routing"})  # fmt: skip
    study.table("Uniform routing, simulated", simulated, {
        "experts": "E", "chosen": "K", "rows": "rows", "distinct": "simulated", "expected": "formula"})  # fmt: skip

    def draw(axes):
        axes.plot(trained["rows"], trained["uniform"], "--", label="uniform routing")
        (line,) = axes.plot(trained["rows"], trained["distinct"], "o-", label="trained router")
        axes.fill_between(trained["rows"], trained["low"], trained["high"], alpha=0.2, color=line.get_color())
        axes.set_xscale("log", base=2)
        axes.set_xlabel("rows of the pass (tokens)")
        axes.set_ylabel(f"distinct experts of {routed['experts']}, per layer")
        axes.legend()

    study.plot("experts", "Mean over layers and texts, 95 % band over texts.", draw)
