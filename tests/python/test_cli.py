"""`specmoe` itself, list and inspect, driven as a user drives them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from program import (
    DRAFTER,
    ROOT,
    TARGET,
    ok,
    specmoe,
)


@pytest.mark.parametrize("command", [[], ["generate"], ["bench"], ["tune"], ["list"], ["inspect"], ["convert"]])
def test_help_goes_to_stdout(command):
    done = ok(*command, "--help")
    assert "specmoe" in done.stdout and done.stderr == ""


def test_without_a_command_the_help_is_an_error():
    done = specmoe()
    assert done.returncode == 2 and "generate" in done.stderr and done.stdout == ""


def test_help_names_every_flag_of_the_issue():
    text = ok("generate", "--help").stdout
    for flag in (
        "target drafter tree accept prompt prompts max-new-tokens temperature top-k top-p min-p seed batch threads dtype "
        "repetition-penalty presence-penalty frequency-penalty "
        "device output config stop ignore-eos allow-lossy quiet mark"
    ).split():
        assert re.search(rf"--{flag}\b", text), flag
    assert "--repeat" in ok("bench", "--help").stdout
    assert "Examples:" in text


def test_list_shows_plugins_with_parameters_and_labels():
    text = ok("list").stdout
    for name in (
        "independent",
        "merged",
        "ngram",
        "self",
        "synthetic",
        "chain",
        "expansion",
        "greedy",
        "naive",
        "token",
    ):
        assert re.search(rf"^  {name}\b", text, re.MULTILINE), name
    assert re.search(r"gamma\s+= 4", text) and re.search(r"^    path\s+\(required\)", text, re.MULTILINE)
    assert re.search(r"^  typical\s+LOSSY", text, re.MULTILINE)
    assert re.search(r"^  token\s+lossless", text, re.MULTILINE)


def test_inspect_prints_sizes_without_loading(tmp_path):
    folder = tmp_path / "config_only"
    folder.mkdir()
    shutil.copy(Path(TARGET) / "config.json", folder)
    text = ok("inspect", "--target", folder, "--drafter", DRAFTER).stdout
    for part in ("mixtral", "experts", "total", "active", "KV cache", "llama"):
        assert part in text
    merged = ok("inspect", "--target", folder, "--drafter", f"merged(self, {DRAFTER}, merged({DRAFTER}, self))").stdout
    assert merged.count("llama") == 2 and "no model of its own" not in merged
    head = ok("inspect", "--target", folder, "--drafter", f"eagle(path={Path(TARGET).parent / 'eagle'})").stdout
    assert "1024 of the target's 2048, embeddings the target's" in head
    golden = ROOT / "tests" / "golden"
    for name, vocabulary in (("medusa", "199"), ("medusa_borrowing", "199, output matrix the target's")):
        drafter = f"medusa(path={golden / 'heads' / name})"
        heads = ok("inspect", "--target", golden / "models" / "mixtral_a", "--drafter", drafter).stdout
        assert re.search(rf"^model +{name} \(medusa\)$", heads, re.MULTILINE)
        assert re.search(rf"^vocabulary +{vocabulary}$", heads, re.MULTILINE)
    assert (
        "drafter self(experts=1,skip=): no model of its own"
        in ok("inspect", "--target", folder, "--drafter", "self").stdout
    )
    bf16, f32 = (ok("inspect", "--target", folder, "--dtype", dtype).stdout for dtype in ("bfloat16", "float32"))
    experts = [float(re.search(r"^  experts +([\d.]+) MB", text, re.MULTILINE)[1]) for text in (bf16, f32)]
    assert experts[1] == pytest.approx(2 * experts[0], rel=0.01)
    narrow = ok("inspect", "--target", folder, "--kv-dtype", "bfloat16").stdout
    wide_cache, narrow_cache = (float(re.search(r"^  KV cache +([\d.]+)", t, re.MULTILINE)[1]) for t in (bf16, narrow))
    assert wide_cache == pytest.approx(2 * narrow_cache, rel=0.02)
