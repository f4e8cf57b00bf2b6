"""What is registered, and proofs of it, from Python."""

import numpy as np
import pytest

import specmoe


def test_plugins_are_listed_with_their_parameters():
    assert {"independent", "ngram", "synthetic"} <= set(specmoe.drafters())
    assert {"greedy", "naive", "token"} <= set(specmoe.acceptance_policies())
    chain = specmoe.tree_policies()["chain"]
    assert chain.name == "chain" and chain.summary
    assert [(p.name, int(p.default) > 0) for p in chain.parameters][0] == ("gamma", True)
    assert "gamma=" in repr(chain)


def test_a_lossless_policy_is_proved():
    proof = specmoe.prove("token", law="iid", tree="chain(gamma=2)")
    assert proof.lossless and proof.tvd < 1e-12 and proof.counter_example is None
    assert 1 < proof.expected_tokens < 3
    np.testing.assert_allclose(proof.law["emitted"], proof.law["exact"], atol=1e-12)
    assert proof.law["exact"].shape == (3, 3, 3) and abs(proof.law["exact"].sum() - 1) < 1e-12


def test_a_biased_pair_is_shown_with_a_counter_example():
    matrices = {"target": [[0.5, 0.5], [0.9, 0.1]], "draft": [[0.8, 0.2], [0.3, 0.7]]}
    proof = specmoe.prove("multi_step", law="without_replacement", tree="expansion(2)", **matrices)
    assert proof.lossless
    proof = specmoe.prove("typical", law="iid", tree="chain(gamma=1)", **matrices)
    assert not proof.lossless and proof.tvd > 0.01
    example = proof.counter_example
    assert example.actual > example.expected and example.tree and len(example.text) >= 1
    assert proof.law["emitted"][tuple(example.text)].sum() == pytest.approx(example.actual)


@pytest.mark.parametrize(
    "arguments",
    [
        {"policy": "token", "tree": "expansion(2)"},
        {"policy": "nothing"},
        {"policy": "token", "tree": "chain(1)", "law": "lottery"},
        {"policy": "token", "tree": "chain(1)", "length": -1},
        {"policy": "token", "tree": "chain(1)", "length": 65, "target": [[1.0]], "draft": [[1.0]]},
        {"policy": "token", "tree": "chain(1)", "target": [[1.0]]},
        {"policy": "token", "tree": "chain(1)", "target": [[0.5, 0.5]], "draft": [[1.0, 0.0], [-1.0, 2.0]]},
    ],
)
def test_proofs_that_cannot_be_made(arguments):
    with pytest.raises(specmoe.Error):
        specmoe.prove(**arguments)
