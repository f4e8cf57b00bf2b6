"""Drafters, topologies and policies written in Python, in the engine and in the prover."""

import gc
import itertools

import numpy as np
import pytest
from python_plugins import PROMPT, SAMPLING, ModelDrafter, Naive, OwnHead, Repeat, Token, Widths, WrongToken, tokens
from safetensors import safe_open

import specmoe

# ---- they do what their twins in C++ do -----------------------------------------------------------------------------


@pytest.mark.parametrize("drafter", ["independent(path={draft})", "ngram", "synthetic(alpha=0.6)"])
def test_a_policy_in_python_decides_like_its_twin(target, draft_path, drafter):
    """Same uniforms, same arithmetic: the same texts, not only the same law."""
    parts = {"drafter": drafter.format(draft=draft_path), "tree": "chain(gamma=3)"}
    twin = specmoe.Engine(target, acceptance="token", **parts)
    engine = specmoe.Engine(target, acceptance=Token(), **parts)
    assert engine.lossless and engine.spec["acceptance"] == "Token"
    assert tokens(engine) == tokens(twin)
    counts = engine.generate(PROMPT, **SAMPLING).counts
    if drafter != "ngram":
        assert counts["accepted"] > 0 and counts["rejected"] > 0


@pytest.mark.parametrize("law", ["iid", "without_replacement"])
def test_a_policy_on_trees_decides_like_its_twin(target, draft_path, law):
    parts = {"drafter": f"independent(path={draft_path})", "tree": f"expansion(2,2,law={law})"}
    twin = specmoe.Engine(target, acceptance="naive", **parts)
    assert tokens(specmoe.Engine(target, acceptance=Naive(), **parts)) == tokens(twin)


def test_a_topology_in_python_grows_like_its_twin(target, draft_path):
    parts = {"drafter": f"independent(path={draft_path})", "acceptance": "naive"}
    twin = specmoe.Engine(target, tree="expansion(3,2,law=iid)", **parts)
    engine = specmoe.Engine(target, tree=Widths(3, 2), **parts)
    assert tokens(engine) == tokens(twin)
    result = engine.generate(PROMPT, **SAMPLING)
    assert result.steps["drafted"].max() == 9


def test_a_drafter_in_python_proposes_like_its_twin(target_path, draft_path):
    target = specmoe.load(target_path, dtype="float32", threads=1)
    twin = specmoe.Engine(target, drafter=f"independent(path={draft_path})", tree="chain(gamma=2)")
    engine = specmoe.Engine(target, drafter=ModelDrafter(draft_path), tree="chain(gamma=2)")
    assert engine.spec["drafter"] == "ModelDrafter" and engine.spec["acceptance"] == twin.spec["acceptance"]
    for a, b in zip(tokens(engine, temperature=0.0), tokens(twin, temperature=0.0), strict=True):
        assert a == b


def test_a_deterministic_drafter_keeps_text_and_state(target):
    drafter = Repeat()
    engine = specmoe.Engine(target, drafter=drafter, tree="chain(gamma=3)", acceptance="token")
    plain = specmoe.Engine(target).generate(PROMPT, max_new_tokens=40, ignore_eos=True)
    result = engine.generate(PROMPT, max_new_tokens=40, ignore_eos=True)
    assert (result.token_ids == plain.token_ids).all()
    assert drafter.steps == len(result.steps) and result.counts["drafted"] > 0


def test_a_drafter_reads_the_hidden_rows_that_it_names(target, target_path):
    with safe_open(f"{target_path}/model.safetensors", "pt") as tensors:
        drafter = OwnHead(tensors.get_tensor("lm_head.weight").float().numpy())
    engine = specmoe.Engine(target, drafter=drafter, tree="chain(gamma=2)", acceptance="token")
    result = engine.generate(PROMPT, max_new_tokens=30, ignore_eos=True)
    assert (
        result.token_ids == specmoe.Engine(target).generate(PROMPT, max_new_tokens=30, ignore_eos=True).token_ids
    ).all()
    assert len(drafter.seen) > 10
    for text, logits in drafter.seen:
        assert len(logits) == len(text) - 1
        np.testing.assert_allclose(logits, target.logits(text[:-1]), rtol=1e-3, atol=1e-3)


def test_a_drafter_is_told_how_the_request_samples(target):
    sampling = {
        "temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.125, "repetition_penalty": 1.5,
        "presence_penalty": -0.5, "frequency_penalty": 0.25,
    }  # fmt: skip
    seen = {}

    class Curious(specmoe.Drafter):
        def propose(self, request):
            seen.update({name: getattr(request, name) for name in sampling})
            return [None] * len(request.frontier)

    specmoe.Engine(target, drafter=Curious()).generate(PROMPT, max_new_tokens=3, **sampling)
    assert seen == sampling


def test_hidden_rows_that_nobody_asked_for_are_an_error(target):
    drafter = Repeat(1)
    drafter.propose = lambda request: request.hidden
    with pytest.raises(specmoe.Error, match="taps"):
        specmoe.Engine(target, drafter=drafter, tree="chain(gamma=2)").generate(PROMPT)


def test_nothing_but_python_parts(target):
    engine = specmoe.Engine(target, drafter=Repeat(1), tree=Widths(1, 1), acceptance=Token())
    plain = specmoe.Engine(target).generate(PROMPT, max_new_tokens=20)
    assert (engine.generate(PROMPT, max_new_tokens=20).token_ids == plain.token_ids).all()
    assert len(tokens(engine)) == 6


# ---- proofs ---------------------------------------------------------------------------------------------------------


def test_a_policy_in_python_is_proved():
    proof = specmoe.prove(Token(), law="iid", tree="chain(gamma=2)")
    assert proof.lossless
    assert proof.expected_tokens == pytest.approx(
        specmoe.prove("token", law="iid", tree="chain(gamma=2)").expected_tokens, abs=1e-12
    )
    assert specmoe.prove(Naive(), law="without_replacement", tree=Widths(2, 2)).lossless


def test_a_wrong_policy_in_python_is_caught():
    proof = specmoe.prove(WrongToken(), law="iid", tree="chain(gamma=1)")
    assert not proof.lossless and proof.counter_example is not None


# ---- what goes wrong ------------------------------------------------------------------------------------------------


class Oops(Exception):
    """An exception that the library cannot know."""


def raising(base, name):
    def raise_it(self, *arguments):
        raise Oops(name)

    return type("Raising", (base,), {name: raise_it})()


CASES = [
    *[(Repeat, name) for name in ["deterministic", "attach", "taps", "open", "propose", "commit"]],
    *[(Widths, name) for name in ["law", "max_nodes", "max_depth", "branches", "expand", "next_frontier", "prune"]],
    *[(Token, name) for name in ["lossless_laws", "judges_trees", "judge"]],
]


@pytest.mark.parametrize(("base", "name"), CASES)
def test_an_exception_reaches_the_caller_as_it_is(target, draft_path, base, name):
    parts = {"drafter": Repeat(1), "tree": Widths(1, 1), "acceptance": Token()}
    key = {Repeat: "drafter", Widths: "tree", Token: "acceptance"}[base]
    # These two are only asked about rows, and about a tree that branches.
    parts |= {"law": {"drafter": f"independent(path={draft_path})"}, "judges_trees": {"tree": "expansion(2)"}}.get(
        name, {}
    )
    with pytest.raises(Oops, match=f"^{name}$"):
        specmoe.Engine(target, **(parts | {key: raising(base, name)})).generate(PROMPT, **SAMPLING)


def odd(base, name, value, *arguments):
    return type("Odd", (base,), {name: lambda self, *_: value})(*arguments)


@pytest.mark.parametrize(
    ("key", "base", "name", "value", "words"),
    [
        ("acceptance", Token, "judge", None, "Odd.judge must return"),
        ("acceptance", Token, "judge", ([2, 1], 0), "not a child of 0"),
        ("acceptance", Token, "judge", ([0], 1), "path down from the root"),
        ("acceptance", Token, "judge", ([], 199), r"next token in \[0, 199\)"),
        ("acceptance", Token, "lossless_laws", ["magic"], "magic"),
        ("tree", Widths, "expand", [1], "Odd.expand must return"),
        ("tree", Widths, "expand", [(5, 1)], "not in the frontier"),
        ("tree", Widths, "expand", [(0, -1)], "-1 children"),
        ("tree", Widths, "expand", [(0, 10**9)], "max_nodes"),
        ("tree", Widths, "expand", [(0, 2**31 - 1)], "max_nodes"),
        ("tree", Widths, "next_frontier", [7], "not just added"),
        ("tree", Widths, "prune", [5], "subset"),
        ("tree", Widths, "prune", "12", "Odd.prune must return a list of node ids or None, got '12'"),
        ("tree", Widths, "next_frontier", None, "Odd.next_frontier must return a list of node ids, got None"),
        ("tree", Widths, "max_nodes", 2**40, "Odd.max_nodes must return an int, got 1099511627776"),
        ("tree", Widths, "max_nodes", 0, "max_nodes must be 1 to 16777216, got 0"),
        ("tree", Widths, "max_nodes", 2**31 - 1, "max_nodes must be 1 to 16777216, got 2147483647"),
        ("tree", Widths, "max_grown_nodes", 2**31 - 1, "max_grown_nodes must be 1 to 16777216, got 2147483647"),
        ("tree", Widths, "max_depth", 2.5, "Odd.max_depth must return an int, got 2.5"),
        ("tree", Widths, "max_depth", -1, "max_depth must be 0 to 16777216, got -1"),
        ("tree", Widths, "branches", "no", "Odd.branches must return a bool, got 'no'"),
        ("acceptance", Token, "lossless_laws", "iid", "Odd.lossless_laws must return a list of str, got 'iid'"),
        ("acceptance", Token, "samples", [], "Odd.samples must return a bool, got "),
        ("drafter", Repeat, "propose", None, "one proposal per frontier node"),
        ("drafter", Repeat, "propose", [[199]], "outside the vocabulary"),
        ("drafter", Repeat, "propose", [[1], [2]], "expected 1 proposals"),
        ("drafter", Repeat, "propose", [[0.5]], "integer token ids"),
        ("drafter", Repeat, "deterministic", False, "probability row"),
        ("drafter", specmoe.Drafter, "propose", np.full((1, 199), 0.01), "sums to"),
        ("drafter", specmoe.Drafter, "propose", np.full((1, 199), np.nan), "nan"),
        ("drafter", specmoe.Drafter, "propose", np.full((1, 7), 1 / 7), "V=199"),
        ("drafter", specmoe.Drafter, "propose", ["a"], "Odd.propose: expected numbers, got 'a'"),
        ("drafter", Repeat, "deterministic", "yes", "Odd.deterministic must return a bool, got 'yes'"),
        ("drafter", Repeat, "taps", 1, "Odd.taps must return a list of int, got 1"),
    ],
)
def test_odd_answers_are_refused_with_the_method_named(target, key, base, name, value, words):
    parts = {"drafter": Repeat(1), "tree": Widths(1, 1), "acceptance": Token()}
    with pytest.raises((specmoe.Error, TypeError), match=words) as caught:
        specmoe.Engine(target, **(parts | {key: odd(base, name, value)})).generate(PROMPT, **SAMPLING)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "base", "method"),
    [
        ("acceptance", specmoe.AcceptancePolicy, "judge"),
        ("tree", specmoe.TreePolicy, "max_"),
        ("drafter", specmoe.Drafter, "propose"),
    ],
)
def test_a_plugin_without_its_method_says_which(target, key, base, method):
    empty = type("Empty", (base,), {})()
    parts = {"drafter": Repeat(1), "tree": "chain(gamma=2)", "acceptance": "naive"} | {key: empty}
    with pytest.raises(NotImplementedError, match=f"Empty must define {method}"):
        specmoe.Engine(target, allow_lossy=True, **parts).generate(PROMPT, **SAMPLING)


def test_a_constructor_that_forgets_its_base_is_told(target):
    class Forgetful(specmoe.Drafter):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="__init__"):
        Forgetful()


def test_what_a_policy_does_not_claim_is_not_assumed(target):
    class Claimless(Token):
        def lossless_laws(self):
            return []

    with pytest.raises(specmoe.Error, match="allow_lossy"):
        specmoe.Engine(target, drafter="ngram", acceptance=Claimless())
    assert not specmoe.Engine(target, drafter="ngram", acceptance=Claimless(), allow_lossy=True).lossless
    with pytest.raises(specmoe.Error, match="chain"):
        specmoe.Engine(target, drafter="ngram", tree="expansion(2,2)", acceptance=Token())


def test_lent_things_end_with_the_call(target):
    kept = []

    class Keeper(Naive):
        def judge(self, draft, target, uniforms):
            kept.append((draft, target, uniforms, uniforms.uniform(0, "accept"), target.row(0)))
            return super().judge(draft, target, uniforms)

    engine = specmoe.Engine(target, drafter="synthetic", acceptance=Keeper(), tree="chain(gamma=2)")
    engine.generate(PROMPT, **SAMPLING)
    draft, rows, uniforms, uniform, row = kept[0]
    assert len(draft.tree) == 3 and abs(row.sum() - 1) < 1e-5 and row.dtype == np.float64
    for use in (
        lambda: draft.row(1),
        lambda: rows.row(0),
        lambda: uniforms.uniform(0, "next"),
        lambda: uniform.less(0.5),
        lambda: uniform.choose([1.0, 1.0]),
    ):
        with pytest.raises(specmoe.Error, match="during the call"):
            use()


def test_an_engine_keeps_its_plugins_alive(target):
    engine = specmoe.Engine(target, drafter=Repeat(1), tree=Widths(1, 1), acceptance=Token())
    gc.collect()
    assert len(tokens(engine)) == 6


def test_a_plugin_may_ask_the_target_but_not_its_own_engine(target):
    class Asking(Naive):
        def judge(self, draft, rows, uniforms):
            assert target.logits([1, 2]).shape == (2, 199)
            with pytest.raises(specmoe.Error, match="generating already"):
                engine.generate(PROMPT)
            return super().judge(draft, rows, uniforms)

    engine = specmoe.Engine(target, drafter="synthetic", acceptance=Asking())
    assert len(engine.generate(PROMPT, **SAMPLING).token_ids) == 24


# ---- uniforms and trees ---------------------------------------------------------------------------------------------


def test_uniforms_are_addressed(target):
    seen = []

    class Looking(Naive):
        def judge(self, draft, target, uniforms):
            def number(*address):
                low, high = 0.0, 1.0
                for _ in range(40):
                    middle = (low + high) / 2
                    low, high = (low, middle) if uniforms.uniform(*address).less(middle) else (middle, high)
                return low

            addresses = itertools.product([0, 1], ["accept", "next", "plugin"], [0, 1])
            seen.append([number(*address) for address in addresses])
            assert number(0, "accept") == seen[-1][0]
            with pytest.raises(specmoe.Error, match="purpose"):
                uniforms.uniform(0, "luck")
            for weights in ([], [0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]):
                with pytest.raises(specmoe.Error):
                    uniforms.uniform(0, "plugin").choose(weights)
            with pytest.raises(specmoe.Error, match="denominator"):
                uniforms.uniform(0, "plugin").less(1.0, 0.0)
            with pytest.raises(specmoe.Error, match="numerator"):
                uniforms.uniform(0, "plugin").less(np.nan)
            return super().judge(draft, target, uniforms)

    specmoe.Engine(target, drafter="synthetic", acceptance=Looking()).generate(PROMPT, **SAMPLING)
    numbers = [number for step in seen for number in step]
    assert len(set(numbers)) == len(numbers) and all(0 <= number < 1 for number in numbers)


def test_a_tree_can_be_walked(target):
    trees = []

    class Looking(Naive):
        def judge(self, draft, target, uniforms):
            trees.append(draft.tree)
            for node in (-1, len(draft.tree)):
                for read in (draft.tree.children, draft.tree.path, draft.tree.depth, draft.row, target.row):
                    with pytest.raises(specmoe.Error, match="node"):
                        read(node)
            return super().judge(draft, target, uniforms)

    engine = specmoe.Engine(target, drafter="synthetic", tree="expansion(2,2)", acceptance=Looking())
    engine.generate(PROMPT, **SAMPLING)
    tree = trees[0]
    assert len(tree) == 7 and tree.max_depth == 2 and tree.parents.tolist() == [-1, 0, 0, 1, 1, 2, 2]
    assert tree.tokens[0] == PROMPT[-1] and tree.children(1) == [3, 4] and tree.path(6) == [2, 6]
    assert tree.path_tokens(6) == tree.tokens[[2, 6]].tolist() and tree.depth(6) == 2


# ---- registration ---------------------------------------------------------------------------------------------------


def test_registered_classes_are_known_by_name(target, draft_path):
    specmoe.register("py_repeat")(Repeat)
    specmoe.register("py_widths", summary="widths by level")(Widths)
    specmoe.register("py_token")(Token)
    specmoe.register("py_model")(ModelDrafter)
    assert specmoe.acceptance_policies()["py_token"].summary.startswith("Keeps each token")
    assert specmoe.tree_policies()["py_widths"].summary == "widths by level"
    (length,) = specmoe.drafters()["py_repeat"].parameters
    assert (length.name, length.default) == ("length", "2")

    engine = specmoe.Engine(target, drafter="py_repeat(length=1)", tree="py_widths(1,1)", acceptance="py_token")
    assert "length=1" in engine.spec["drafter"] and engine.lossless
    objects = specmoe.Engine(target, drafter=Repeat(1), tree=Widths(1, 1), acceptance=Token())
    assert tokens(engine) == tokens(objects)
    with pytest.raises(specmoe.Error, match="length"):
        specmoe.Engine(target, drafter="py_repeat(width=1)")
    assert specmoe.Engine(target, drafter=f"py_model(path={draft_path})", tree="chain(gamma=1)").lossless


def test_a_class_may_be_registered_again_but_not_in_place_of_a_built_in(target):
    @specmoe.register("py_again")
    class First(Repeat):
        """first"""

    @specmoe.register("py_again")
    class Second(Repeat):
        """second"""

    assert First is not Second and specmoe.drafters()["py_again"].summary == "second"
    with pytest.raises(specmoe.Error, match="twice"):
        specmoe.register("ngram")(Repeat)
    assert "ngram" in specmoe.drafters()


def test_only_plugin_classes_can_be_registered():
    for wrong in (int, Repeat(), "Repeat"):
        with pytest.raises(TypeError, match="register"):
            specmoe.register("py_wrong")(wrong)
    for name in ("", "py wrong", "py_wrong(", "py_wrong(length=2)", "4py"):
        with pytest.raises(specmoe.Error, match="expected"):
            specmoe.register(name)(Repeat)


def test_a_parameter_of_another_type_is_refused_at_once():
    class OddDefault(Repeat):
        def __init__(self, table=None):
            super().__init__()

    with pytest.raises(specmoe.Error, match="table"):
        specmoe.register("py_odd_default")(OddDefault)
    assert "py_odd_default" not in specmoe.drafters()
