"""R2: accepted drafts of a chain of one token against sum min(p, q) of the two models' rows at the same places."""

import json
from pathlib import Path

import numpy as np
import pandas

import specmoe

ROOT = Path(__file__).resolve().parents[3]


def softmax(logits, temperature):
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def overlap_along(target, drafter, result, temperature):
    """sum min(p, q) after each text that a step of `result` drafted from."""
    text = np.concatenate([result.prompt_ids, result.token_ids])
    steps = result.steps
    starts = len(result.prompt_ids) + np.concatenate([[0], np.cumsum(steps["emitted"])[:-1]])
    places = starts[steps["drafted"] > 0] - 1
    rows = [softmax(model.logits(text)[places], temperature) for model in (target, drafter)]
    return np.minimum(*rows).sum(axis=-1)


def measure(config, temperature):
    target, drafter = (specmoe.load(ROOT / config[name], dtype="float32", threads=1) for name in ("target", "drafter"))
    engine = specmoe.Engine(target, f"independent(path={ROOT / config['drafter']})", "chain(gamma=1)", "token")
    prompts = [json.loads(line)["turns"][0] for line in (ROOT / config["prompts"]).read_text().splitlines()]
    seeds = list(range(len(prompts)))  # with one seed for all, the same coins would fall for every prompt
    results = engine.generate(prompts, max_new_tokens=config["max_new_tokens"], temperature=temperature, seed=seeds)
    overlap = np.concatenate([overlap_along(target, drafter, result, temperature) for result in results])
    accepted = sum(int(result.steps["accepted"].sum()) for result in results)
    judged = sum(int(result.steps["accepted"].sum() + result.steps["rejected"].sum()) for result in results)
    return {"judged": judged, "accepted": accepted, "drafted": len(overlap), "overlap": float(overlap.mean()),
            "sigma": float(np.sqrt((overlap * (1 - overlap)).sum()) / len(overlap))}  # fmt: skip


def run(study):
    config = study.config
    frame = pandas.DataFrame(
        study.row({"temperature": t}, lambda t=t: measure(config, t)) for t in config["temperatures"]
    )
    frame["acceptance"] = frame["accepted"] / frame["judged"]
    frame["sigmas_off"] = (frame["acceptance"] - frame["overlap"]) / frame["sigma"]
    worst = float(frame["sigmas_off"].abs().max())
    study.verdict(
        "measured acceptance is sum min(p, q)",
        worst < config["sigmas"],
        f"largest deviation {worst:.2f} standard errors over {len(frame)} temperatures, {frame['judged'].sum()} drafts",
        f"below {config['sigmas']} (p = 0.001)",
        "Given the text so far, acceptances are independent coins with these chances, so the error is known exactly.",
        frame["source"].to_list(),
    )
    study.table("One drafted token per step", frame, {
        "temperature": "temperature", "judged": "drafts judged", "acceptance": "accepted share",
        "overlap": "mean sum min(p, q)", "sigma": "standard error", "sigmas_off": "deviation (standard errors)"})  # fmt: skip

    def draw(axes):
        axes.plot(frame["temperature"], frame["overlap"], "o--", label="sum min(p, q) along the text")
        axes.errorbar(frame["temperature"], frame["acceptance"], 1.96 * frame["sigma"], fmt="s", label="accepted share")
        axes.set_xlabel("temperature")
        axes.set_ylabel("acceptance of one token")
        axes.legend()

    study.plot("acceptance", "Accepted share with 95 % bars, and what the rows of both models predict.", draw)
