"""Drafters, topologies and policies written in Python, for the tests."""

import numpy as np

import specmoe

PROMPT = [3, 141, 59, 26, 53, 58]
SAMPLING = {"max_new_tokens": 24, "temperature": 1.0, "ignore_eos": True}


class Token(specmoe.AcceptancePolicy):
    """Keeps each token of a chain with probability min(1, p/q)."""

    def lossless_laws(self):
        return ["deterministic", "iid"]

    def judge(self, draft, target, uniforms):
        accepted, node = [], 0
        while draft.tree.children(node):
            (child,) = draft.tree.children(node)
            p, q = target.row(node), draft.row(child)
            x = draft.tree.tokens[child]
            if not uniforms.uniform(child, "accept").less(p[x], q[x]):
                return accepted, uniforms.uniform(node, "next").choose(np.maximum(p - q, 0))
            accepted.append(child)
            node = child
        return accepted, uniforms.uniform(node, "next").choose(target.row(node))


class WrongToken(Token):
    """The same with a favourite bug: the replacement comes from the target's row, not from the residual."""

    def judge(self, draft, target, uniforms):
        accepted, following = super().judge(draft, target, uniforms)
        node = accepted[-1] if accepted else 0
        return accepted, uniforms.uniform(node, "plugin").choose(target.row(node))


class Naive(specmoe.AcceptancePolicy):
    """Samples the target and keeps what the tree holds."""

    def lossless_laws(self):
        return ["deterministic", "iid", "without_replacement", "top_plus_sampled", "multi_drafter"]

    def judges_trees(self):
        return True

    def judge(self, draft, target, uniforms):
        accepted, node = [], 0
        while True:
            token = uniforms.uniform(node, "next").choose(target.row(node))
            held = [child for child in draft.tree.children(node) if draft.tree.tokens[child] == token]
            if not held:
                return accepted, token
            node = held[0]
            accepted.append(node)


class Widths(specmoe.TreePolicy):
    """children per node at depth 1, 2, …"""

    def __init__(self, *widths):
        super().__init__()
        self.widths = widths or (1, 1)

    def max_nodes(self):
        return 1 + sum(np.cumprod(self.widths))

    def max_depth(self):
        return len(self.widths)

    def branches(self):
        return max(self.widths) > 1

    def expand(self, view):
        return [(node, self.widths[view.tree.depth(node)]) for node in view.frontier]


class ModelDrafter(specmoe.Drafter):
    """Proposes what a model of its own expects: independent(path) in a few lines."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def checkpoints(self):
        return [self.path]

    def attach(self, target):
        self.model = specmoe.load(self.path, dtype=target.info.dtype, threads=1)

    def propose(self, request):
        rows = np.empty((len(request.frontier), request.vocab_size), dtype=np.float32)
        for row, node in zip(rows, request.frontier, strict=True):
            logits = self.model.logits([*request.text, *request.tree.path_tokens(node)])[-1].astype(np.float64)
            weights = np.exp((logits - logits.max()) / (request.temperature or 1.0))
            row[:] = weights / weights.sum()
        return rows


class OwnHead(specmoe.Drafter):
    """Proposes again what the target just said, by the target's own output matrix [V, D] on its hidden rows."""

    def __init__(self, head):
        super().__init__()
        self.head, self.seen = head, []

    def deterministic(self):
        return True

    def attach(self, target):
        self.layers = target.info.layers

    def taps(self):
        return [self.layers, self.layers + 1]

    def propose(self, request):
        assert request.hidden.dtype == np.float32 and not request.hidden.flags.writeable
        _, normed = np.split(request.hidden, 2, axis=1)
        self.seen.append((request.text, normed @ self.head.T))
        best = int(self.seen[-1][1][-1].argmax())
        return [[best] for _ in request.frontier]


class Repeat(specmoe.Drafter):
    """Proposes that the last `length` tokens come again: deterministic."""

    def __init__(self, length=2):
        super().__init__()
        self.length = length
        self.steps = 0

    def deterministic(self):
        return True

    def open(self, prompt):
        return {"prompt": prompt.tolist(), "emitted": []}

    def propose(self, request):
        assert request.text.tolist() == request.state["prompt"] + request.state["emitted"]
        text = [[*request.text, *request.tree.path_tokens(node)] for node in request.frontier]
        return [[t[-self.length]] if len(t) >= self.length else None for t in text]

    def commit(self, state, tree, accepted, next):
        self.steps += 1
        state["emitted"] += [*tree.tokens[accepted].tolist(), next]


def tokens(engine, **sampling):
    return [engine.generate(PROMPT, seed=seed, **(SAMPLING | sampling)).token_ids.tolist() for seed in range(6)]
