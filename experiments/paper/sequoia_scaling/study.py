"""R5: what the dynamic programme promises for given acceptance rates, and what the trained pair emits."""

import functools

import numpy as np
from measure import draw_interval, interval_text, rates_by_rank, short, tau_ratio, with_tau
from pandas import DataFrame

RANKS = 128


def rates():
    """Chance that the accepted child is of rank 1, 2, ..; after k children all are rejected with chance 0.4 / k."""
    rejected = 0.4 / np.arange(1, RANKS + 1)
    return np.concatenate([[1 - rejected[0]], rejected[:-1] - rejected[1:]])


def chain(nodes):
    return sum(0.6**depth for depth in range(nodes))


def chains(nodes):
    """The best of k chains of equal length below the root: after the first token one chain is left."""
    best = 0.0
    for k in range(1, nodes):
        length = (nodes - 1) // k
        if length:
            best = max(best, 1 + (1 - 0.4 / k) * chain(length))
    return best


def tree(nodes):
    """The likeliest `nodes` nodes, best first: optimal where the rates fall (equal to the dynamic programme)."""
    import heapq

    law, heap, total = rates(), [(-1.0, 0.0, 0)], 0.0
    for _ in range(nodes):
        survival, parent, rank = heapq.heappop(heap)
        total -= survival
        heapq.heappush(heap, (survival * law[0], survival, 0))  # its first child
        if parent and rank + 1 < RANKS:
            heapq.heappush(heap, (parent * law[rank + 1], parent, rank + 1))  # its next sibling
    return total


def run(study):
    budgets, wanted = study.config["budgets"], study.config["expected"]
    shapes = {"chain": chain, "chains": chains, "tree": tree}
    promised = DataFrame({"nodes": budgets} | {name: [f(m) for m in budgets] for name, f in shapes.items()})
    off = max(float(np.abs(promised[name] - wanted[name]).max()) for name in shapes)
    study.verdict("expected tokens for rejection 0.4 / k", off < study.config["tolerance"],
                  f"largest difference {off:.4f} tokens; trees of {budgets} nodes: "
                  + ", ".join(f"{value:.2f}" for value in promised["tree"]),
                  f"{wanted['tree']} within {study.config['tolerance']}",
                  "Computed: each node's chance to be on the kept path, summed.", [])  # fmt: skip

    star = study.sweep("star")
    rates_here = rates_by_rank(star)
    law = ",".join(f"{rate:.4f}" for rate in rates_here)
    trees = [f"sequoia({law},nodes={m},depth=12)" for m in study.config["sequoia_nodes"]]
    cells = with_tau(study.sweep(tree=[*trees, *study.config["bench"]["tree"]]))
    cells["shape"] = cells["tree"].str.extract(r"^(\w+)")
    nodes = functools.partial(cells["tree"].str.extract)
    cells["nodes"] = nodes(r"nodes=(\d+)")[0].astype(float)
    gamma, k = nodes(r"gamma=(\d+)")[0].astype(float), nodes(r"k=(\d+)")[0].astype(float)
    cells["nodes"] = cells["nodes"].fillna(1 + gamma * k.fillna(1))
    grown = cells[cells["shape"] == "sequoia"].sort_values("nodes")
    small, large = grown.iloc[0], grown.iloc[-1]
    study.verdict("on the trained pair a larger tree emits more", tau_ratio(large, small)[1] > 1,
                  f"{large.nodes:.0f} over {small.nodes:.0f} nodes: {interval_text(tau_ratio(large, small))}", "above 1",
                  f"Trees for the rates of a star measured first: {', '.join(f'{rate:.3f}' for rate in rates_here)}.",
                  [*grown["source"], *star["source"]])  # fmt: skip
    best_chain = cells[cells["shape"] == "chain"].sort_values("tau").iloc[-1]
    study.verdict("on the trained pair the largest tree emits more than the best chain", tau_ratio(large, best_chain)[1] > 1,
                  f"{large.nodes:.0f} nodes over {best_chain.tree}: {interval_text(tau_ratio(large, best_chain))}",
                  "above 1", "Both limited to 12 tokens of depth.", [large.source, best_chain.source])  # fmt: skip
    study.table("Expected tokens per pass, rejection 0.4 / k", promised, {
        "nodes": "nodes", "chain": "chain", "chains": "best parallel chains", "tree": "best tree"})  # fmt: skip
    cells["tree"] = cells["tree"].map(short)
    study.table("Trained pair, temperature 1", cells, {
        "tree": "tree", "nodes": "nodes", "tau": "tokens per pass", "tau_low": "low", "tau_high": "high"})  # fmt: skip

    def draw(axes):
        for shape, some in cells.groupby("shape"):
            some = some.sort_values("nodes")
            draw_interval(axes, some["nodes"], some, "tau", "tau_low", "tau_high", label=f"{shape}, trained pair")
        for name, label in (("chain", "chain"), ("chains", "parallel chains"), ("tree", "best tree")):
            axes.plot(
                budgets, promised[name], "--" if name == "tree" else ":", color="#8a8f98", label=f"{label}, 0.4 / k"
            )
        axes.set_xscale("log", base=2)
        axes.set_xlabel("nodes of the tree, root included")
        axes.set_ylabel("emitted tokens per target pass")
        axes.figure.legend(loc="outside lower center", fontsize=8, ncols=2)

    study.plot("scaling", "Solid: measured, 95 % bands. Dashed: expected for rejection 0.4 / k.", draw, (5.4, 4.4))
