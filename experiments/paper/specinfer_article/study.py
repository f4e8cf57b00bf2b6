"""The article's claims, one function each."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pandas
from energy import Meter
from measure import TOY_DRAFT, TOY_TARGET, bootstrap, draw_interval, interval_text, with_tau

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
    cells["ours"] = (1 - p ** (cells["n"] + 1)) / (1 - p) / (cells["verify_cost_ratio"] + spent / plain)
    printed = study.config["formula"]["printed"]
    own = {n: article_factor(study.config["formula"]["acceptance"], int(n)) for n in printed}
    study.verdict("the article's factor at p = 0.9", all(abs(own[n] - printed[n]) < 0.06 for n in printed),
                  ", ".join(f"N = {n}: {value:.2f}" for n, value in own.items()), "2.6 at N = 4, 4.1 at N = 8",
                  "Arithmetic. It is not the expected number of tokens: that is (1 - p^(N+1)) / (1 - p), 4.1 and 6.1, and "
                  "neither contains the price of a pass over N + 1 rows.", [])  # fmt: skip
    inside = (cells["speedup_low"] <= cells["article"]) & (cells["article"] <= cells["speedup_high"])
    near = (cells["ours"] / cells["speedup"] - 1).abs()
    study.verdict("that factor predicts the speed-up", bool(inside.all()),
                  "; ".join(f"N = {c.n}: {c.article:.2f} against {c.speedup:.2f} [{c.speedup_low:.2f}, {c.speedup_high:.2f}]"
                            for c in cells.itertuples()),
                  "the formula inside each interval",
                  f"With the measured acceptances. Tokens per pass over r(T) and draft cost is off by {near.mean():.0%} on "
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


def against_transformers(config, tree, tokens):
    """Times for `tokens` greedy tokens after one prompt, ours and transformers' in turns, one thread each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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
        rounds = [(seconds(theirs), seconds(ours)) for _ in range(5)]
    return {"transformers_s": [t for t, _ in rounds], "ours_s": [o for _, o in rounds]}


def throughput(study):
    """'8x throughput; 512 tokens in 1.25 s instead of 10 s'."""
    cells = study.sweep("long")
    tokens = study.config["long"]["max-new-tokens"]
    best = cells.loc[cells["speedup"].idxmax()]
    figure = (best["speedup"], best["speedup_low"], best["speedup_high"])
    study.verdict(f"8x throughput over plain decoding, {tokens} new tokens", figure[2] >= 8, interval_text(figure, 2),
                  "8x", f"Best of {len(cells)} settings ({best.tree}), identical outputs: {bool(cells['identical'].all())}. No "
                  "lossless method can exceed its tokens per pass, here "
                  f"{best.tau:.2f}.", cells["source"].to_list())  # fmt: skip
    peer = study.row(
        {"peer": "transformers", "tokens": tokens, "tree": best["tree"]},
        lambda: against_transformers(study.config["long"], best["tree"], tokens),
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
        study.row({"policy": policy}, lambda p=policy: prove(p, config["gamma"])) for policy in config["policies"]
    )
    lossy = proofs[~proofs["lossless"]]
    study.verdict("acceptance by joint likelihood or by divergence keeps the target's output", bool(proofs["lossless"].all()),
                  f"distance {lossy['distance'].min():.3f} to {lossy['distance'].max():.3f} for {len(lossy)} of {len(proofs)} rules",
                  "distance 0", "Exact, on the golden toy. Neither is the rule of the paper, which is lossless; their accuracy "
                  "on the trained pair stands below.", proofs["source"].to_list())  # fmt: skip
    study.table("Block rules, exact on the golden toy", proofs, {
        "policy": "policy", "expected_tokens": "tokens per pass", "distance": "total variation distance",
        "lossless": "lossless"})  # fmt: skip


def hypotheses(study):
    """'Several hypotheses are speculated at once, as in beam search, at no extra cost.'"""
    cells = with_tau(study.sweep("hypotheses"))
    cells["k"] = cells["tree"].str.extract(r"k=(\d+)").astype(int)
    first, last = cells.iloc[0], cells.iloc[-1]
    study.verdict("more hypotheses emit more tokens per pass", last["tau"] > first["tau"],
                  f"k = {first.k}: {first.tau:.2f} [{first.tau_low:.2f}, {first.tau_high:.2f}], k = {last.k}: {last.tau:.2f} "
                  f"[{last.tau_low:.2f}, {last.tau_high:.2f}]", "rising with k",
                  "Multi-step acceptance, independent draws, temperature 1.", cells["source"].to_list())  # fmt: skip
    ratio = last["verify_cost_ratio"] / first["verify_cost_ratio"]
    study.verdict("at no extra cost", ratio < 1.05, f"a pass with k = {last.k} costs {ratio:.2f} times that with k = {first.k}",
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
    rows = [study.row({"policy": p}, lambda p=p: solve(config, p, p in config["lossy"])) for p in policies]
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


def int8(study):
    """'An INT8 drafter.'"""
    part = {**study.config["length"], "tree": "chain(gamma=4)"}
    inner = part["drafter"].removesuffix(")")
    study.config["int8"] = {**part, "drafter": [part["drafter"], f"{inner},dtype=int8)"]}
    try:
        cells = study.sweep("int8")
    except specmoe.Error as error:
        study.verdict("an INT8 drafter drafts as well, and faster", None, "not available here", "acceptance within 0.01",
                      f"This build has no int8 drafter: {error}", [])  # fmt: skip
        return
    step = cells["counts.draft_ns"] / cells["counts.drafted"] / 1e3
    study.verdict("an INT8 drafter drafts as well, and faster",
                  bool(abs(cells["acceptance_rate"][1] - cells["acceptance_rate"][0]) < 0.01 and step[1] < step[0]),
                  f"acceptance {cells['acceptance_rate'][1]:.3f} against {cells['acceptance_rate'][0]:.3f}, "
                  f"{step[1]:.1f} against {step[0]:.1f} us per drafted token", "acceptance within 0.01, and faster",
                  "int8 against bf16 weights.", cells["source"].to_list())  # fmt: skip


def spend(config, drafter):
    meter = Meter()
    target = specmoe.load(ROOT / config["target"], threads=1)
    engine = specmoe.Engine(target, **({"drafter": drafter} if drafter else {}))
    prompts = [json.loads(line)["turns"][0] for line in (ROOT / config["prompts"]).read_text().splitlines()]
    engine.generate(prompts[:2], max_new_tokens=16)
    meter.start()
    begin, tokens, times = time.perf_counter(), 0, {}
    while time.perf_counter() - begin < 2:  # longer than the counter's resolution
        for result in engine.generate(prompts, max_new_tokens=64):
            tokens += len(result.token_ids)
            for stage, ns in result.stage_times.items():
                times[stage] = times.get(stage, 0) + ns
    return {
        "joules": meter.stop(),
        "why": meter.why,
        "seconds": time.perf_counter() - begin,
        "tokens": tokens,
        "stage_ns": times,
    }


def energy(study):
    """'85 % less energy; cost per request from 0.01 to 0.00125.'"""
    config = {**study.config["length"]}
    drafter = config["drafter"].replace("path=", f"path={ROOT}/")
    plain, fast = (
        study.row({"energy": name}, lambda d=d: spend(config, d))
        for name, d in (("plain", None), ("speculative", drafter))
    )
    sources = [plain["source"], fast["source"]]
    if plain["joules"] is None or fast["joules"] is None:
        study.verdict("85 % less energy", None, "not readable here", "0.15 of the joules per token",
                      plain["why"] + "; no estimate is given in its place.", sources)  # fmt: skip
    else:
        each = [row["joules"] / row["tokens"] for row in (plain, fast)]
        total = sum(fast["stage_ns"].get(s, 0) for s in ("draft", "verify", "judge", "rest"))
        split = ", ".join(
            f"{s} {fast['stage_ns'].get(s, 0) / total * each[1] * 1e3:.2f}"
            for s in ("draft", "verify", "judge", "rest")
        )
        study.verdict("85 % less energy", each[1] <= 0.15 * each[0],
                      f"{each[1] * 1e3:.2f} instead of {each[0] * 1e3:.2f} mJ per token ({1 - each[1] / each[0]:.0%} less)", "85 % less",
                      f"Whole package, split by time: {split} mJ.", sources)  # fmt: skip
    price = json.loads((ROOT / study.config["prices"]).read_text())
    per_unit = [row["tokens"] / row["seconds"] * 3600 / price["machine_per_hour"] for row in (plain, fast)]
    study.verdict("cost per request falls to an eighth", per_unit[1] >= 8 * per_unit[0],
                  f"{per_unit[1] / 1e6:.0f} instead of {per_unit[0] / 1e6:.0f} million tokens per {price['currency']}", "8 times as many",
                  f"At {price['machine_per_hour']} {price['currency']} an hour ({price['note']}); prefill included.", sources)  # fmt: skip


def run(study):
    for claim in (factor, throughput, block_rules, hypotheses, int8, batches, accuracy, energy):
        claim(study)
