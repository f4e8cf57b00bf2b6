"""The package `specmoe`: loading and logits, on tiny random checkpoints."""

import gc
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file

import specmoe

PROMPT = [3, 141, 59, 26, 53, 58]


def test_info_has_every_field_as_attribute_and_in_a_dict(target):
    info = target.info.as_dict()
    assert info["architecture"] == target.info.architecture == "mixtral"
    assert (info["vocab_size"], info["experts"], info["experts_per_token"]) == (199, 8, 2)
    assert info["active_parameters"] < info["parameters"]
    assert "mixtral" in repr(target)


def test_logits_are_those_of_transformers(target, target_path):
    expected = load_file(target_path / "expected.safetensors")
    logits = target.logits(expected["input_ids"])
    assert logits.dtype == np.float32 and logits.shape == expected["logits"].shape
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4 * max(1, np.abs(expected["logits"]).max()))
    assert (target.experts(expected["input_ids"]) == expected["routers"]).all()


def test_a_row_does_not_depend_on_the_rows_behind_it(target):
    assert (target.logits(PROMPT)[:2] == target.logits(PROMPT[:2])).all()


def test_logits_keep_their_memory(target):
    rows = [target.logits([token]) for token in range(5)]
    gc.collect()
    assert all((row == target.logits([token])).all() for token, row in enumerate(rows))


def test_load_takes_its_defaults_from_the_library(target_path):
    assert specmoe.load(target_path).info.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        ([], specmoe.Error, "one token or more"),
        ([199], specmoe.Error, "199"),
        ([-1], specmoe.Error, "-1"),
        ([0] * 257, specmoe.Error, "256"),
        ([0.5], TypeError, "integer"),
        ("text", TypeError, "integer"),
        ([[1, 2], [3, 4]], TypeError, "flat"),
    ],
)
def test_bad_token_ids(target, tokens, error, words):
    with pytest.raises(error, match=words):
        target.logits(tokens)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "no/such/folder"}, "no/such/folder"),
        ({"dtype": "int3"}, "bfloat16"),
        ({"device": "abacus"}, "abacus"),
        # Without the CUDA part, and with it but without a device.
        ({"device": "cuda:9"}, "cmake --preset cuda|CUDA device 9 does not exist"),
        ({"threads": -1}, "threads"),
    ],
)
def test_load_errors_are_one_line_and_a_value_error(target_path, arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        specmoe.load(**({"path": target_path} | arguments))
    assert isinstance(caught.value, specmoe.Error) and "\n" not in str(caught.value)


def test_errors_can_be_pickled():
    assert str(pickle.loads(pickle.dumps(specmoe.Error("gamma")))) == "gamma"
