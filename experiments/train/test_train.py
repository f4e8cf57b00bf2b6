"""Checks of the training scripts and, where they are there, of the bundled models and prompts."""

from __future__ import annotations

import argparse
import copy
import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import train_dflash
import train_medusa
import train_pard
import training
from corpus import BEGIN_ID, Corpus, code_files
from evaluate import generate, held_out_problems, tokens_per_step
from export import check, export, export_head, load
from model import LanguageModel, SoftCrossEntropy
from plot import read_log
from train_eagle import EagleHead, Lesson, export_eagle, head_config, losses
from training import Learner, Streams, schedule
from word_problems import KINDS, is_held_out, make_problem, read_answer, wrong_sums

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
RECIPE = json.loads((HERE / "recipe.json").read_text())

needs_models = pytest.mark.skipif(
    not (MODELS / "target" / "model.safetensors").exists(),
    reason="the bundled models are not there",
)


def small(config: dict) -> dict:
    """A shrunken copy of a model of the recipe."""
    return copy.deepcopy(config) | {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16}


def random_model(config: dict) -> LanguageModel:
    """Weights large enough that a wrong name, order or shape shows in the logits."""
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(3)
    for tensor in model.parameters():
        mean = 1.0 if tensor.dim() == 1 else 0.0
        torch.nn.init.normal_(tensor, mean=mean, std=0.1, generator=generator)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_solutions_are_right(kind):
    rng = Random(5)
    for _ in range(500):
        problem = make_problem(rng, kind)
        assert read_answer(problem.solution) == problem.answer
        assert not wrong_sums(problem.solution)
        numbers = [int(n) for n in re.findall(r"\d+", problem.prompt + problem.solution)]
        assert max(numbers) < 100 and min(numbers) > 0


def test_training_never_draws_a_held_out_prompt():
    rng = Random(6)
    assert not any(is_held_out(make_problem(rng).prompt) for _ in range(5000))
    problems = held_out_problems(20)
    assert all(is_held_out(p.prompt) for p in problems)
    assert len({p.prompt for p in problems}) == len(problems) == 20 * len(KINDS)
    assert not set(code_files(held_out=True)) & set(code_files(held_out=False))


def test_wrong_solutions_are_seen():
    assert wrong_sums("There are 3 + 4 = 8 pens and 6 / 2 = 3 cups.") == ["3 + 4 = 8"]
    assert read_answer("Answer: 8\n") == 8
    assert read_answer("The answer is 8") is None


@pytest.mark.parametrize("name", ["target", "drafter"])
def test_export_gives_the_logits_of_transformers(name, tmp_path):
    config = small(RECIPE[name])
    model = random_model(config)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tokenizer / file).write_text("{}")
    export(model.state_dict(), config, tokenizer, tmp_path / name)
    assert check(tmp_path / name) < 1e-4


def test_batched_generation_is_that_of_one_row():
    model = random_model(small(RECIPE["target"])).eval()
    prompts = [[0, 5, 9, 33, 7], [0, 8], [0, 90, 41]]
    together = generate(model, prompts, 12)
    for prompt, text in zip(prompts, together, strict=True):
        assert generate(model, [prompt], 12) == [text]
        ids = list(prompt)
        for token in text:
            assert int(model(torch.tensor([ids]))[0, -1].argmax()) == token
            ids.append(token)


def test_soft_cross_entropy_is_torchs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 13, generator=generator, requires_grad=True)
    text = torch.randint(0, 13, (9,), generator=generator)
    law = torch.randn(9, 13, generator=generator).softmax(-1)
    for mixed, weight in ((None, 1.0), (law, 0.3)):
        loss, probs = SoftCrossEntropy.apply(logits, text, mixed, weight)
        (got,) = torch.autograd.grad(loss, logits)
        logs = logits.log_softmax(-1)
        expected = -weight * logs.gather(1, text[:, None]).mean()
        if mixed is not None:
            expected = expected - (1 - weight) * (mixed * logs).sum(-1).mean()
        (wanted,) = torch.autograd.grad(expected, logits)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(probs, logs.exp())


def test_tokens_per_step_takes_runs_and_one_more():
    yes, no = True, False
    assert tokens_per_step([yes] * 10, 4) == (10, 2)
    assert tokens_per_step([no] * 6, 4) == (6, 6)
    assert tokens_per_step([yes, no, yes, yes, no], 4) == (5, 2)


def test_schedule_warms_up_stays_and_decays():
    warm, share = RECIPE["warm_up_steps"], RECIPE["decay_share"]
    assert schedule(0.0, 0, RECIPE) == pytest.approx(1 / warm)
    assert schedule(1 - share, 10 * warm, RECIPE) == pytest.approx(1.0)
    assert schedule(1 - share / 2, 10 * warm, RECIPE) == pytest.approx(0.5)
    assert schedule(1.0, 10 * warm, RECIPE) == 0.0


class CountedRun(training.TrainingRun):
    """Learns nothing; saves at step 30, and dies at step `dies`."""

    def __init__(self, folder: Path, dies: int = -1):
        args = argparse.Namespace(run=folder, steps=100, minutes=1e9, save_minutes=1e9, export_minutes=1e9)
        super().__init__(args, {"warm_up_steps": 1, "decay_share": 1.0, "learning_rate": 1.0}, corpus=None)
        self.dies = dies
        self.resume()

    def train_step(self, factor: float) -> None:
        if self.step == self.dies:
            raise KeyboardInterrupt
        if self.step == 30:
            self.save()
        self.add(value=self.step)
        if self.step < 20:  # as what is not learned in every step
            self.add(early=1.0)
        self.step += 1
        self.tokens += 1

    def learned(self) -> dict:
        return {}

    def take(self, learned: dict) -> None: ...

    def export(self) -> None: ...

    def summary(self, row: dict) -> str:
        return ""

    def logged(self) -> list[float]:
        return read_log(self.log_file)["step"]


@pytest.mark.parametrize("dies", [20, 27, 55])
def test_the_log_of_a_killed_and_resumed_run_has_each_step_once(tmp_path, dies):
    with pytest.raises(KeyboardInterrupt):
        CountedRun(tmp_path, dies).run()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("75,7" if dies > 25 else "")  # a line that the kill cut, or the disk that was full
    run = CountedRun(tmp_path)
    assert run.step == (30 if dies > 30 else 0)
    run.run()
    assert run.logged() == [25, 50, 75, 100]
    CountedRun(tmp_path)
    assert run.logged() == [25, 50, 75, 100]


def small_eagle() -> tuple[LanguageModel, EagleHead, torch.Tensor]:
    """A target, a head for it with random weights, and the tokens that the head knows."""
    sizes = {"hidden_size": 32, "head_dim": 16, "intermediate_size": 24, "draft_vocab_size": 700}
    target = random_model(small(RECIPE["target"])).requires_grad_(False)
    settings = RECIPE["eagle"] | sizes | {"taps": [0, 1, 2]}
    head = EagleHead(head_config(settings, target.config))
    generator = torch.Generator().manual_seed(4)
    for tensor in head.parameters():
        mean = 1.0 if tensor.dim() == 1 else 0.0
        torch.nn.init.normal_(tensor, mean=mean, std=0.15, generator=generator)
    kept = torch.randperm(target.config["vocab_size"], generator=generator)[:700].sort().values
    return target, head, kept


def test_streams_are_what_enters_and_leaves_the_layers():
    target, _, _ = small_eagle()
    streams = Streams(target, [0, 1, 2])
    ids = torch.randint(2, target.config["vocab_size"], (2, 9), generator=torch.Generator().manual_seed(5))
    last = target.hidden(ids)
    first, second, third = streams.last().split(target.config["hidden_size"], dim=-1)
    torch.testing.assert_close(first, target.embed_tokens(ids))
    torch.testing.assert_close(second, target.layers[0](first, target.cos[:9], target.sin[:9], None, None))
    torch.testing.assert_close(third, last)


def test_training_time_test_is_drafting_with_the_exported_head(tmp_path, monkeypatch):
    """Step j at column t: t + 1 rows with the target's streams, then j rows with the head's own state."""
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "tests" / "golden"))
    import make_head_fixtures as reference

    target, head, kept = small_eagle()
    export_eagle(head.state_dict(), head.config, kept, tmp_path / "head")
    tensors = load_file(tmp_path / "head" / "model.safetensors")
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    shape = reference.Shape(config)
    learned = {name: value for name, value in tensors.items() if name not in ("d2t", "t2d")}
    assert {name: tuple(value.shape) for name, value in learned.items()} == shape.tensors()
    assert {value.dtype for value in learned.values()} == {torch.bfloat16}
    assert torch.equal(torch.arange(len(kept)) + tensors["d2t"], tensors["t2d"].nonzero()[:, 0])
    assert torch.equal(tensors["t2d"].nonzero()[:, 0], kept)

    head.load_state_dict({name: value.float() for name, value in learned.items()})
    generator = torch.Generator().manual_seed(6)
    length, embedding = 7, target.embed_tokens.weight
    ids = torch.randint(2, len(embedding), (1, length), generator=generator)
    features = torch.randn(1, length, 3 * 32, generator=generator)
    steps = [head.lm_head(final) for final in head(embedding[ids], features, 4)]
    for column in range(length - 4):
        drafter = reference.Head(shape, tensors, {"model.embed_tokens.weight": embedding})
        recycled = None
        for row in range(column + 4):
            known = row <= column
            state = drafter.fused(features[0, row].double()) if known else recycled
            logits, recycled = drafter.row(int(ids[0, row + 1]), state, row)
            if row >= column:
                got = steps[row - column][0, column]
                torch.testing.assert_close(got.double(), logits[kept], rtol=1e-4, atol=1e-4)


def test_eagle_losses_are_those_of_the_law_over_known_tokens():
    target, head, kept = small_eagle()
    streams = Streams(target, [0, 1, 2])
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, target.config["vocab_size"], (3, 21), generator=generator)
    counts = torch.rand(3, 20, generator=generator) < 0.8
    entropies, agreements = losses(head, Lesson(target, streams, ids, counts, kept), 3)
    law = target(ids[:, :-1]).softmax(-1)
    finals = head(target.embed_tokens(ids[:, :-1]), streams.last(), 3)
    for j, final in enumerate(finals):
        logs, expected, hits, counted = head.lm_head(final).log_softmax(-1), [], 0, 0
        for row, column in (counts[:, 1 + j :]).nonzero().tolist():
            wanted = law[row, column + 1 + j]
            counted += 1
            if int(wanted.argmax()) in kept.tolist():
                restricted = wanted[kept] / wanted[kept].sum()
                expected.append(-(restricted * logs[row, column]).sum())
                hits += int(kept[logs[row, column].argmax()] == wanted.argmax())
        assert 0 < len(expected) < counted
        torch.testing.assert_close(entropies[j], torch.stack(expected).mean())
        assert agreements[j] == pytest.approx(hits / counted)


def test_an_eagle_head_learns_a_batch_and_leaves_the_target_alone():
    target, head, kept = small_eagle()
    head.init_weights(8, target, kept)
    before = copy.deepcopy(target.state_dict())
    ids = torch.randint(2, target.config["vocab_size"], (2, 17), generator=torch.Generator().manual_seed(9))
    lesson = Lesson(target, Streams(target, [0, 1, 2]), ids, torch.ones(2, 16, dtype=torch.bool), kept)
    learner, seen = Learner(head, RECIPE), []
    for _ in range(30):
        entropies, _ = losses(head, lesson, 4)
        seen.append(sum(entropies).item())
        learner.apply(sum(entropies), 0.01)
    assert seen[-1] < seen[0] - 1
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name])


def small_medusa() -> tuple[LanguageModel, train_medusa.MedusaHeads]:
    """A target, and heads of two blocks for it with random weights."""
    target = random_model(small(RECIPE["target"])).requires_grad_(False)
    heads = train_medusa.MedusaHeads({"medusa_num_heads": 3, "medusa_num_layers": 2}, target)
    generator = torch.Generator().manual_seed(4)
    for tensor in heads.parameters():
        torch.nn.init.normal_(tensor, std=0.15, generator=generator)
    return target, heads


def test_medusa_heads_are_exported_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "tests" / "golden"))
    import make_head_fixtures as reference

    _, heads = small_medusa()
    train_medusa.export_heads(heads.state_dict(), heads.config, tmp_path / "heads")
    tensors = load_file(tmp_path / "heads" / "medusa_lm_head.safetensors")
    assert json.loads((tmp_path / "heads" / "config.json").read_text())["medusa_num_layers"] == 2
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    heads.load_state_dict({name: value.float() for name, value in tensors.items()})
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(6))
    for i, head in enumerate(heads):
        own = {name.removeprefix(f"{i}."): value for name, value in tensors.items() if name.startswith(f"{i}.")}
        for row, logits in zip(hidden, head(hidden), strict=True):
            expected = reference.medusa_logits(own, 2, None, row)
            torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)


def test_medusa_losses_are_those_of_the_law_one_place_further_for_each_head():
    target, heads = small_medusa()
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, target.config["vocab_size"], (3, 21), generator=generator)
    counts = torch.rand(3, 20, generator=generator) < 0.8
    entropies, agreements = train_medusa.losses(heads, training.Lesson(target, ids, counts))
    law = target(ids[:, :-1]).softmax(-1)
    hidden = target.norm(target.hidden(ids[:, :-1]))
    for i, head in enumerate(heads):
        expected, hits = [], []
        for row in range(3):
            for position in range(20 - 1 - i):
                if not counts[row, position + 1 + i]:
                    continue
                wanted, logits = law[row, position + 1 + i], head(hidden[row, position])
                expected.append(-(wanted * logits.log_softmax(-1)).sum())
                hits.append(float(logits.argmax() == wanted.argmax()))
        torch.testing.assert_close(entropies[i], torch.stack(expected).mean())
        assert agreements[i] == pytest.approx(sum(hits) / len(hits))


def test_medusa_heads_start_as_the_target_learn_a_batch_and_leave_the_target_alone():
    target, heads = small_medusa()
    heads.init_weights(target)
    before = copy.deepcopy(target.state_dict())
    ids = torch.randint(2, target.config["vocab_size"], (2, 17), generator=torch.Generator().manual_seed(9))
    lesson = training.Lesson(target, ids, torch.ones(2, 16, dtype=torch.bool))
    for head in heads:
        torch.testing.assert_close(head(lesson.hidden), target(ids[:, :-1]))
    learner, seen = Learner(heads, RECIPE), []
    for _ in range(30):
        entropies, _ = train_medusa.losses(heads, lesson)
        seen.append(sum(entropies).item())
        learner.apply(sum(entropies), 0.01)
    own = -(lesson.law * lesson.law.log()).sum(-1).view(2, 16)  # which no head can go below
    least = sum(own[:, 1 + i :].mean().item() for i in range(len(heads)))
    assert least < seen[-1] < least + (seen[0] - least) / 2
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name])


def small_dflash() -> tuple[LanguageModel, train_dflash.DflashHead]:
    """A target, and a head for it with random weights."""
    target = random_model(small(RECIPE["target"])).requires_grad_(False)
    settings = RECIPE["dflash"] | {"taps": [1, 2], "block_size": 4, "mask_token": 3, "head_dim": 16}
    head = train_dflash.DflashHead(train_dflash.head_config(settings, target.config))
    generator = torch.Generator().manual_seed(4)
    for tensor in head.parameters():
        torch.nn.init.normal_(tensor, mean=float(tensor.dim() == 1), std=0.15, generator=generator)
    return target, head


def test_blocks_are_those_that_the_exported_head_drafts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "tests" / "golden"))
    import make_block_head_fixtures as reference

    target, head = small_dflash()
    export_head(head.state_dict(), head.config, tmp_path / "head")
    tensors = load_file(tmp_path / "head" / "model.safetensors")
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    shape = reference.BlockShape(config)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == shape.tensors()
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    head.load_state_dict({name: value.float() for name, value in tensors.items()})
    of_target = {
        "model.embed_tokens.weight": target.embed_tokens.weight,
        "lm_head.weight": target.lm_head.weight,
    }
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(4, target.config["vocab_size"], (2, 9), generator=generator)
    features = torch.randn(2, 9, 2 * 32, generator=generator)
    anchors = torch.tensor([[5, 1, 8], [3, 3, 7]])
    blocks = torch.full((2, 3, 4), 3)
    blocks[:, :, 0] = ids.gather(1, anchors)
    logits = target.lm_head(head(target.embed_tokens(blocks), features, anchors))
    for row, of_row in enumerate(anchors.tolist()):
        for i, anchor in enumerate(of_row):
            plain = reference.BlockHead(shape, tensors)
            expected = plain.logits(blocks[row, i], features[row, :anchor], of_target)
            torch.testing.assert_close(logits[row, i].double(), expected, rtol=1e-4, atol=1e-4)


def test_dflash_losses_are_those_of_the_law_behind_each_anchor():
    target, head = small_dflash()
    streams = Streams(target, [1, 2])
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(4, target.config["vocab_size"], (3, 21), generator=generator)
    counts = torch.rand(3, 20, generator=generator) < 0.8
    lesson = training.Lesson(target, ids, counts)
    features, law = streams.last(), target(ids[:, :-1]).softmax(-1)
    anchors = train_dflash.choose_anchors(counts, 12, generator)
    assert bool((counts.gather(1, anchors) & (anchors > 0)).all())
    entropies, agreements = train_dflash.losses(head, target, lesson, features, ids, anchors)
    blocks = torch.full((3, 12, 4), 3)
    blocks[:, :, 0] = ids.gather(1, anchors)
    logits = target.lm_head(head(target.embed_tokens(blocks), features, anchors))
    for i in range(1, 4):
        expected, hits = [], []
        for row in range(3):
            for block, anchor in enumerate(anchors[row].tolist()):
                if anchor + i - 1 >= 20 or not counts[row, anchor + i - 1]:
                    continue
                wanted, own = law[row, anchor + i - 1], logits[row, block, i]
                expected.append(-(wanted * own.log_softmax(-1)).sum())
                hits.append(float(own.argmax() == wanted.argmax()))
        torch.testing.assert_close(entropies[i - 1], torch.stack(expected).mean())
        assert agreements[i - 1] == pytest.approx(sum(hits) / len(hits))


def test_pard_depths_are_those_of_the_text_with_masks_behind_it():
    target, drafter = random_model(small(RECIPE["target"])), random_model(small(RECIPE["drafter"]))
    settings = {"depths": 4, "mask_token": 3}
    ids = torch.randint(4, target.config["vocab_size"], (2, 13), generator=torch.Generator().manual_seed(7))
    counts = torch.rand(2, 12, generator=torch.Generator().manual_seed(8)) < 0.8
    entropies, agreements = train_pard.losses(drafter, training.Lesson(target, ids, counts), ids, settings)
    law = target(ids[:, :-1]).softmax(-1)
    for i in range(settings["depths"]):
        expected, hits = [], []
        for row, position in counts.nonzero().tolist():
            if position < i:
                continue
            text = torch.cat((ids[row, : position - i + 1], torch.full((i,), settings["mask_token"])))
            wanted, logits = law[row, position], drafter(text[None])[0, -1]
            expected.append(-(wanted * logits.log_softmax(-1)).sum())
            hits.append(float(logits.argmax() == wanted.argmax()))
        torch.testing.assert_close(entropies[i], torch.stack(expected).mean())
        assert agreements[i] == pytest.approx(sum(hits) / len(hits))


@needs_models
@pytest.mark.parametrize("name", ["target", "drafter"])
def test_bundled_model_gives_the_logits_of_transformers(name):
    assert check(MODELS / name) < 1e-4


@needs_models
def test_bundled_tokenizer_keeps_text_and_digits_apart():
    files = [MODELS / name / "tokenizer.json" for name in ("target", "drafter")]
    assert files[0].read_bytes() == files[1].read_bytes()
    tokenizer = Tokenizer.from_file(str(files[0]))
    text = "Problem: 1234 pens\tand “cups” 🙂\n\n    def f(x):\n"
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == BEGIN_ID
    assert tokenizer.decode(encoded.ids) == text
    assert {"1", "2", "3", "4"} <= set(encoded.tokens)
    problem = make_problem(Random(1))
    prompt = tokenizer.encode(problem.prompt).ids
    assert tokenizer.encode(problem.prompt + problem.solution).ids[: len(prompt)] == prompt


@needs_models
def test_batches_depend_on_the_step_alone():
    tokenizer = Tokenizer.from_file(str(MODELS / "target" / "tokenizer.json"))
    corpus = Corpus(tokenizer, RECIPE)
    ids, counts = corpus.batch(7, 4, 256)
    assert ids.shape == (4, 257) and counts.shape == (4, 256)
    assert (ids[:, 0] == BEGIN_ID).all()
    corpus.batch(8, 4, 256)
    assert np.array_equal(ids, corpus.batch(7, 4, 256)[0])


@needs_models
def test_bundled_pair_solves_problems():
    target = load(MODELS / "target")
    tokenizer = Tokenizer.from_file(str(MODELS / "target" / "tokenizer.json"))
    problems = held_out_problems(4, "test")
    texts = generate(target, [tokenizer.encode(p.prompt).ids for p in problems], 128)
    answers = [read_answer(tokenizer.decode(ids)) for ids in texts]
    right = sum(a == p.answer for a, p in zip(answers, problems, strict=True))
    assert right >= len(problems) // 2


@needs_models
def test_bundled_prompts_are_held_out():
    seen = set()
    for name in ("quickstart", "bench", "heldout_problems"):
        lines = (MODELS / "prompts" / f"{name}.jsonl").read_text().splitlines()
        for item in map(json.loads, lines):
            assert set(item) == {"question_id", "category", "turns", "reference"}
            (prompt,) = item["turns"]
            assert (name, prompt) not in seen
            seen.add((name, prompt))
            assert item["category"] == "code" or is_held_out(prompt)
