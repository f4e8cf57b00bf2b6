"""Arrays exchanged with other libraries by DLPack."""

import gc

import numpy as np
import pytest
import torch

import specmoe

IDS = [3, 17, 8, 99, 4]


class OnlyDLPack:
    """A tensor that offers nothing but the exchange."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_logits_are_shared_not_copied(target):
    expected = target.logits(IDS)
    tensor = target.logits_tensor(IDS)
    assert (tensor.shape, tensor.__dlpack_device__()) == (expected.shape, (1, 0))
    first, second = torch.from_dlpack(tensor), np.from_dlpack(tensor)
    assert np.array_equal(first.numpy(), expected)
    assert np.array_equal(second, expected)
    first[0, 0] = 7.0
    assert second[0, 0] == 7.0


def test_the_memory_lasts_as_long_as_its_readers(target):
    expected = target.logits(IDS)
    tensor = target.logits_tensor(IDS)
    capsule = tensor.__dlpack__()
    taken = torch.from_dlpack(tensor)
    del tensor, capsule  # nobody took the capsule
    gc.collect()
    target.logits(IDS * 20)
    assert np.array_equal(taken.numpy(), expected)


def test_arrays_of_results_can_be_taken_too(target):
    logits = target.logits(IDS)
    taken = torch.from_dlpack(logits)
    assert taken.data_ptr() == logits.__array_interface__["data"][0]


@pytest.mark.parametrize("options", [{"copy": True}, {"dl_device": (2, 0)}])
def test_what_would_need_a_copy_is_refused(target, options):
    with pytest.raises(BufferError, match="copy what you took"):
        target.logits_tensor(IDS).__dlpack__(**options)


@pytest.mark.parametrize("make", [np.array, torch.tensor, lambda ids: OnlyDLPack(torch.tensor(ids))])
def test_token_ids_of_every_library(target, make):
    assert np.array_equal(target.logits(make(IDS)), target.logits(IDS))
    with pytest.raises(TypeError, match="token_ids: expected a flat sequence of integer token ids"):
        target.logits(make([0.5, 1.0]))


def test_rows_of_a_drafter(target):
    class Uniform(specmoe.Drafter):
        def propose(self, request):
            row = torch.full((request.vocab_size,), 1 / request.vocab_size)
            return [OnlyDLPack(row) for _ in request.frontier]

    engine = specmoe.Engine(target, Uniform(), "chain(gamma=2)")
    texts = [
        decoder.generate([IDS], max_new_tokens=6, stop=[], ignore_eos=True)[0].token_ids.tolist()
        for decoder in (engine, specmoe.Engine(target))
    ]
    assert texts[0] == texts[1]


def test_tensors_of_other_libraries_are_prompts(target):
    engine = specmoe.Engine(target)
    alone = engine.generate(IDS, max_new_tokens=4).token_ids
    assert (engine.generate(torch.tensor(IDS), max_new_tokens=4).token_ids == alone).all()
    assert len(engine.generate(torch.tensor([IDS, IDS]), max_new_tokens=4)) == 2
    with pytest.raises(TypeError):
        engine.generate(np.array(5))
