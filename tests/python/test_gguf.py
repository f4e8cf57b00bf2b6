"""A checkpoint and the GGUF file that is exported from it are one model, bit for bit in float32."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

import specmoe

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/golden/models"


@pytest.mark.parametrize(
    "name",
    [
        "deepseek_v2_b",
        "deepseek_v3_a",
        "ernie4_5_moe_a",
        "glm4_moe_a",
        "glm4_moe_b",
        "gpt_oss_a",
        "granitemoe_b",
        "hunyuan_v1_moe_a",
        "hunyuan_v1_moe_b",
        "minimax_m2_a",
        "mixtral_a",
        "qwen3_moe_a",
    ],
)
def test_the_same_weights_give_the_same_logits(name, tmp_path, monkeypatch):
    import torch
    from gguf import GGMLQuantizationType

    monkeypatch.syspath_prepend(ROOT / "experiments/benchmarks")
    from gguf_export import export

    with torch.no_grad():
        export(MODELS / name, tmp_path / "model.gguf", GGMLQuantizationType.F32)
    ids = load_file(MODELS / name / "expected.safetensors")["input_ids"]
    folder, file = (specmoe.load(path, dtype="float32", threads=1) for path in (MODELS / name, tmp_path))
    assert (folder.logits(ids) == file.logits(ids)).all()
    assert (folder.experts(ids) == file.experts(ids)).all()
