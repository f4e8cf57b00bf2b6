"""The article's claims, one function each."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas
from energy import Meter
from measure import TOY_DRAFT, TOY_TARGET, bootstrap, draw_interval, interval_text, tau_ratio, with_tau

import specmoe

ROOT = Path(__file__).resolve().parents[3]


def article_factor(p, n):
    return (1 + p * (n - 1)) / (1 + (1 - p) * n)


def factor(study):
    """'A drafter of 1 % of the parameters, N = 4-8, acceptance about 0.9: (1 + p(N - 1)) / (1 + (1 - p)N)'."""
    cells = study.sweep("length")
    cells["n"] = cells["tree"].str.extract(r"gamma=(\d+)").astype(int)
    spent = cells["counts.draft_ns"] / cells["counts.steps"]
    plain = (cells["plain_counts.verify_ns"] + cells["plain_counts.judge_ns"]) / cells["plain_counts.steps"]
    p = cells["acceptance_rate"]
    cells["article"] = article_factor(p, cells["n"])
    tokens = [n + 1 if a == 1 else (1 - a ** (n + 1)) / (1 - a) for a, n in zip(p, cells["n"], strict=True)]
    cells["ours"] = tokens / (cells["verify_cost_ratio"] + spent / plain)
    drafter = specmoe.load(ROOT / study.config["accuracy"]["drafter"], threads=1).info.parameters
    printed = study.config["formula"]["printed"]
    own = {n: article_factor(study.config["formula"]["acceptance"], int(n)) for n in printed}
    study.verdict("the article's factor at p = 0.9", all(abs(own[n] - printed[n]) < 0.06 for n in printed),
                  ", ".join(f"N = {n}: {value:.2f}" for n, value in own.items()), "2.6 at N = 4, 4.1 at N = 8",
                  "Arithmetic. It is not the expected number of tokens: that is (1 - p^(N+1)) / (1 - p), 4.1 and 6.1, and "
                  "neither contains the price of a pass over N + 1 rows.", [])  # fmt: skip
    inside = (cells["speedup_low"] <= cells["article"]) & (cells["article"] <= cells["speedup_high"])
    near = (cells["ours"] / cells["speedup"] - 1).abs()
    study.verdict("the article's factor predicts the speed-up", bool(inside.all()),
                  "; ".join(f"N = {c.n}: {c.article:.2f} against {c.speedup:.2f} [{c.speedup_low:.2f}, {c.speedup_high:.2f}]"
                            for c in cells.itertuples()),
                  "the formula inside each interval",
                  f"With the measured acceptances; the drafter has {drafter / cells['target.parameters'][0]:.1%} of the "
                  f"target's parameters. Tokens per pass over r(T) and draft cost is off by {near.mean():.0%} on "
                  "average: the price of the pass is what the article leaves out.", cells["source"].to_list())  # fmt: skip
    study.table("Factor by chain length", cells, {
        "n": "N", "acceptance_rate": "acceptance", "article": "article's formula", "ours": "tokens / (r(T) + draft)",
        "speedup": "measured", "speedup_low": "low", "speedup_high": "high", "verify_cost_ratio": "r(T)"})  # fmt: skip

    def draw(axes):
        cells_ = cells.sort_values("n")
        axes.plot(cells_["n"], cells_["article"], "s--", label="article's formula")
        axes.plot(cells_["n"], cells_["ours"], "^--", label="tokens / (r(T) + draft)")
        draw_interval(axes, cells_["n"], cells_, "speedup", "speedup_low", "speedup_high", label="measured")
        axes.axhline(1, color="grey", linewidth=1)
        axes.set_xlabel("drafted tokens N")
        axes.set_ylabel("speed-up over plain decoding (x)")
        axes.legend()

    study.plot("factor", "Formula and measurement at the measured acceptance.", draw)


def against_transformers(config, tree, tokens, rounds):
    """Times for `tokens` greedy tokens after one prompt, ours and transformers' in turns, one thread each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(ROOT / config["target"], dtype=torch.float32)
    prompt = json.loads((ROOT / config["prompts"]).read_text().splitlines()[0])["turns"][0]
    ids = AutoTokenizer.from_pretrained(ROOT / config["target"])(prompt, return_tensors="pt").input_ids
    target = specmoe.load(ROOT / config["target"], threads=1)
    engine = specmoe.Engine(target, config["drafter"].replace("path=", f"path={ROOT}/"), tree, config["accept"])

    def theirs():
        model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def ours():
        engine.generate(ids[0].numpy(), max_new_tokens=tokens, ignore_eos=True)

    def seconds(work):
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    with torch.inference_mode():
        seconds(theirs), seconds(ours)
        pairs = [(seconds(theirs), seconds(ours)) for _ in range(rounds)]
    return {"transformers_s": [t for t, _ in pairs], "ours_s": [o for _, o in pairs]}


def throughput(study):
    """'8x throughput; 512 tokens in 1.25 s instead of 10 s'."""
    cells = study.sweep("long")
    tokens = study.config["long"]["max-new-tokens"]
    best = cells.loc[cells["speedup"].idxmax()]
    figure = (best["speedup"], best["speedup_low"], best["speedup_high"])
    study.verdict(f"8x throughput over plain decoding, {tokens} new tokens", figure[2] >= 8, interval_text(figure, 2),
                  "8x", f"Best of {len(cells)} settings ({best.tree}), outputs {'identical' if cells['identical'].all() else 'NOT identical'}. No "
                  "lossless method can exceed its tokens per pass, here "
                  f"{best.tau:.2f}.", cells["source"].to_list())  # fmt: skip
    peer = study.row(
        {"peer": "transformers", "tokens": tokens, "tree": best["tree"]},
        lambda: against_transformers(study.config["long"], best["tree"], tokens, study.config["peer_rounds"]),
    )
    ratios = np.divide(peer["transformers_s"], peer["ours_s"])
    study.verdict(
        f"8x throughput over transformers, {tokens} new tokens",
        bool(np.median(ratios) >= 8),
        f"median {np.median(ratios):.1f}x of {len(ratios)} rounds, {ratios.min():.1f} to {ratios.max():.1f}",
        "8x",
        f"Speculative, bf16, against float32 of transformers, in turns, prefill included: {np.median(peer['ours_s']):.3f} s "
        f"instead of {np.median(peer['transformers_s']):.3f} s. Most of it is the plain decoder, not speculation.",
        [best["source"], peer["source"]],
    )
    study.table(f"Speed-up at {tokens} new tokens", cells, {
        "tree": "tree", "plain_tokens_per_s": "plain tokens/s", "speculative_tokens_per_s": "speculative tokens/s",
        "speedup": "speed-up", "speedup_low": "low", "speedup_high": "high", "tau": "tokens per pass"})  # fmt: skip


def prove(policy, gamma):
    proof = specmoe.prove(policy, tree=f"chain(gamma={gamma})", target=TOY_TARGET, draft=TOY_DRAFT)
    return {"expected_tokens": proof.expected_tokens, "distance": proof.tvd, "lossless": proof.lossless}


def block_rules(study):
    """'Blocks are accepted by joint log-likelihood; rejected where the KL divergence exceeds a threshold.'"""
    config = study.config["lossy"]
    proofs = pandas.DataFrame(
        study.row({"policy": policy, "of": "toy"}, lambda p=policy: prove(p, config["gamma"]))
        for policy in config["policies"]
    )
    lossy = proofs[~proofs["lossless"]]
    study.verdict("acceptance by joint likelihood or by divergence keeps the target's output", bool(proofs["lossless"].all()),
                  f"distance {lossy['distance'].min():.3f} to {lossy['distance'].max():.3f} for {len(lossy)} of {len(proofs)} rules",
                  "distance 0", "Exact, on the golden toy. Neither is the rule of the paper, which is lossless; their accuracy "
                  "on the trained pair stands below.", proofs["source"].to_list())  # fmt: skip
    study.table("Block rules, exact on the golden toy", proofs, {
        "policy": "policy", "expected_tokens": "tokens per pass", "distance": "total variation distance",
        "lossless": "lossless"})  # fmt: skip
    cells = with_tau(study.sweep("rules", accept=config["policies"]))
    exact, rules = cells.iloc[0], cells[~cells["lossless"]]
    gains = [tau_ratio(rule, exact) for _, rule in rules.iterrows()]
    study.verdict("acceptance by joint likelihood or by divergence emits more tokens per pass", any(low > 1 for _, low, _ in gains),
                  "; ".join(f"{rule.acceptance}: {interval_text(gain)}"
                            for rule, gain in zip(rules.itertuples(), gains, strict=True)),
                  "over token verification, some interval above 1",
                  "Trained pair, temperature 1. What it does to answers stands under accuracy.", cells["source"].to_list())  # fmt: skip
    study.table("Block rules, trained pair, temperature 1", cells, {
        "acceptance": "policy", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high", "speedup": "speed-up",
        "speedup_low": "low", "speedup_high": "high"})  # fmt: skip


def hypotheses(study):
    """'Several hypotheses are speculated at once, as in beam search, at no extra cost.'"""
    cells = with_tau(study.sweep("hypotheses"))
    cells["k"] = cells["tree"].str.extract(r"k=(\d+)").astype(int)
    first, last = cells.iloc[0], cells.iloc[-1]
    gain = tau_ratio(last, first)
    study.verdict("more hypotheses emit more tokens per pass", gain[1] > 1,
                  f"k = {last.k} over k = {first.k}: {interval_text(gain)}", "above 1",
                  f"From {first.tau:.2f} to {last.tau:.2f} tokens. Multi-step acceptance, independent draws, temperature 1.",
                  cells["source"].to_list())  # fmt: skip
    ratio = last["verify_cost_ratio"] / first["verify_cost_ratio"]
    study.verdict("more hypotheses come at no extra cost", ratio < 1.05, f"a pass with k = {last.k} costs {ratio:.2f} times that with k = {first.k}",
                  "below 1.05", f"It wakes {last.unique_experts:.1f} instead of {first.unique_experts:.1f} experts a layer; speed-up "
                  f"{first.speedup:.2f} and {last.speedup:.2f}.", cells["source"].to_list())  # fmt: skip
    study.table("Parallel hypotheses", cells, {
        "k": "k", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high", "unique_experts": "distinct experts",
        "verify_cost_ratio": "r(T)", "speedup": "speed-up"})  # fmt: skip


def batches(study):
    """'Batches to 128.'"""
    cells = study.sweep("batches")
    losing = sorted(set(cells["batch"][cells["speedup_high"] < 1]))
    study.verdict("speculation pays at every batch size", not losing,
                  ", ".join(f"{c.category} {c.batch}: {c.speedup:.2f}" for c in cells.itertuples()), "no interval below 1",
                  f"Slower than plain decoding at batch {losing}." if losing else "No batch size is clearly slower.",
                  cells["source"].to_list())  # fmt: skip
    study.table("Batches", cells, {
        "category": "class", "batch": "batch", "speedup": "speed-up", "speedup_low": "low", "speedup_high": "high",
        "tau": "tokens per pass", "unique_experts": "distinct experts", "verify_cost_ratio": "r(T)"})  # fmt: skip


def solve(config, policy, lossy):
    target = specmoe.load(ROOT / config["target"], threads=1)
    rows = [json.loads(line) for line in (ROOT / config["prompts"]).read_text().splitlines()][: config["problems"]]
    drafter = f"independent(path={ROOT / config['drafter']})"
    parts = {} if policy == "plain" else {"drafter": drafter, "tree": "chain(gamma=4)", "acceptance": policy}
    engine = specmoe.Engine(target, **parts, allow_lossy=lossy)
    results = engine.generate(
        [row["turns"][0] for row in rows], max_new_tokens=config["max_new_tokens"], batch=config["batch"]
    )
    right = [answer(result.text) == row["reference"][0] for result, row in zip(results, rows, strict=True)]
    return {"right": [int(r) for r in right], "tau": specmoe.metrics(results)["tau"],
            "texts": [hash_of(result.token_ids) for result in results]}  # fmt: skip


def answer(text):
    found = re.findall(r"Answer:\s*(-?\d+)", text)
    return found[-1] if found else None


def hash_of(tokens):
    value = 0
    for token in tokens:
        value = (value * 1000003 + int(token) + 1) % (1 << 61)
    return value


def accuracy(study):
    """'Accuracy is unchanged (benchmark scores within noise).'"""
    config = study.config["accuracy"]
    policies = ["plain", *config["lossless"], *config["lossy"]]
    rows = [
        study.row({"policy": p, "of": "answers"}, lambda p=p: solve(config, p, p in config["lossy"])) for p in policies
    ]
    plain = rows[0]
    table = []
    for row in rows:
        share = bootstrap(np.mean, row["right"])
        change = bootstrap(lambda own, base: (own - base).mean(), row["right"], plain["right"])
        same = sum(a == b for a, b in zip(row["texts"], plain["texts"], strict=True))
        table.append(
            (row["policy"], row["policy"] in config["lossy"], *share, *change, same, row["tau"], row["source"])
        )
    frame = pandas.DataFrame(table, columns=["policy", "lossy", "accuracy", "low", "high", "change", "change_low",
                                             "change_high", "same", "tau", "source"])  # fmt: skip
    problems, exact, lossy = len(plain["right"]), frame[~frame["lossy"]], frame[frame["lossy"]]
    study.verdict("accuracy is unchanged, lossless policies", bool((exact["same"] == problems).all()),
                  f"{int(exact['same'].min())} of {problems} greedy texts identical with plain decoding, for each of "
                  f"{len(exact) - 1} policies; accuracy {exact.iloc[0].accuracy:.3f}", f"all {problems} identical",
                  "Token for token, so the score is the same by construction.", exact["source"].to_list())  # fmt: skip
    worse = lossy[lossy["change_high"] < 0]
    study.verdict("accuracy is unchanged, lossy policies", worse.empty,
                  "; ".join(f"{r.policy.split('(')[0]} {r.change:+.3f} [{r.change_low:+.3f}, {r.change_high:+.3f}]" for r in lossy.itertuples()),
                  "no interval of the change below 0", "Paired over problems. " + (
                      f"Clearly worse: {', '.join(worse['policy'])}." if len(worse) else "None is clearly worse."),
                  lossy["source"].to_list())  # fmt: skip
    study.table(f"Greedy accuracy on {problems} held-out problems", frame, {
        "policy": "policy", "accuracy": "accuracy", "low": "low", "high": "high", "change": "change from plain",
        "same": "identical texts", "tau": "tokens per pass"})  # fmt: skip


def acceptance_change(own, base):
    """How much more of the judged drafts is accepted, on the same prompts."""
    columns = [cell[f"per_prompt.{name}"] for cell in (own, base) for name in ("accepted", "rejected")]
    return bootstrap(
        lambda a, r, base_a, base_r: a.sum() / (a.sum() + r.sum()) - base_a.sum() / (base_a.sum() + base_r.sum()),
        *columns,
    )


def int8(study, part="int8", where=""):
    """'An INT8 drafter.'"""
    cells = study.sweep(part)
    cells["weights"] = cells["drafter"].str.extract(r"dtype=(\w+)", expand=False).replace("target", "bfloat16")
    cells["draft_us"] = cells["counts.draft_ns"] / cells["counts.drafted"] / 1e3
    cells = cells[~cells["tree"].str.startswith("chains")]
    base, own = (cells[cells["weights"] == dtype].iloc[0] for dtype in ("bfloat16", "int8"))
    change = acceptance_change(own, base)
    study.verdict(f"an INT8 drafter drafts as well{where}", change[1] > -0.01, interval_text(change),
                  "acceptance not lower by 0.01 or more, interval included",
                  f"{own.acceptance_rate:.4f} against {base.acceptance_rate:.4f}, greedy, paired over prompts.",
                  cells["source"].to_list())  # fmt: skip
    ratio = own.draft_us / base.draft_us
    study.verdict(f"an INT8 drafter drafts faster{where}", ratio < 1, f"{ratio:.2f} of the time per drafted token "
                  f"({own.draft_us:.1f} against {base.draft_us:.1f} us)", "below 1",
                  "The two took turns prompt by prompt. int8 halves the bytes that are read; weights that lie in the cache "
                  f"anyway gain nothing by that. Speed-up {own.speedup:.2f} [{own.speedup_low:.2f}, {own.speedup_high:.2f}] "
                  f"against {base.speedup:.2f} [{base.speedup_low:.2f}, {base.speedup_high:.2f}].",
                  cells["source"].to_list())  # fmt: skip
    study.table(f"Weights of the drafter{where}", cells, {
        "weights": "weights", "acceptance_rate": "acceptance", "draft_us": "us per drafted token", "speedup": "speed-up",
        "speedup_low": "low", "speedup_high": "high"})  # fmt: skip


def upcycled(study):
    """The claims about speed on a mixture made of a real language model, where there is one."""
    part = study.config["upcycled"]
    absent = [name for name in (part["target"], part["drafters"]) if not (ROOT / name).exists()]
    if absent:
        study.verdict("8x throughput, hypotheses at no extra cost and an INT8 drafter, on the upcycled MoE", None,
                      "not present here", "as above", f"{absent[0]} is missing: experiments/models/SMOLLM2.md makes it.", [])  # fmt: skip
        return
    prompts = study.folder / "rendered.jsonl"
    rows = [json.loads(line) for line in (ROOT / part["questions"]).read_text().splitlines()][:: part["every"]]
    for row in rows:
        row |= {"turns": [render(ROOT / part["target"], row["turns"][0])], "rendered": True}
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = f"independent(path={part['drafters']}"
    study.config["upcycled grid"] = part["grid"] | {
        "target": part["target"], "drafter": [f"{model})", f"{model},dtype=int8)"], "prompts": os.path.relpath(prompts, ROOT)}  # fmt: skip
    cells = study.sweep("upcycled grid")
    best = cells.loc[cells["speedup"].idxmax()]
    figure = (best["speedup"], best["speedup_low"], best["speedup_high"])
    study.verdict("8x throughput over plain decoding, on the upcycled MoE", figure[2] >= 8, interval_text(figure, 2), "8x",
                  f"Best of {len(cells)} settings ({best.tree}), outputs {'identical' if cells['identical'].all() else 'NOT identical'}. "
                  f"{best.tau:.2f} tokens per pass, which wakes {best.unique_experts:.1f} experts a layer instead of 2.",
                  cells["source"].to_list())  # fmt: skip
    one = cells[cells["drafter"].str.contains("dtype=target")].sort_values("rows_per_step")
    first, last = one.iloc[0], one.iloc[-1]
    ratio = last["verify_cost_ratio"] / first["verify_cost_ratio"]
    study.verdict("more hypotheses at no extra cost, on the upcycled MoE", ratio < 1.05,
                  f"a pass over {last.rows_per_step:.1f} rows costs {ratio:.2f} times one over {first.rows_per_step:.1f}",
                  "below 1.05", f"It wakes {last.unique_experts:.1f} instead of {first.unique_experts:.1f} experts a layer and "
                  f"emits {last.tau:.2f} instead of {first.tau:.2f} tokens.", one["source"].to_list())  # fmt: skip
    study.table("Upcycled MoE", cells, {
        "drafter": "drafter", "tree": "tree", "tau": "tokens per pass", "unique_experts": "distinct experts",
        "verify_cost_ratio": "r(T)", "speedup": "speed-up", "speedup_low": "low", "speedup_high": "high"})  # fmt: skip
    int8(study, "upcycled grid", ", on the upcycled MoE")


def render(target, question):
    return specmoe.render_chat(target, [{"role": "user", "content": question}])


def spend(config, rounds):
    """Joules, seconds and tokens of plain and of speculative decoding, in turns; stage times of the speculative one."""
    meter = Meter()
    target = specmoe.load(ROOT / config["target"], threads=1)
    drafter = config["drafter"].replace("path=", f"path={ROOT}/")
    engines = {"plain": specmoe.Engine(target), "speculative": specmoe.Engine(target, drafter, "chain(gamma=4)")}
    prompts = [json.loads(line)["turns"][0] for line in (ROOT / config["prompts"]).read_text().splitlines()]
    spent = {name: {"joules": [], "seconds": [], "tokens": []} for name in engines}
    times = dict.fromkeys(("draft", "verify", "judge", "rest"), 0)
    for engine in engines.values():
        engine.generate(prompts[:2], max_new_tokens=16)
    for _ in range(rounds):
        for name, engine in engines.items():
            meter.start()
            begin = time.perf_counter()
            results = engine.generate(prompts, max_new_tokens=64)
            spent[name]["seconds"].append(time.perf_counter() - begin)
            spent[name]["joules"].append(meter.stop())
            spent[name]["tokens"].append(sum(len(result.token_ids) for result in results))
            if name == "speculative":
                for stage in times:
                    times[stage] += sum(result.stage_times[f"{stage}_ns"] for result in results)
    return {**spent, "why": meter.why, "stage_ns": times}


def energy(study):
    """'85 % less energy; cost per request from 0.01 to 0.00125.'"""
    row = study.row({"spent": "in turns"}, lambda: spend(study.config["length"], study.config["energy_rounds"]))
    plain, fast, source = row["plain"], row["speculative"], [row["source"]]
    if None in plain["joules"] + fast["joules"]:
        study.verdict("85 % less energy", None, "not readable here", "0.15 of the joules per token",
                      row["why"] + "; no estimate is given in its place.", source)  # fmt: skip
    else:
        each = [np.divide(spent["joules"], spent["tokens"]) * 1e3 for spent in (plain, fast)]
        ratios = each[1] / each[0]
        total = sum(row["stage_ns"].values())
        split = ", ".join(
            f"{stage} {ns / total * np.median(each[1]):.2f}" for stage, ns in row["stage_ns"].items() if total
        )
        study.verdict("85 % less energy", bool(np.median(ratios) <= 0.15),
                      f"{np.median(each[1]):.2f} instead of {np.median(each[0]):.2f} mJ per token "
                      f"({1 - np.median(ratios):.0%} less, {1 - ratios.max():.0%} to {1 - ratios.min():.0%})", "85 % less",
                      f"Whole package over {len(ratios)} rounds in turns, split by time: {split} mJ.", source)  # fmt: skip
    price = json.loads((ROOT / study.config["prices"]).read_text())
    per_unit = [
        np.divide(spent["tokens"], spent["seconds"]) * 3600 / price["machine_per_hour"] for spent in (plain, fast)
    ]
    gains = per_unit[1] / per_unit[0]
    study.verdict("cost per request falls to an eighth", bool(np.median(gains) >= 8),
                  f"{np.median(gains):.2f} times the tokens per {price['currency']} ({gains.min():.2f} to {gains.max():.2f}): "
                  f"{np.median(per_unit[1]) / 1e6:.0f} instead of {np.median(per_unit[0]) / 1e6:.0f} million", "8 times as many",
                  f"At {price['machine_per_hour']} {price['currency']} an hour ({price['note']}); all prompts together, prefill included, "
                  f"{len(gains)} rounds in turns. The price of a machine that waits for a pass is the price of its time: cost "
                  "falls by the speed-up, no further.", source)  # fmt: skip


def run(study):
    for claim in (factor, throughput, block_rules, hypotheses, int8, batches, accuracy, energy, upcycled):
        claim(study)
