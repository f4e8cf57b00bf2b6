"""Grammar: outputs of the bundled pair inside regular expressions, JSON Schemas and Lark grammars."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import specmoe

MODELS = Path(__file__).parents[2] / "experiments" / "models"
PROMPT = "Problem: Omar has 9 pens and buys 6 more. How many pens does Omar have now?\nSolution:"
OTHER = "Problem: Ada sells 3 of her 12 apples. How many apples does Ada have now?\nSolution:"
ANSWER = r"\nThe answer is [1-9][0-9]?( pens| apples)\."
SCHEMA = {
    "type": "object",
    "properties": {"pens": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"type": "boolean"}},
    "required": ["pens", "sure"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
LARK = 'start: "\\n" SUM " pens."\nSUM: /[0-9]/ " + " /[0-9]/'
DRAFTERS = [f"independent(path={MODELS}/drafter)", f"eagle(path={MODELS}/eagle)", "ngram", "self(experts=1)"]


@pytest.fixture(scope="module")
def target():
    return specmoe.load(MODELS / "target", dtype="float32", threads=1)


@pytest.mark.parametrize("tree", ["chain(gamma=4)", "expansion(2,2,1)", "best_first(nodes=12)"])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_outputs_are_of_the_grammar_and_greedy_ones_plain_decodings(target, drafter, tree):
    grammar = specmoe.Grammar(target, regex=ANSWER)
    plain = specmoe.Engine(target)
    engine = specmoe.Engine(target, drafter=drafter, tree=tree)
    assert not re.fullmatch(ANSWER, plain.generate(PROMPT).text)
    assert (
        engine.generate(PROMPT, logits_processor=grammar).text == plain.generate(PROMPT, logits_processor=grammar).text
    )
    texts = {engine.generate(PROMPT, logits_processor=grammar, temperature=2.0, seed=seed).text for seed in range(12)}
    assert len(texts) > 3 and all(re.fullmatch(ANSWER, text) for text in texts)


def test_a_schema_and_a_lark_grammar(target):
    engine = specmoe.Engine(target, drafter=DRAFTERS[0], tree="expansion(2,2,1)")
    for schema, seed in itertools.product((SCHEMA, json.dumps(SCHEMA)), range(3)):
        grammar = specmoe.Grammar(target, json_schema=schema)
        answer = json.loads(engine.generate(PROMPT, logits_processor=grammar, temperature=1.0, seed=seed).text)
        assert sorted(answer) == ["pens", "sure"] and 0 <= answer["pens"] <= 99 and isinstance(answer["sure"], bool)
    text = engine.generate(PROMPT, logits_processor=specmoe.Grammar(target, lark=LARK)).text
    assert re.fullmatch(r"\n[0-9] \+ [0-9] pens\.", text)


def test_a_drafter_equal_to_the_target_is_always_accepted(target):
    engine = specmoe.Engine(target, drafter=f"independent(path={MODELS}/target)", tree="chain(gamma=3)")
    for temperature in (0.0, 1.0):
        result = engine.generate(
            PROMPT, logits_processor=specmoe.Grammar(target, regex=ANSWER), temperature=temperature
        )
        assert result.counts["accepted"] + result.counts["unjudged"] == result.counts["drafted"]


def test_prompts_may_share_a_grammar(target):
    engine = specmoe.Engine(target, drafter=DRAFTERS[0], tree="expansion(2,2,1)")
    shared = engine.generate([PROMPT, OTHER], logits_processor=specmoe.Grammar(target, regex=ANSWER), batch=2)
    each = engine.generate([PROMPT, OTHER], logits_processor=[None, specmoe.Grammar(target, regex=ANSWER)], batch=2)
    assert shared[1].text == each[1].text != shared[0].text
    assert re.fullmatch(ANSWER, shared[0].text) and not re.fullmatch(ANSWER, each[0].text)


def test_a_model_without_an_end_token_is_refused(text_target, tmp_path):
    folder = tmp_path / "endless"
    shutil.copytree(text_target.path, folder)
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(specmoe.Error, match="names no token that ends a text"):
        specmoe.Grammar(specmoe.load(folder), regex="a")


def test_what_is_no_grammar_is_refused(target, target_path, monkeypatch):
    for wrong in ({}, {"regex": "a", "lark": "start: /a/"}):
        with pytest.raises(specmoe.Error, match="expected one of regex, json_schema and lark"):
            specmoe.Grammar(target, **wrong)
    for wrong in ({"regex": "[0-9"}, {"lark": "start: nowhere"}, {"json_schema": {"type": "nonsense"}}):
        with pytest.raises(specmoe.Error, match="Grammar: "):
            specmoe.Grammar(target, **wrong)
    with pytest.raises(specmoe.Error, match="has no tokenizer"):
        specmoe.Grammar(specmoe.load(target_path), regex="a")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(specmoe.Error, match="pip install llguidance"):
        specmoe.Grammar(target, regex="a")
