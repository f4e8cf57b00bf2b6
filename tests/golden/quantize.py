"""Compressed weights of the fixtures: float8 blocks as DeepSeek-V3 stores its matrices, mxfp4 blocks as gpt-oss stores
its experts. The model gets the expanded values, so transformers computes with what the file says.
"""

from __future__ import annotations

import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

FP8_ROWS, FP8_COLS = 16, 32  # smaller than the releases' 128, so that tiny matrices have whole and cut blocks
MXFP4_BLOCK = 32
MXFP4_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def compress_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float8_e4m3fn values [R, C] and float32 scales [R / 16, C / 32], rounded up; changes `weight` to what they say."""
    rows, cols = weight.shape
    values = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-rows // FP8_ROWS), -(-cols // FP8_COLS))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = (slice(i * FP8_ROWS, (i + 1) * FP8_ROWS), slice(j * FP8_COLS, (j + 1) * FP8_COLS))
            scales[i, j] = weight[block].abs().max() / 448.0
            values[block] = (weight[block] / scales[i, j]).to(torch.float8_e4m3fn)
            weight[block] = values[block].float() * scales[i, j]
    return values, scales


def fp8(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every matrix but the embedding, the head and the routers, by its name on disk."""
    matrices = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            matrices[f"{name}.weight"] = module.weight.data
        if name.endswith(".experts"):
            width = module.down_proj.shape[-1]
            for e, (gate_up, down) in enumerate(zip(module.gate_up_proj.data, module.down_proj.data, strict=True)):
                matrices[f"{name}.{e}.gate_proj.weight"] = gate_up[:width]
                matrices[f"{name}.{e}.up_proj.weight"] = gate_up[width:]
                matrices[f"{name}.{e}.down_proj.weight"] = down
    stored = {}
    for name, matrix in matrices.items():
        stored[name], stored[f"{name}_scale_inv"] = compress_fp8(matrix)
    return stored


def expand_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """[E, R, C / 32, 16] bytes and [E, R, C / 32] exponents to [E, R, C]; the low half of a byte comes first."""
    values = torch.tensor(MXFP4_VALUES + [-value for value in MXFP4_VALUES])
    halves = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    return (values[halves.long()] * torch.exp2(scales.float() - 127.0)[..., None]).flatten(-2)


def mxfp4(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    stored = {}
    for name, module in model.named_modules():
        if not name.endswith(".experts"):
            continue
        for key, largest in (("gate_up_proj", 126), ("down_proj", 122)):
            parameter = getattr(module, key)
            count, inputs, outputs = parameter.shape
            shape = (count, outputs, inputs // MXFP4_BLOCK)
            blocks = torch.randint(0, 256, (*shape, MXFP4_BLOCK // 2), generator=generator, dtype=torch.uint8)
            scales = torch.randint(largest - 4, largest, shape, generator=generator, dtype=torch.uint8)
            stored[f"{name}.{key}_blocks"], stored[f"{name}.{key}_scales"] = blocks, scales
            expanded = expand_mxfp4(blocks, scales).transpose(1, 2)
            assert torch.equal(expanded, convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
            parameter.copy_(expanded)
    return stored


def compress(model: torch.nn.Module, kind: str | None, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Tensors that take the place of others on disk; the model is changed to what they say."""
    if kind is None:
        return {}
    return fp8(model) if kind == "fp8" else mxfp4(model, generator)


def config(kind: str | None) -> dict:
    """What config.json says about it."""
    if kind is None:
        return {}
    if kind == "fp8":
        method = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [FP8_ROWS, FP8_COLS],
        }
    else:
        skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        method = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    return {"quantization_config": method}
