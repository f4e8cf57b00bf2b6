"""The package `specmoe`: loading, logits, engines, results, errors. On tiny random checkpoints."""

import gc
import json

import numpy as np
import pytest
import torch
import transformers

import specmoe

PROMPT = [3, 141, 59, 26, 53, 58]
DRAFTERS = ["independent(path={draft})", "ngram", "synthetic(alpha=0.7)"]
TREES = ["chain(gamma=3)", "expansion(2,2)"]


def engine_with(target, draft_path, drafter, **parts):
    return specmoe.Engine(target, drafter=drafter.format(draft=draft_path), **parts)


# ---- engines and prompts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_greedy_speculation_gives_the_plain_tokens(target_path, draft_path, drafter, tree, dtype):
    target = specmoe.load(target_path, dtype=dtype, threads=1)
    prompts = [PROMPT, [7] * 9]
    plain = specmoe.Engine(target).generate(prompts, max_new_tokens=40)
    engine = engine_with(target, draft_path, drafter, tree=tree)
    assert engine.lossless and engine.spec["tree"].startswith(tree.split("(")[0])
    for a, b in zip(plain, engine.generate(prompts, max_new_tokens=40, batch=2), strict=True):
        assert (a.token_ids == b.token_ids).all()
        assert not a.from_draft.any()


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_narrow_caches_keep_speculation_exact(target_path, draft_path, kv_dtype):
    wide = specmoe.load(target_path, threads=1)
    target = specmoe.load(target_path, threads=1, kv_dtype=kv_dtype)
    assert (wide.info.kv_dtype, target.info.kv_dtype) == ("float32", kv_dtype)
    assert target.info.kv_bytes_per_token <= wide.info.kv_bytes_per_token / 2
    plain = specmoe.Engine(target).generate(PROMPT, max_new_tokens=40)
    engine = engine_with(target, draft_path, DRAFTERS[0], tree="expansion(2,2,1)")
    assert (engine.generate(PROMPT, max_new_tokens=40).token_ids == plain.token_ids).all()


def test_one_prompt_gives_a_result_and_a_list_gives_a_list(target):
    engine = specmoe.Engine(target)
    one = engine.generate(PROMPT, max_new_tokens=4)
    assert isinstance(one, specmoe.Result)
    for form in ([PROMPT], (PROMPT,), np.array([PROMPT]), [np.array(PROMPT, dtype=np.uint16)]):
        results = engine.generate(form, max_new_tokens=4)
        assert isinstance(results, list) and len(results) == 1
        assert (results[0].token_ids == one.token_ids).all()
    assert (engine.generate(np.array(PROMPT), max_new_tokens=4).token_ids == one.token_ids).all()
    assert engine.generate([], max_new_tokens=4) == []


def test_an_engine_may_be_given_a_path(target_path):
    result = specmoe.Engine(str(target_path)).generate(PROMPT, max_new_tokens=2)
    assert len(result.token_ids) == 2


def test_the_context_bounds_the_text(target):
    result = specmoe.Engine(target).generate([5] * 250, max_new_tokens=100, ignore_eos=True)
    assert result.finish_reason == "context_full"
    assert len(result.token_ids) == 6


def test_an_end_of_text_token_ends_it_unless_ignored(target):
    engine = specmoe.Engine(target)
    stops = target.info.stop_tokens
    seeds = range(60)
    ended = [engine.generate(PROMPT, temperature=3.0, seed=seed, max_new_tokens=60) for seed in seeds]
    stopped = [result for result in ended if result.finish_reason == "stop_token"]
    assert stopped and all(result.token_ids[-1] in stops for result in stopped)
    seed = ended.index(stopped[0])
    longer = engine.generate(PROMPT, temperature=3.0, seed=seed, max_new_tokens=60, ignore_eos=True)
    assert len(longer.token_ids) == 60
    assert (longer.token_ids[: len(stopped[0].token_ids)] == stopped[0].token_ids).all()


# ---- randomness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drafter", [None, *DRAFTERS])
def test_a_text_depends_on_prompt_and_seed_alone(target, draft_path, drafter):
    engine = specmoe.Engine(target) if drafter is None else engine_with(target, draft_path, drafter)
    sampling = {"max_new_tokens": 12, "temperature": 1.0, "top_k": 50, "top_p": 0.95}
    prompts = [PROMPT, [9, 8, 7], [1, 2]]
    alone = [engine.generate(prompt, seed=5, **sampling).token_ids.tolist() for prompt in prompts]
    together = engine.generate(prompts[::-1], seed=5, batch=3, **sampling)
    assert [result.token_ids.tolist() for result in together[::-1]] == alone
    each = engine.generate(prompts, seed=[4, 5, 6], batch=2, **sampling)
    assert each[1].token_ids.tolist() == alone[1] and each[0].token_ids.tolist() != alone[0]


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_cut_to_one_token_is_greedy(target, draft_path, cut):
    engine = engine_with(target, draft_path, DRAFTERS[0])
    greedy = engine.generate(PROMPT, max_new_tokens=12)
    assert (engine.generate(PROMPT, max_new_tokens=12, temperature=1.0, **cut).token_ids == greedy.token_ids).all()


PENALTIES = [
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.8, "presence_penalty": 0.7},
    {"presence_penalty": -0.5, "frequency_penalty": 0.25},
]


def greedy_with_penalties(target, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0):
    """Greedy decoding row by row: transformers' repetition penalty, then the others as vLLM defines them."""
    repeats = transformers.RepetitionPenaltyLogitsProcessor(repetition_penalty)
    text = list(PROMPT)
    while len(text) < len(PROMPT) + 24:
        scores = repeats(torch.tensor([text]), torch.from_numpy(target.logits(text)[-1:]))[0]
        counts = torch.bincount(torch.tensor(text[len(PROMPT) :], dtype=torch.int64), minlength=len(scores))
        scores = scores - frequency_penalty * counts
        scores = scores - presence_penalty * (counts > 0)
        text.append(int(scores.argmax()))
    return text[len(PROMPT) :]


@pytest.mark.parametrize("penalties", PENALTIES)
def test_penalties_are_those_of_transformers_and_vllm(target, draft_path, penalties):
    expected = greedy_with_penalties(target, **penalties)
    plain = specmoe.Engine(target)
    sampling = {"max_new_tokens": 24, "ignore_eos": True}
    assert plain.generate(PROMPT, **sampling).token_ids.tolist() != expected
    assert plain.generate(PROMPT, **sampling, **penalties).token_ids.tolist() == expected
    for drafter in DRAFTERS:
        for tree in TREES:
            engine = engine_with(target, draft_path, drafter, tree=tree)
            assert engine.generate(PROMPT, **sampling, **penalties).token_ids.tolist() == expected


def every_third(prompt_ids, output_ids, logits):
    """Leaves each third token; which ones hangs on all of the text."""
    assert prompt_ids.dtype == output_ids.dtype == np.int32 and logits.dtype == np.float32
    of_text = hash((*prompt_ids.tolist(), *output_ids.tolist()))  # of integers: the same in every process
    logits[(np.arange(len(logits)) + of_text) % 3 != 0] = -np.inf


def test_a_logits_processor_is_asked_at_every_node(target, draft_path):
    texts = []
    for given in (PROMPT, [7] * 9):
        output = []
        for _ in range(24):
            logits = target.logits([*given, *output])[-1].copy()
            every_third(np.array(given, np.int32), np.array(output, np.int32), logits)
            output.append(int(logits.argmax()))
        texts.append(output)
    prompts, sampling = [PROMPT, [7] * 9], {"max_new_tokens": 24, "ignore_eos": True}
    assert [r.token_ids.tolist() for r in specmoe.Engine(target).generate(prompts, **sampling)] != texts
    for drafter in [None, *DRAFTERS]:
        for tree in TREES if drafter else [None]:
            engine = specmoe.Engine(target, drafter=drafter and drafter.format(draft=draft_path), tree=tree)
            results = engine.generate(prompts, logits_processor=every_third, batch=2, **sampling)
            assert [result.token_ids.tolist() for result in results] == texts
            mixed = engine.generate(prompts, logits_processor=[None, every_third], batch=2, **sampling)
            assert mixed[1].token_ids.tolist() == texts[1] and mixed[0].token_ids.tolist() != texts[0]


def test_a_logits_processor_may_return_what_it_wants(target):
    engine = specmoe.Engine(target)
    for answer in (
        lambda prompt, output, row: row * 0 + (np.arange(len(row)) == 9),
        lambda prompt, output, row: torch.eye(len(row))[9],
    ):
        assert engine.generate(PROMPT, max_new_tokens=3, logits_processor=answer).token_ids.tolist() == [9, 9, 9]
    with pytest.raises(specmoe.Error, match=r"logits_processor: expected None or logits \[V=\d+\], got 2 values"):
        engine.generate(PROMPT, logits_processor=lambda prompt, output, row: row[:2])
    with pytest.raises(specmoe.Error, match="the logits processor forbids every token after node 0"):
        engine.generate(PROMPT, logits_processor=lambda prompt, output, row: row.fill(-np.inf))
    for words in ("abc", ["a"] * 199, [object()]):
        with pytest.raises(TypeError, match="logits_processor: expected numbers, got "):
            engine.generate(PROMPT, logits_processor=lambda prompt, output, row, words=words: words)
    with pytest.raises(ZeroDivisionError):
        engine.generate(PROMPT, logits_processor=lambda prompt, output, row: 1 / 0)
    for wrong in (3, "every_third", [every_third, 4]):
        with pytest.raises(TypeError, match="logits_processor: expected a callable"):
            engine.generate([PROMPT, PROMPT], logits_processor=wrong)
    with pytest.raises(specmoe.Error, match="expected one for all prompts or 2, one each, got 1"):
        engine.generate([PROMPT, PROMPT], logits_processor=[every_third])


def test_a_result_tells_that_there_was_a_logits_processor(target):
    engine = specmoe.Engine(target)
    assert json.loads(engine.generate(PROMPT, max_new_tokens=2, logits_processor=every_third).to_json())[
        "logits_processor"
    ]
    assert "logits_processor" not in json.loads(engine.generate(PROMPT, max_new_tokens=2).to_json())


def test_equal_prompts_in_one_call_come_out_different(target):
    results = specmoe.Engine(target).generate([PROMPT] * 4, max_new_tokens=12, temperature=1.0)
    assert len({tuple(result.token_ids) for result in results}) == 4


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(target):
    engine = specmoe.Engine(target, drafter="synthetic(alpha=0.7)", tree="chain(gamma=3)")
    return engine.generate(PROMPT, max_new_tokens=30, ignore_eos=True)


def test_counts_add_up(result):
    counts, steps = result.counts, result.steps
    assert len(result.token_ids) == counts["emitted"] == steps["emitted"].sum() == 30
    assert counts["drafted"] == counts["accepted"] + counts["rejected"] + counts["unjudged"]
    assert counts["accepted"] == result.from_draft.sum() == steps["accepted"].sum() > 0
    assert result.metrics["tau"] == counts["emitted"] / counts["steps"] == 30 / len(steps)
    assert result.metrics["acceptance_per_position"][0] == counts["accepted_at"][0] / counts["judged_at"][0]
    assert result.prompt_ids.tolist() == PROMPT


def test_steps_carry_times_and_distinct_experts(result, target):
    times = result.stage_times
    for stage in ["draft_ns", "verify_ns", "judge_ns", "rest_ns"]:
        assert result.steps[stage].sum() == times[stage] >= 0
    assert times["verify_ns"] > 0 and times["prefill_ns"] > 0
    experts = result.unique_experts
    assert experts.shape == (len(result.steps), target.info.layers) and experts.dtype == np.int32
    assert (experts >= target.info.experts_per_token).all() and (experts <= target.info.experts).all()
    assert result.counts["unique_experts"] == experts.sum(axis=0).tolist()


def test_arrays_are_read_only_views_that_keep_the_result_alive(target):
    result = specmoe.Engine(target).generate(PROMPT, max_new_tokens=5)
    arrays = [result.token_ids, result.prompt_ids, result.from_draft, result.steps, result.unique_experts]
    assert all(array.base is not None and not array.flags.writeable for array in arrays)
    copies = [array.copy() for array in arrays]
    del result
    gc.collect()
    assert all((array == copy).all() for array, copy in zip(arrays, copies, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1


def test_metrics_over_several_results_divide_sums(target, draft_path):
    engine = engine_with(target, draft_path, DRAFTERS[2])
    results = engine.generate([PROMPT, [4, 5]], max_new_tokens=20)
    counts = [r.counts for r in results]
    together = specmoe.metrics(results)
    assert together["tau"] == sum(c["emitted"] for c in counts) / sum(c["steps"] for c in counts)
    assert together["draft_efficiency"] == sum(c["accepted"] for c in counts) / sum(c["drafted"] for c in counts)
    assert set(specmoe.metric_definitions()) & set(together)


def test_metrics_of_something_else_are_refused(target):
    result = specmoe.Engine(target).generate(PROMPT, max_new_tokens=2)
    for results in ([None], [result, None], [3]):
        with pytest.raises(TypeError, match="incompatible"):
            specmoe.metrics(results)


def test_a_result_is_a_line_of_json(result):
    line = result.to_json(category="math")
    assert "\n" not in line
    row = json.loads(line)
    assert row["category"] == "math" and row["token_ids"] == result.token_ids.tolist()
    assert row["choices"][0]["new_tokens"] == [30] and row["drafter"].startswith("synthetic")


def test_steps_make_a_table(result):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(result.steps)
    assert table["emitted"].sum() == 30 and len(table) == len(result.steps)


# ---- text -----------------------------------------------------------------------------------------------------------


def test_without_a_tokenizer_prompts_are_token_ids(target):
    assert target.tokenizer is None
    engine = specmoe.Engine(target)
    assert engine.generate(PROMPT, max_new_tokens=2).text is None
    with pytest.raises(specmoe.Error, match=r"tokenizer\.json"):
        engine.generate("text")
    with pytest.raises(specmoe.Error, match=r"tokenizer\.json"):
        engine.generate(PROMPT, stop="x")


def test_text_goes_in_and_comes_out(text_target):
    tokenizer = text_target.tokenizer
    ids = tokenizer.encode("one two é")
    assert tokenizer.decode(ids) == "one two é" and tokenizer.decode(np.array(ids)) == "one two é"
    engine = specmoe.Engine(text_target)
    result = engine.generate("one two", max_new_tokens=30, temperature=2.0, seed=3)
    assert result.prompt_ids.tolist() == tokenizer.encode("one two")
    assert result.text == tokenizer.decode(result.token_ids)
    assert [r.text for r in engine.generate(["one two"], max_new_tokens=30, temperature=2.0, seed=3)] == [result.text]


@pytest.mark.parametrize("drafter", [None, "synthetic(alpha=0.9)"])
def test_a_stop_string_ends_the_text_before_it(text_target, drafter):
    engine = specmoe.Engine(text_target, drafter=drafter)
    whole = engine.generate("one two", max_new_tokens=60, ignore_eos=True).text
    stop = whole[20:22]
    cut = engine.generate("one two", max_new_tokens=60, ignore_eos=True, stop=["never in there", stop])
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop_text"
    assert len(cut.token_ids) == cut.counts["emitted"] < 60


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"drafter": "crystal_ball"}, "ngram"),
        ({"drafter": "ngram(speed=3)"}, "speed"),
        ({"drafter": "ngram", "tree": "oak"}, "chain"),
        ({"drafter": "ngram", "tree": "chain(gamma=0)"}, "gamma"),
        ({"drafter": "ngram", "tree": "chain(gamma=3"}, "chain"),
        ({"drafter": "ngram", "acceptance": "vibes"}, "token"),
        ({"drafter": "ngram", "tree": "expansion(2,2)", "acceptance": "token"}, "chain"),
        ({"drafter": "ngram", "acceptance": "typical"}, "allow_lossy"),
        ({"drafter": "independent(path=no/such/folder)"}, "no/such/folder"),
        ({"tree": "chain"}, "drafter"),
        ({"acceptance": "token"}, "drafter"),
    ],
)
def test_parts_that_do_not_fit_are_refused(target, parts, words):
    with pytest.raises(specmoe.Error, match=words) as caught:
        specmoe.Engine(target, **parts)
    assert "\n" not in str(caught.value)


def test_a_lossy_policy_runs_when_it_is_allowed(target):
    engine = specmoe.Engine(target, drafter="ngram", acceptance="typical", allow_lossy=True)
    assert not engine.lossless and engine.spec["allow_lossy"]
    assert len(engine.generate(PROMPT, max_new_tokens=8, temperature=1.0, ignore_eos=True).token_ids) == 8


def test_parts_of_the_wrong_type(target):
    with pytest.raises(TypeError, match="drafter"):
        specmoe.Engine(target, drafter=3)
    with pytest.raises(TypeError):
        specmoe.Engine(None)


@pytest.mark.parametrize(
    ("prompts", "arguments", "error"),
    [
        ([[]], {}, specmoe.Error),
        ([199], {}, specmoe.Error),
        ([5] * 256, {}, specmoe.Error),
        (PROMPT, {"max_new_tokens": 0}, specmoe.Error),
        (PROMPT, {"temperature": -1.0}, specmoe.Error),
        (PROMPT, {"temperature": float("nan")}, specmoe.Error),
        (PROMPT, {"top_p": 0.0}, specmoe.Error),
        (PROMPT, {"min_p": -0.1}, specmoe.Error),
        (PROMPT, {"repetition_penalty": 0.0}, specmoe.Error),
        (PROMPT, {"presence_penalty": float("nan")}, specmoe.Error),
        (PROMPT, {"frequency_penalty": float("inf")}, specmoe.Error),
        (PROMPT, {"top_k": -1}, specmoe.Error),
        (PROMPT, {"batch": 0}, specmoe.Error),
        (PROMPT, {"seed": -1}, specmoe.Error),
        (PROMPT, {"seed": 2**64}, specmoe.Error),
        (PROMPT, {"seed": [1, 2]}, specmoe.Error),
        (PROMPT, {"seed": 0.5}, TypeError),
        (7, {}, TypeError),
        (b"bytes", {}, TypeError),
        ([1.5], {}, TypeError),
        (PROMPT, {"stop": 5}, TypeError),
        (PROMPT, {"stop": ["a", 5]}, TypeError),
        (PROMPT, {"stop": b"a"}, TypeError),
        (PROMPT, {"temperature": 1e-40}, specmoe.Error),
        (np.array([0.5]), {}, TypeError),
        (np.zeros((1, 1, 1), dtype=int), {}, TypeError),
        ([PROMPT, "text"], {}, specmoe.Error),
    ],
)
def test_bad_requests(target, prompts, arguments, error):
    engine = specmoe.Engine(target)
    with pytest.raises(error) as caught:
        engine.generate(prompts, **arguments)
    assert "\n" not in str(caught.value)
    assert len(engine.generate(PROMPT, max_new_tokens=2).token_ids) == 2


def test_text_is_handed_over_while_it_grows(text_target):
    engine = specmoe.Engine(text_target)
    pieces = []
    whole = engine.generate("a", max_new_tokens=24, ignore_eos=True, on_text=pieces.append)
    assert "".join(pieces) == whole.text and len(pieces) > 5
    stop = whole.text[5:7]
    pieces.clear()
    cut = engine.generate("a", max_new_tokens=24, ignore_eos=True, on_text=pieces.append, stop=stop)
    assert "".join(pieces) == cut.text == whole.text[: whole.text.index(stop)]
    with pytest.raises(ZeroDivisionError):
        engine.generate("a", max_new_tokens=24, on_text=lambda piece: 1 / 0)
    with pytest.raises(specmoe.Error, match="follows one prompt"):
        engine.generate(["a", "b"], on_text=pieces.append)
