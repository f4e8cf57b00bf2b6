"""Mixtral and Llama in compact torch, with the tensor names of their Hugging Face checkpoints.

Shapes: B rows, T positions, N = B*T tokens, H hidden, I intermediate, E experts, K experts per
token, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


def rope_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [length, head_dim], halves repeated."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * inverse
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half rotation of x [B, heads, T, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention [B, heads, T, head_dim]; causal where no mask is given.

    Plain products: at 256 positions they are faster here than torch's flash kernel for CPUs.
    """
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    length = q.shape[2]
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    above = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu(1)
    with torch.autocast("cpu", enabled=False):
        probs = (scores + above).softmax(dim=-1)
    return torch.matmul(probs, v)


class Attention(nn.Module):
    """Grouped-query causal attention; keeps a key-value cache when it is given one."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: list | None):
        rows, length, _ = x.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        widths = [self.heads * self.head_dim] + [self.kv_heads * self.head_dim] * 2
        q, k, v = F.linear(x, weight).split(widths, dim=-1)
        q = q.view(rows, length, self.heads, self.head_dim).transpose(1, 2)
        k = k.view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = v.view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        cos, sin = cos.to(v.dtype), sin.to(v.dtype)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            past[:] = [k, v]
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = attend(q, k, v, mask)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class DenseMlp(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gather(torch.autograd.Function):
    """Rows of x [N, H] in expert order [N*K, H]: slot s takes row `order[s] // K`."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, back: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.top_k = top_k
        return x.index_select(0, order // top_k)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (back,) = ctx.saved_tensors
        return (
            grad.index_select(0, back).view(-1, ctx.top_k, grad.shape[-1]).sum(1),
            None,
            None,
            None,
        )


class Permute(torch.autograd.Function):
    """x[forth] for a permutation `forth` with inverse `back`."""

    @staticmethod
    def forward(ctx, x: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, forth)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


class SoftCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of logits [n, V] with text [n] and a law [n, V], and the probabilities.

    (torch's float32 log_softmax is ten times slower here than its softmax.)
    """

    @staticmethod
    def forward(ctx, logits: Tensor, text: Tensor, law: Tensor | None, text_weight: float):
        probs = logits.float().softmax(dim=-1)
        at_text = probs.gather(1, text[:, None]).clamp_min(1e-30).log()
        loss = -at_text.mean() * text_weight
        if law is not None:
            total = logits.gather(1, text[:, None]).float() - at_text  # log of the sum of exp(logits)
            loss += (1 - text_weight) * (total[:, 0] - (law * logits).sum(dim=-1)).mean()
        ctx.save_for_backward(probs, text, law)
        ctx.text_weight, ctx.dtype = text_weight, logits.dtype
        ctx.mark_non_differentiable(probs)
        return loss, probs

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        probs, text, law = ctx.saved_tensors
        scale = grad / len(text)
        result = probs * scale
        result.scatter_add_(1, text[:, None], (-ctx.text_weight * scale).expand(len(text), 1))
        if law is not None:
            result -= law * ((1 - ctx.text_weight) * scale)
        return result.to(ctx.dtype), None, None, None


class SparseMoe(nn.Module):
    """Top-K of E experts with renormalised softmax weights; tokens are sorted by expert."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.experts, self.top_k = config["num_local_experts"], config["num_experts_per_tok"]
        self.gate = nn.Parameter(torch.empty(self.experts, hidden))
        self.w13 = nn.ParameterList(torch.empty(2 * inner, hidden) for _ in range(self.experts))
        self.w2 = nn.ParameterList(torch.empty(hidden, inner) for _ in range(self.experts))
        self.counts = torch.zeros(self.experts, dtype=torch.long)  # choices of the last forward
        self.balance_loss = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        rows, length, hidden = x.shape
        flat = x.reshape(-1, hidden)
        with torch.autocast("cpu", enabled=False):
            probs = F.linear(flat.float(), self.gate).softmax(dim=-1)  # [N, E]
        weights, chosen = probs.topk(self.top_k, dim=-1)  # [N, K]
        weights = weights / weights.sum(dim=-1, keepdim=True)
        order = chosen.reshape(-1).argsort(stable=True)  # slots n*K + k, grouped by expert
        counts = chosen.reshape(-1).bincount(minlength=self.experts)
        self.counts = counts
        self.balance_loss = self.experts * (probs.mean(0) * counts / counts.sum()).sum()
        back = order.argsort()  # from slot n*K + k to its place in `order`
        inputs = Gather.apply(flat, order, back, self.top_k).split(counts.tolist())
        outputs = [self._expert(e, part) for e, part in enumerate(inputs) if len(part)]
        mixed = torch.cat(outputs)
        by_token = Permute.apply(mixed, back, order).view(-1, self.top_k, hidden)
        result = (by_token * weights[..., None].to(by_token.dtype)).sum(dim=1)
        return result.view(rows, length, hidden)

    def _expert(self, e: int, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.w13[e]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.w2[e])


class Block(nn.Module):
    """Attention and MLP, each after a norm, each added to the residual."""

    def __init__(self, config: dict):
        super().__init__()
        eps = config["rms_norm_eps"]
        self.input_layernorm = RMSNorm(config["hidden_size"], eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config["hidden_size"], eps)
        self.mlp = SparseMoe(config) if "num_local_experts" in config else DenseMlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, past: list | None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """A decoder built from a Hugging Face style config of `mixtral` or `llama`."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        hidden, vocab = config["hidden_size"], config["vocab_size"]
        self.embed_tokens = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(hidden, config["rms_norm_eps"])
        self.lm_head = nn.Linear(hidden, vocab, bias=False)
        if config["tie_word_embeddings"]:
            self.lm_head.weight = self.embed_tokens.weight
        cos, sin = rope_tables(config["max_position_embeddings"], config["head_dim"], config["rope_theta"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def init_weights(self, seed: int) -> None:
        """Normal init, 0.02; projections into the residual are scaled by 1/sqrt(2 layers)."""
        generator = torch.Generator().manual_seed(seed)
        scale = (2 * len(self.layers)) ** -0.5
        for name, tensor in self.named_parameters():
            if tensor.dim() == 1:
                continue
            into_residual = any(part in name for part in ("o_proj", "down_proj", ".w2."))
            std = 0.02 * scale if into_residual else 0.02
            nn.init.normal_(tensor, std=std, generator=generator)

    def forward(self, ids: Tensor, past: list[list] | None = None, positions=None, mask=None):
        """ids [B, T] -> logits [B, T, V]; `past` needs `positions` [B, T], `mask` [B, 1, T, S]."""
        return self.lm_head(self.norm(self.hidden(ids, past, positions, mask)))

    def hidden(self, ids: Tensor, past: list[list] | None = None, positions=None, mask=None):
        """The residual stream [B, T, H] before the last norm."""
        x = self.embed_tokens(ids)
        if positions is None:
            cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, None if past is None else past[i])
        return x

    def logits_at(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Logits [wanted.sum(), V] of the positions where `wanted` [B, T] is true."""
        return self.lm_head(self.norm(self.hidden(ids)[wanted]))

    def moe_layers(self) -> list[SparseMoe]:
        """The MoE layers, in order; empty for a dense model."""
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, SparseMoe)]


def parameter_count(model: nn.Module) -> int:
    """Number of distinct parameters."""
    return sum(p.numel() for p in model.parameters())
