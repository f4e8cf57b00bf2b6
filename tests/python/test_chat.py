"""Chat templates: rendered as transformers renders them, refused in one line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from program import PROMPT, TARGET, expect_one_line, ok
from program import specmoe as program
from transformers.utils.chat_template_utils import render_jinja_template

import specmoe

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('Only user and assistant roles are supported, not ' + message['role']) }}
    {%- endif %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
TOOLS = """{% for message in messages %}
  {% if loop.index > 3 %}{% break %}{% endif %}
  {{ message | tojson }}
{% endfor %}
{% if tools is defined %}{{ tools | tojson(indent=2) }}{% endif %}"""
GENERATION = """{% for message in messages %}
{% set text = message.content %}
  {% if message.role == 'assistant' %}
    {% generation %}
    {% set text = text | trim %}
    {{- text + eos_token }}
    {% endgeneration %}
  {% endif %}
{{ text }}
{% endfor %}"""
JSON = "{{ messages | tojson(separators=(',', ':'), sort_keys=true) }}{{ messages | tojson(ensure_ascii=true) }}"
NOTHING = "{{ tools is none }}{{ documents is none }}{% if tools is not none %}{{ tools | tojson }}{% endif %}"
TALK = [
    {"role": "user", "content": "Hi <there> & \u00e9"},
    {"role": "assistant", "content": " Hello! "},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So long"},
]


@pytest.fixture
def folder(tmp_path):
    def make(template, **settings):
        settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}} | settings
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template} | settings))
        return tmp_path

    return make


@pytest.mark.parametrize("template", [CHATML, INST, TOOLS, GENERATION, JSON, NOTHING])
@pytest.mark.parametrize("turns", [1, 3, 4])
def test_renders_like_transformers(folder, template, turns):
    extra = {"tools": [{"name": "\u00fcber", "n": 1}]} if template == TOOLS else {}
    names = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": turns % 2 == 1}
    expected, _ = render_jinja_template(
        [TALK[:turns]], chat_template=template, tools=extra.get("tools"), return_assistant_tokens_mask=False, **names
    )
    text = specmoe.render_chat(folder(template), TALK[:turns], add_generation_prompt=turns % 2 == 1, **extra)
    assert text == expected[0]


def test_a_string_is_a_question(folder):
    path = folder(CHATML)
    assert specmoe.render_chat(path, "Hi") == specmoe.render_chat(path, [{"role": "user", "content": "Hi"}])
    assert specmoe.render_chat(path, "Hi").endswith("<|im_start|>assistant\n")


def test_where_templates_are_kept(folder):
    path = folder([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}])
    assert specmoe.render_chat(path, "Hi") == "D<s>"
    (path / "chat_template.jinja").write_text("J{{ eos_token }}")
    assert specmoe.render_chat(path, "Hi") == "J</s>"


def test_a_gguf_file_has_its_template(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_chat_template("{{ bos_token }}{{ messages[0].content }}")
    writer.add_token_list(["<unk>", "<begin>"])
    writer.add_bos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert specmoe.render_chat(tmp_path, "Hi") == "<begin>Hi"


@pytest.mark.parametrize(
    ("template", "messages", "named"),
    [
        (INST, [{"role": "system", "content": "x"}], "Only user and assistant roles"),
        ("{% if %}", "Hi", "chat template"),
        ("{{ messages.__class__.__mro__ }}", "Hi", "unsafe"),
        ("{{ undefined_thing.x }}", "Hi", "undefined"),
        ("{% for i in range(10**9) %}{% endfor %}", "Hi", "chat template: Range too big"),
        ("{{ messages[0].content + '!' }}", [{"role": "assistant", "content": None}], "chat template: unsupported"),
        ("{{ messages | length // 0 }}", "Hi", "chat template: integer division"),
        ([{"name": "tool_use", "template": "T"}], "Hi", "default"),
    ],
)
def test_refusals_are_one_line(folder, template, messages, named):
    with pytest.raises(specmoe.Error, match=named) as refusal:
        specmoe.render_chat(folder(template), messages)
    assert "\n" not in str(refusal.value)


def test_no_template(tmp_path, target):
    with pytest.raises(specmoe.Error, match="no chat template"):
        specmoe.render_chat(tmp_path, "Hi")
    with pytest.raises(specmoe.Error, match="no tokenizer"):
        specmoe.chat(target, "Hi")


def test_the_command_renders_questions(folder, tmp_path):
    questions = tmp_path / "questions.jsonl"
    rows = [{"question_id": 7, "category": "c", "turns": ["Hi", "again"]}, {"question_id": 8, "turns": ["Bye"]}]
    questions.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "specmoe.chat_prompts", "--target", folder(CHATML), "--prompts", questions]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    first = json.loads(out[0])
    assert (first["question_id"], first["category"], first["rendered"], len(out)) == (7, "c", True, 2)
    assert first["turns"] == [specmoe.render_chat(tmp_path, "Hi")]
    questions.write_text(json.dumps({"turns": ["Hi <there> & \u00e9", "Bye"], "answers": [" Hello! "]}))
    second = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert second["turns"] == [specmoe.render_chat(tmp_path, TALK[:3])]
    # What JSON allows inside a text and others take for the end of a line, on a terminal that knows ASCII alone.
    odd = "a\u2028b\u0085c\u2029\u00e9"
    questions.write_text(json.dumps({"turns": [odd]}, ensure_ascii=False) + "\n", encoding="utf-8")
    ascii_alone = {**os.environ, "PYTHONIOENCODING": "ascii"}
    third = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=ascii_alone).stdout)
    assert third["turns"] == [specmoe.render_chat(tmp_path, odd)]
    for text in ("{", '{"turns": []}', "[1]"):
        questions.write_text(json.dumps(rows[0]) + "\n" + text)
        refused = subprocess.run(command, capture_output=True, text=True)
        assert (
            refused.returncode == 2
            and refused.stderr.count("\n") == 1
            and "line 2: expected a question" in refused.stderr
        )
    refused = subprocess.run([*command[:-1], tmp_path / "nowhere"], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "cannot read" in refused.stderr
    questions.write_text(json.dumps(rows[0]))
    (tmp_path / "tokenizer_config.json").unlink()
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1 and "no chat template" in refused.stderr


# ---- the program ----


def text_of(*arguments: object) -> str:
    return ok(*arguments).stdout


@pytest.fixture
def chatty(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECMOE_PYTHON", sys.executable)
    folder = tmp_path / "chatty"
    shutil.copytree(TARGET, folder)
    template = "{{ bos_token }}{% for m in messages %}Problem: {{ m.content }}\n{% endfor %}Solution:"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    return folder


def test_chat_renders_the_question(chatty, tmp_path):
    question = PROMPT.removeprefix("Problem: ").removesuffix("\nSolution:")
    arguments = ("--target", chatty, "--max-new-tokens", 24, "--threads", 1)
    expected = text_of("generate", *arguments, "--prompt", PROMPT)
    assert text_of("generate", *arguments, "--prompt", question, "--chat") == expected
    assert text_of("generate", *arguments, "--prompt", question) != expected
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question_id": "a b", "category": "c", "turns": [question]}) + "\n")
    output = tmp_path / "answers.jsonl"
    assert text_of("generate", *arguments, "--prompts", questions, "--chat", "--output", output) == expected
    answer = json.loads(output.read_text())
    assert (answer["question_id"], answer["category"]) == ("a b", "c")


def test_later_turns_follow_the_answers(chatty, tmp_path):
    turns = ["Ada has 3 apples. How many apples does Ada have?", "Ben has 4 more. How many has Ben?", "And both?"]
    rows = [{"question_id": 1, "turns": turns}, {"question_id": 2, "turns": turns[:1]}]
    questions, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--target", chatty, "--max-new-tokens", 16, "--threads", 1, "--drafter", "ngram", "--batch", 2)
    text = text_of("generate", *arguments, "--prompts", questions, "--chat", "--output", output)
    assert [line for line in text.splitlines() if line.startswith("== ")] == [
        "== 1 ==", "== 2 ==", "== 1, turn 2 ==", "== 1, turn 3 ==",
    ]  # fmt: skip
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["question_id"], line.get("turn", 1)) for line in lines] == [(1, 1), (2, 1), (1, 2), (1, 3)]
    answers = [line["choices"][0]["turns"][0] for line in lines if line["question_id"] == 1]
    for turn in (1, 2):  # what a user would send who renders the conversation alone
        said = [part for pair in zip(turns[:turn], answers[:turn], strict=True) for part in pair]
        talk = [{"role": "user", "content": part} for part in [*said, turns[turn]]]
        rendered = tmp_path / "rendered.jsonl"
        row = {"question_id": 1, "turns": [specmoe.render_chat(chatty, talk)], "rendered": True}
        rendered.write_text(json.dumps(row))
        assert text_of("generate", *arguments[:6], "--prompts", rendered).rstrip("\n") == answers[turn]
    assert "only the first turn" in ok("generate", *arguments, "--prompts", questions).stderr


def test_bench_asks_every_method_the_same_later_turns(chatty, tmp_path):
    turns = ["Ada has 3 apples. How many apples does Ada have?", "Ben has 4 more. How many has Ben?"]
    rows = [{"question_id": 1, "turns": turns}, {"question_id": 2, "turns": turns[:1]}]
    questions, output, answers = (tmp_path / name for name in ("questions.jsonl", "bench.jsonl", "answers.jsonl"))
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--target", chatty, "--max-new-tokens", 16, "--threads", 1, "--prompts", questions, "--chat")
    ok("generate", *arguments, "--output", answers)
    expected = [json.loads(line)["prompt_ids"] for line in answers.read_text().splitlines()]
    for extra in ([], ["--temperature", 1]):
        ok("bench", *arguments, "--drafter", "ngram", "--output", output, *extra)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        asked = {}
        for line in lines[:-1]:
            asked.setdefault((line["question_id"], line.get("turn", 1)), []).append(line)
        assert list(asked) == [(1, 1), (2, 1), (1, 2)] and lines[-1]["prompts"] == 3
        for same in asked.values():
            assert len(same) == 4 and {line["method"] for line in same} == {"plain", "speculative"}
            assert len({tuple(line["prompt_ids"]) for line in same}) == 1
        if not extra:
            assert [same[0]["prompt_ids"] for same in asked.values()] == expected


def test_chat_refusals(chatty, tmp_path, monkeypatch):
    arguments = ("generate", "--target", chatty, "--prompt", "Hi", "--chat")
    expect_one_line(program("generate", "--target", TARGET, "--prompt", "Hi", "--chat"), "has no chat template")
    rendered = tmp_path / "rendered.jsonl"
    rendered.write_text(json.dumps({"question_id": 4, "turns": ["Hi"], "rendered": True}))
    expect_one_line(program(*arguments[:3], "--prompts", rendered, "--chat"), "question 4 is rendered already")
    for python in (str(tmp_path / "python"), "false"):
        monkeypatch.setenv("SPECMOE_PYTHON", python)
        expect_one_line(program(*arguments), "name a Python that has the package specmoe in SPECMOE_PYTHON")
    monkeypatch.setenv("SPECMOE_PYTHON", sys.executable)
    (chatty / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    expect_one_line(program(*arguments), f"--chat: {chatty}: chat template: not today")


def test_sweep_takes_chat(chatty):
    frame = specmoe.sweep(
        {"target": str(chatty), "drafter": "ngram", "prompt": "Ada has 3 apples", "quiet": True},
        chat=True,
        max_new_tokens=8,
    )
    assert len(frame) == 1
