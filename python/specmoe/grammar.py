"""Outputs inside a grammar, by the package llguidance, which specmoe does not need otherwise.

grammar = specmoe.Grammar(model, regex=r" [0-9]+ coins\\.")
print(engine.generate("The eggs cost", logits_processor=grammar).text)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile

import numpy as np
from _specmoe import Error, Model, tokenizer_json


class Grammar:
    """A logits processor for Engine.generate that forbids every token after which an output can no longer be of a
    grammar, and ends it where nothing more can follow. Where it may end or go on, the model chooses.

    model        whose tokens it speaks
    regex, json_schema, lark
                 one of them: a regular expression of Rust's kind, a JSON Schema (dict or str), or a grammar in
                 llguidance's dialect of Lark
    raises       Error when llguidance is not installed, the model has no tokenizer, or the grammar cannot be read

    What it remembers is where it is in one output, to go on from there; for several prompts at a time make one each.
    """

    def __init__(
        self,
        model: Model,
        *,
        regex: str | None = None,
        json_schema: Mapping[str, object] | str | None = None,
        lark: str | None = None,
    ) -> None:
        if sum(given is not None for given in (regex, json_schema, lark)) != 1:
            raise Error("Grammar: expected one of regex, json_schema and lark")
        if model.tokenizer is None:
            raise Error(f"Grammar: {model.path} has no tokenizer")
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError as error:
            raise Error("Grammar: needs the package llguidance: pip install llguidance") from error
        if regex is not None:
            text = LLMatcher.grammar_from_regex(regex)
        elif json_schema is not None:
            schema = json_schema if isinstance(json_schema, str) else json.dumps(json_schema)
            text = LLMatcher.grammar_from_json_schema(schema)
        else:
            text = LLMatcher.grammar_from_lark(lark)
        info = model.info
        if not info.stop_tokens:
            raise Error(f"Grammar: {model.path} names no token that ends a text (eos_token_id of its config.json)")
        try:
            tokenizer = LLTokenizer(tokenizer_json(model.path), n_vocab=info.vocab_size, eos_token=info.stop_tokens)
        except ValueError as error:
            raise Error(f"Grammar: llguidance cannot take the tokenizer of {model.path}: {error}") from error
        self._matcher = LLMatcher(tokenizer, text, log_level=0)
        if self._matcher.is_error():
            raise Error(f"Grammar: {self._matcher.get_error()}")
        self._read: list[int] = []  # tokens that the matcher has taken in
        self._ends = set(info.stop_tokens)

    def __call__(self, prompt_ids: np.ndarray, output_ids: np.ndarray, logits: np.ndarray) -> None:
        output = output_ids.tolist()
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._read, output, strict=False)))
        self._matcher.rollback(len(self._read) - common)
        taken = self._matcher.try_consume_tokens(output[common:])
        self._read = output[: common + taken]
        if len(self._read) < len(output) or self._ends.intersection(output[-1:]):
            return  # not of the grammar, or behind its end: a guess of a draft, which an earlier token decides about
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=len(logits))
        logits[allowed == 0] = -np.inf
