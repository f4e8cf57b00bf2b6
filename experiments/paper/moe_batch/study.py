"""R9: speed-up over batch size from bytes and arithmetic, and measured on the bundled pair."""

import numpy as np
import pandas
from measure import draw_interval


def layer_time(rows, model, machine):
    """Seconds of one layer: weights read or products computed, whichever takes longer, dense part and experts apart."""
    experts, chosen = model["experts"], model["chosen"]
    awake = experts * (1 - (1 - chosen / experts) ** rows)
    bandwidth, arithmetic = machine["bytes_per_s"], machine["flop_per_s"]
    dense = max(model["dense_bytes"] / bandwidth, rows * model["dense_bytes"] / arithmetic)  # 2 flop per 2-byte weight
    sparse = max(awake * model["expert_bytes"] / bandwidth, rows * chosen * model["expert_bytes"] / arithmetic)
    return dense + sparse + machine["fixed_s"]


def predict(config, model):
    gamma, a = config["gamma"], config["alpha"]
    tokens = (1 - a ** (gamma + 1)) / (1 - a)
    rows = []
    for batch in config["batches"]:
        plain = layer_time(batch, model, config["machine"])
        verify = layer_time(batch * (gamma + 1), model, config["machine"])
        draft = gamma * config["draft_cost"] * layer_time(1, model, config["machine"])
        rows.append((tokens * plain / (verify + draft), plain / verify))
    return {"speedup": [s for s, _ in rows], "target_efficiency": [e for _, e in rows]}


def rises_then_falls(values):
    peak = int(np.argmax(values))
    return (
        0 < peak < len(values) - 1
        and (np.diff(values[: peak + 1]) > -1e-9).all()
        and (np.diff(values[peak:]) < 1e-9).all()
    )


def run(study):
    config, batches = study.config, study.config["batches"]
    models = {name: study.row({"model": name}, lambda m=m: predict(config, m)) for name, m in config["models"].items()}
    sources = [row["source"] for row in models.values()]
    peaks = {name: batches[int(np.argmax(row["speedup"]))] for name, row in models.items()}
    sparse = [name for name, m in config["models"].items() if m["chosen"]]
    after_dip = {name: models[name]["speedup"][int(np.argmin(models[name]["speedup"][:5])) :] for name in sparse}
    study.verdict("cost model: an MoE's speed-up rises, then falls", all(map(rises_then_falls, after_dip.values())),
                  ", ".join(f"{name}: best at batch {peaks[name]}" for name in sparse), "an interior maximum for each",
                  "Counted from the batch at which waking experts costs most; below it the curve of a sparse model dips.",
                  sources)  # fmt: skip
    dense = np.array(models["dense"]["speedup"])
    study.verdict("cost model: a dense model's only falls", bool((np.diff(dense) <= 1e-3 * dense[:-1]).all()),
                  " ".join(f"{value:.2f}" for value in dense), "no rise from one batch size to the next",
                  "The share of drafting falls with the batch; the draft is priced at one row's cost.", sources)  # fmt: skip
    order = [peaks[name] for name in sparse]
    study.verdict("cost model: the peak moves to larger batches as the MoE gets sparser", order == sorted(order),
                  f"{order} for K/E = " + ", ".join(f"{m['chosen']}/{m['experts']}" for n, m in config["models"].items() if n in sparse),
                  "not falling", "More experts have to be awake before a further row is free.", sources)  # fmt: skip

    cells = study.sweep()
    efficiency = (1 / cells["verify_cost_ratio"]).to_list()
    best = cells.loc[cells["speedup"].idxmax()]
    gain = max(efficiency[1:]) / efficiency[0]
    study.verdict("on this host, the bundled pair's target efficiency rises with the batch", gain > config["least_rise"],
                  ", ".join(f"{b}: {e:.2f}" for b, e in zip(cells["batch"], efficiency, strict=True)),
                  f"at its best {config['least_rise']} times that of batch 1",
                  f"Plain and speculative passes took turns. Best measured speed-up {best.speedup:.2f} at batch {best.batch}. On a CPU with cache-resident weights "
                  "arithmetic sets in early, so the rise can be missing altogether.", cells["source"].to_list())  # fmt: skip
    study.table("Bundled pair, measured", cells, {
        "batch": "batch", "speedup": "speed-up", "speedup_low": "low", "speedup_high": "high", "tau": "tokens per pass",
        "unique_experts": "distinct experts", "verify_cost_ratio": "r(T)"})  # fmt: skip
    frame = pandas.DataFrame({"batch": batches} | {name: row["speedup"] for name, row in models.items()})
    study.table("Cost model: speed-up", frame, {name: name for name in frame})

    def draw(axes):
        for name, row in models.items():
            axes.plot(batches, row["speedup"], "--", label=f"model: {name}")
        draw_interval(
            axes, cells["batch"], cells, "speedup", "speedup_low", "speedup_high", label="bundled pair, this host"
        )
        axes.axhline(1, color="grey", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("batch (sequences)")
        axes.set_ylabel("speed-up over plain decoding (x)")
        axes.figure.legend(loc="outside lower center", fontsize=8, ncols=2)

    study.plot("batch", f"Chain of {config['gamma']}; the model's machine: 3.35 TB/s, 990 TFLOP/s.", draw, (5.4, 4.4))
