"""Mixtures of experts written out token by token in float64: what transformers is checked against before its results
become fixtures, and where the margins of router choices come from.

A router is a function of one token's logits [E]. It returns the chosen experts by rank, their weights, and the
smallest distance at which another choice would have been made.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def ranked(scores: torch.Tensor, count: int) -> tuple[list[int], float]:
    """The `count` largest, and the smallest gap between neighbours among them and the next one."""
    values, order = scores.sort(descending=True)
    gaps = values[:-1] - values[1:]
    return order[:count].tolist(), float(gaps[:count].min()) if len(gaps) else float("inf")


def softmax_router(logits, config, bias):
    chosen, margin = ranked(logits, config.num_experts_per_tok)
    weights = logits.softmax(-1)[chosen]
    if getattr(config, "norm_topk_prob", True):  # Mixtral has no such key and always does
        weights = weights / weights.sum()
    return chosen, weights, margin


def softmax_of_chosen_router(logits, config, bias):
    chosen, margin = ranked(logits, config.num_experts_per_tok)
    return chosen, logits[chosen].softmax(-1), margin


def sigmoid_router(logits, config, bias):
    chosen, margin = ranked(logits, config.num_experts_per_tok)
    return chosen, logits[chosen].sigmoid(), margin


def grouped_router_v2(logits, config, bias):
    """Gaps of logits, not of probabilities, which may all be tiny."""
    group_margin = float("inf")
    choice = logits
    if config.topk_method == "group_limited_greedy":
        groups = logits.view(config.n_group, -1)
        kept, group_margin = ranked(groups.max(-1).values, config.topk_group)
        choice = torch.full_like(groups, -torch.inf)
        choice[kept] = groups[kept]
        choice = choice.flatten()
    chosen, margin = ranked(choice, config.num_experts_per_tok)
    return chosen, logits.softmax(-1)[chosen] * config.routed_scaling_factor, min(margin, group_margin)


def grouped_router_v3(logits, config, bias):
    """Scores lie in [0, 1], so a tenth of the usual margin is as clear."""
    scores = logits.sigmoid()
    groups = (scores + bias).view(config.n_group, -1)
    kept, group_margin = ranked(groups.topk(2, -1).values.sum(-1), config.topk_group)
    choice = torch.full_like(groups, -torch.inf)
    choice[kept] = groups[kept]
    chosen, margin = ranked(choice.flatten(), config.num_experts_per_tok)
    weights = scores[chosen]
    if config.norm_topk_prob:
        weights = weights / (weights.sum() + 1e-20)
    return chosen, weights * config.routed_scaling_factor, 10.0 * min(margin, group_margin)


def biased_sigmoid_router(logits, config, bias):
    scores = logits.sigmoid()
    chosen, margin = ranked(scores + bias, config.num_experts_per_tok)
    return chosen, scores[chosen] / scores[chosen].sum(), 10.0 * margin


def biased_softmax_router(logits, config, bias):
    """Of ERNIE 4.5."""
    scores = logits.softmax(-1)
    chosen, margin = ranked(scores + bias.flatten(), config.num_experts_per_tok)
    return chosen, scores[chosen] / scores[chosen].sum().clamp(min=config.moe_norm_min), 10.0 * margin


def sparsemixer_router(logits, config, bias):
    chosen, weights, margin = [], [], float("inf")
    left = logits.clone()
    for _ in range(2):
        (best,), gap = ranked(left, 1)
        top = left[best]
        distance = (top - logits) / torch.maximum(logits.abs(), top)
        edge = (distance - 2 * config.router_jitter_noise).abs().min()
        taking_part = left.masked_fill(distance > 2 * config.router_jitter_noise, -torch.inf)
        margin = min(margin, gap, 10.0 * float(edge))
        chosen.append(best)
        weights.append(taking_part.softmax(-1)[best])
        left[best] = -torch.inf
    return chosen, torch.stack(weights), margin


ROUTERS = {
    "mixtral": softmax_router,
    "qwen2_moe": softmax_router,
    "qwen3_moe": softmax_router,
    "olmoe": softmax_router,
    "granitemoe": softmax_of_chosen_router,
    "gpt_oss": softmax_of_chosen_router,
    "phimoe": sparsemixer_router,
    "llama4_text": sigmoid_router,
    "deepseek_v2": grouped_router_v2,
    "deepseek_v3": grouped_router_v3,
    "glm4_moe": grouped_router_v3,
    "glm4_moe_lite": grouped_router_v3,
    "dots1": grouped_router_v3,
    "solar_open": grouped_router_v3,
    "exaone_moe": grouped_router_v3,
    "hunyuan_v1_moe": softmax_router,
    "ernie4_5_moe": biased_softmax_router,
    "minimax_m2": biased_sigmoid_router,
}

# Those whose logits must be small: the score of a larger one is 1.
NARROW = (grouped_router_v2, grouped_router_v3, biased_sigmoid_router, biased_softmax_router)


def is_moe(module: torch.nn.Module) -> bool:
    return hasattr(module, "experts") and (hasattr(module, "gate") or hasattr(module, "router"))


def route(block, config, row: torch.Tensor):
    """Chosen experts, weights and margin of one token [H], in float64."""
    router = block.gate if hasattr(block, "gate") else block.router
    logits = getattr(router, "wg", router).weight.double() @ row
    if getattr(router, "bias", None) is not None:
        logits = logits + router.bias.double()
    router = getattr(router, "moe_statics", router)
    holder = router if hasattr(router, "e_score_correction_bias") else block
    bias = getattr(holder, "e_score_correction_bias", torch.zeros(1)).double()
    return ROUTERS[config.model_type](logits, config, bias)


def swiglu(mlp, row: torch.Tensor) -> torch.Tensor:
    gate, up = mlp.gate_proj.weight.double() @ row, mlp.up_proj.weight.double() @ row
    return mlp.down_proj.weight.double() @ (functional.silu(gate) * up)


def expert(experts, kind: str, index: int, row: torch.Tensor) -> torch.Tensor:
    gate_up, down = experts.gate_up_proj[index].double(), experts.down_proj[index].double()
    if kind == "gpt_oss":
        both = row @ gate_up + experts.gate_up_proj_bias[index].double()
        gate, up = both[0::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
        return (gate * (1.702 * gate).sigmoid() * (up + 1.0)) @ down + experts.down_proj_bias[index].double()
    if kind == "llama4_text":
        gate, up = (row @ gate_up).chunk(2)
        return (functional.silu(gate) * up) @ down
    gate, up = (gate_up @ row).chunk(2)
    return down @ (functional.silu(gate) * up)


def forward(block, config, rows: torch.Tensor) -> torch.Tensor:
    """What a mixture of experts makes of rows [T, H]."""
    outputs = []
    for row in rows.double():
        chosen, weights, _ = route(block, config, row)
        total = torch.zeros_like(row)
        for index, weight in zip(chosen, weights, strict=True):
            if config.model_type == "llama4_text":
                total += expert(block.experts, config.model_type, index, row * weight)
            else:
                total += weight * expert(block.experts, config.model_type, index, row)
        if hasattr(block, "shared_expert_gate"):
            total += (block.shared_expert_gate.weight.double() @ row).sigmoid() * swiglu(block.shared_expert, row)
        elif hasattr(block, "shared_expert"):
            total += swiglu(block.shared_expert, row)
        elif getattr(block, "shared_experts", None) is not None:
            total += swiglu(block.shared_experts, row)
        elif hasattr(block, "shared_mlp"):
            total += swiglu(block.shared_mlp, row)
        outputs.append(total)
    return torch.stack(outputs)
