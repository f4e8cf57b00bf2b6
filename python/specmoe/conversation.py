"""Conversations as prompts: the Jinja template of a checkpoint, rendered as transformers does.

ids = specmoe.chat(model, "Why is the sky blue?")
print(engine.generate(ids, max_new_tokens=200).text)
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath

import jinja2
from _specmoe import Error, Model, chat_template
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

Messages = str | Sequence[Mapping[str, object]]


def _refuse(text: str) -> None:
    raise jinja2.TemplateError(text)


class _Generation(Extension):
    """{% generation %} marks what a model wrote, for training. The text is what stands inside."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    """What templates may use. A template comes with a checkpoint and is not trusted, hence the sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def render_chat(
    path: str | PathLike[str], messages: Messages, add_generation_prompt: bool = True, **variables: object
) -> str:
    """The text of a conversation as the checkpoint at `path` was trained to read it.

    messages                a question, or a list of {"role": ..., "content": ...}
    add_generation_prompt   end where the answer begins
    variables               whatever else the template reads, such as tools or enable_thinking
    raises                  Error when there is no template, or it refuses the conversation
    """
    template = chat_template(fspath(path))
    if template is None:
        raise Error(f"{fspath(path)}: has no chat template; give the prompt as plain text")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    names = {"bos_token": template.bos_token, "eos_token": template.eos_token, "tools": None, "documents": None}
    names |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
    try:
        return _environment().from_string(template.text).render(names | variables)
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Error(f"{fspath(path)}: chat template: {' '.join(str(error).split())}") from error


def chat(model: Model, messages: Messages, add_generation_prompt: bool = True, **variables: object) -> list[int]:
    """Token ids of a conversation, for Engine.generate: render_chat() encoded without a second begin token."""
    if model.tokenizer is None:
        raise Error(f"{model.path}: has no tokenizer")
    text = render_chat(model.path, messages, add_generation_prompt, **variables)
    return model.tokenizer.encode(text, add_special=False)
