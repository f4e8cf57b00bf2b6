"""`specmoe convert`, driven as a user drives it."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from program import PROGRAM, PROMPT, ROOT, ok, specmoe
from program import TARGET as TARGET_TEXT

TARGET = Path(TARGET_TEXT)
ALONE = ("--threads", 1)  # the same bits, and no waiting for another thread on a busy machine


def text_of(*arguments: object) -> str:
    return ok(*arguments).stdout


def refused(*arguments: object) -> str:
    done = specmoe(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))["__metadata__"]


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert") / "target-int8"
    prompts = ["--prompt", PROMPT, "--max-new-tokens", 24, *ALONE]
    text = text_of("convert", "--target", TARGET, "--dtype", "int8", "--out", folder, *prompts)
    return folder, text


def test_any_later_command_loads_it(int8):
    folder, _ = int8
    arguments = ("--prompt", PROMPT, "--max-new-tokens", 40, "--dtype", "int8", *ALONE)
    source = text_of("generate", "--target", TARGET, *arguments)
    assert text_of("generate", "--target", folder, *arguments) == source
    assert len(source) > 20
    assert re.search(r"^stored +int8, a scale per output$", text_of("inspect", "--target", folder), re.MULTILINE)
    assert (folder / "tokenizer.json").read_bytes() == (TARGET / "tokenizer.json").read_bytes()


def test_the_report_says_what_rounding_did(int8):
    folder, text = int8
    report = json.loads((folder / "conversion.json").read_text())
    layers = json.loads((TARGET / "config.json").read_text())["num_hidden_layers"]
    assert set(report["parts"]) == {"all", "embedding, head", *(f"layer {i}" for i in range(layers))}
    for name, part in report["parts"].items():
        assert 1e-4 < part["relative_error"] < 2e-2 and part["worst_tensor"] in report["tensors"]
        assert re.search(rf"^{name} +{part['relative_error']:.3g} ", text, re.MULTILINE)
    agreement = report["agreement"]
    assert agreement["tokens"] == 24 and 20 <= agreement["same_likeliest_token"] <= 24
    assert 0 < agreement["mean_kl_nats"] < 0.05 and 0 < agreement["largest_logit_difference"] < 5
    assert "24 tokens: the same likeliest token at" in text
    assert report["bytes"] == (folder / "model.safetensors").stat().st_size < 0.6 * report["source_bytes"]


def test_hashes_are_those_of_sha256sum(int8):
    folder, text = int8
    report = json.loads((folder / "conversion.json").read_text())
    sums = {name: hashlib.sha256((TARGET / name).read_bytes()).hexdigest() for name in report["source_sha256"]}
    assert report["source_sha256"] == sums and set(sums) == {"config.json", "model.safetensors"}
    whole = (folder / "model.safetensors").read_bytes()
    data = hashlib.sha256(whole[8 + struct.unpack("<Q", whole[:8])[0] :]).hexdigest()
    kept = metadata(folder / "model.safetensors")
    assert kept["data_sha256"] == report["data_sha256"] == data and data in text
    listed = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    assert kept["source_sha256"] == hashlib.sha256(listed.encode()).hexdigest()


def test_bfloat16_is_read_by_other_programs(tmp_path):
    from safetensors.numpy import load_file  # noqa: F401  (bfloat16 needs torch's reader)
    from safetensors.torch import load_file as load_torch

    text_of("convert", "--target", TARGET, "--dtype", "bfloat16", "--out", tmp_path / "bf16", "--quiet")
    source, new = (load_torch(folder / "model.safetensors") for folder in (TARGET, tmp_path / "bf16"))
    assert source.keys() == new.keys()
    assert all(source[name].equal(new[name]) for name in source)


@pytest.mark.parametrize(
    "name", ["llama", "mixtral", "gemma3", "granitemoe", "gpt_oss", "deepseek_v3", "llama4", "phimoe"]
)
def test_a_gguf_file_becomes_a_folder_that_transformers_reads(name, tmp_path):
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM

    import specmoe

    source = ROOT / "tests/golden/gguf" / name
    text = text_of("convert", "--target", source / "model.gguf", "--dtype", "bfloat16", "--out", tmp_path / "new")
    assert "SHA-256" in text
    report = json.loads((tmp_path / "new/conversion.json").read_text())
    assert report["source_sha256"] == {"model.gguf": hashlib.sha256((source / "model.gguf").read_bytes()).hexdigest()}
    ids = load_file(source / "expected.safetensors")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "new", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids)[None].long()).logits[0].numpy()
    ours = specmoe.load(tmp_path / "new", dtype="float32", threads=1).logits(ids)
    assert abs(ours - theirs).max() < 1e-3 * abs(theirs).max()


def test_the_tokenizer_and_chat_template_of_a_gguf_file_come_along(tmp_path):
    import gguf

    import specmoe

    source = tmp_path / "source"
    source.mkdir()
    reader = gguf.GGUFReader(ROOT / "tests/golden/gguf/llama/model.gguf")
    writer = gguf.GGUFWriter(source / "model.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("llama."):
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(196))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 196])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ bos_token }}{{ messages[0].content }}")
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    text_of("convert", "--target", source, "--dtype", "int8", "--out", tmp_path / "new")
    before, after = (specmoe.load(folder, threads=1) for folder in (source, tmp_path / "new"))
    assert before.tokenizer.encode("a b") == after.tokenizer.encode("a b") and before.info.stop_tokens == [2]
    assert after.info.stop_tokens == [2]
    assert specmoe.render_chat(tmp_path / "new", "Hi") == specmoe.render_chat(source, "Hi") == "<s>Hi"


def test_a_memory_cap_refuses_before_anything_is_made(tmp_path):
    out = tmp_path / "out"
    arguments = ("convert", "--target", TARGET, "--dtype", "int8", "--out", out)
    assert "convert needs 29.4 MB" in refused(*arguments, "--memory-cap", "1MB", "--threads", 2)
    assert "to compare the models on prompts" in refused(*arguments, "--memory-cap", "40MB", "--prompt", PROMPT)
    assert "expected a size such as" in refused(*arguments, "--memory-cap", "40")
    assert list(tmp_path.iterdir()) == []
    text_of(*arguments, "--memory-cap", "100MB", "--threads", 2)


def test_refusals(tmp_path, int8):
    out = ("--out", tmp_path / "out")
    assert "needs --out" in refused("convert", "--target", TARGET)
    assert "is there already" in refused("convert", "--target", TARGET, "--out", int8[0])
    assert "existing, writable folder" in refused("convert", "--target", TARGET, "--out", tmp_path / "a" / "b")
    assert "got float32" in refused("convert", "--target", TARGET, "--dtype", "float32", *out)
    assert "is int8 already" in refused("convert", "--target", int8[0], *out)
    assert list(tmp_path.iterdir()) == []
    assert "is no name" in refused("convert", "--target", TARGET, "--out", f"{tmp_path}/.")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    for name in ("file", "link"):  # found before the work, not after it
        assert "is there already" in refused("convert", "--target", TARGET, "--out", tmp_path / name)


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    text_of("convert", "--target", TARGET, "--dtype", "int8", "--out", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "model.safetensors").exists()


def test_an_interrupted_conversion_leaves_nothing(tmp_path, random_checkpoint):
    source = random_checkpoint(tmp_path / "source", 12)
    command = [PROGRAM, "convert", "--target", source, "--dtype", "int8", "--out", tmp_path / "out"]
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while not list(tmp_path.glob("out.tmp-*")) and child.poll() is None:
        time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    assert "interrupted" in child.communicate(timeout=60)[1] and child.returncode == 128 + signal.SIGINT
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
