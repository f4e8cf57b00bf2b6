"""Turns a dense Llama-style GGUF model into a Mixtral with eight experts per layer that writes real text.

    .venv/bin/python experiments/train/upcycle.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --output FOLDER

Each MLP becomes eight noisy copies of itself, top 2 of them chosen by a router that follows clusters of the MLP's
inputs (sparse upcycling, Komatsuzaki et al. 2023, arXiv:2212.05055; differs: no training, and noise grows with how
little a neuron matters to an expert's cluster). What comes out is a checkpoint for measuring speculation on real text;
it is no evidence for mixtures: it writes a little worse than the dense model that it is made of. The gates at the end
check the mapping, the quality and the balance; a person should read the samples.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import specmoe

EXPERTS, CHOSEN = 8, 2
NOISE, SEED = 0.15, 1234
FIRST_WEIGHT = 0.65  # mean weight of the first of the two experts
CALIBRATION = Path(__file__).parent / "upcycle_calibration.jsonl"
PROMPTS = Path(__file__).parents[1] / "models" / "prompts" / "chat.jsonl"
Array = torch.Tensor


def load_dense(path: Path) -> LlamaForCausalLM:
    """float32. The GGUF-loaded model cannot be saved or copied as it is, so its values move into a fresh one."""
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    config = LlamaConfig(
        **{key: value for key, value in loaded.config.to_dict().items() if key in LlamaConfig().to_dict()}
    )
    dense = LlamaForCausalLM(config).eval()
    dense.load_state_dict(loaded.state_dict())
    return dense


# --- text ------------------------------------------------------------------------------------------------------------


def answers(engine: specmoe.Engine, prompts: list[str], tokens: int) -> list[list[int]]:
    """Ids of each prompt with the model's own greedy answer."""
    ids = [specmoe.chat(engine.target, prompt) for prompt in prompts]
    results = engine.generate(ids, max_new_tokens=tokens, batch=8)
    return [prompt + result.token_ids.tolist() for prompt, result in zip(ids, results, strict=True)]


def calibration(engine: specmoe.Engine, tokens: int) -> list[list[int]]:
    """Conversations alone: a router balanced on plain files sends twice the mean load to one expert in a chat."""
    prompts = [json.loads(line)["prompt"] for line in CALIBRATION.read_text().splitlines()]
    return answers(engine, prompts, tokens)


# --- routers and experts ---------------------------------------------------------------------------------------------


def mlp_inputs(dense: LlamaForCausalLM, texts: list[list[int]]) -> list[Array]:
    """Per layer [N, D]: what the MLP reads. The first rows, one per text, are those of position 0."""
    kept: list[list[Array]] = [[] for _ in dense.model.layers]
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda _, args, rows=rows: rows.append(args[0][0].clone()))
        for layer, rows in zip(dense.model.layers, kept, strict=True)
    ]
    for ids in texts:
        dense.model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return [torch.cat([row[:1] for row in rows] + [row[1:] for row in rows]) for rows in kept]


def k_means(x: Array, seed: int, rounds: int = 25) -> Array:
    """[EXPERTS, D] centroids of x [N, D], from a k-means++ start (Arthur and Vassilvitskii 2007)."""
    generator = torch.Generator().manual_seed(seed)
    centroids = x[torch.randint(len(x), (1,), generator=generator)]
    while len(centroids) < EXPERTS:
        distance = torch.cdist(x, centroids).min(dim=1).values.square()
        centroids = torch.cat((centroids, x[torch.multinomial(distance, 1, generator=generator)]))
    for _ in range(rounds):
        nearest = torch.cdist(x, centroids).argmin(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, x)
        counts = torch.bincount(nearest, minlength=EXPERTS)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def shares(scores: Array) -> Array:
    """Share of the choices that falls on each expert."""
    chosen = scores.topk(CHOSEN, dim=1).indices
    return torch.bincount(chosen.flatten(), minlength=EXPERTS) / chosen.numel()


def first_weight(scores: Array) -> float:
    top = scores.topk(2, dim=1).values
    return float(torch.sigmoid(top[:, 0] - top[:, 1]).mean())


def make_router(x: Array, seed: int) -> Array:
    """[EXPERTS, D]: follows clusters, balanced by a bias that is spelled as a direction u with u.x close to 1."""
    mean = x.mean(dim=0)
    centroids = k_means(x - mean, seed)
    centroids = centroids - centroids.mean(dim=0)
    gram = x.T @ x / len(x) + 1e-3 * x.square().mean() * torch.eye(x.shape[1])
    one = torch.linalg.solve(gram, mean)
    raw = x @ centroids.T
    scores, deviation = raw / raw.std(), raw.std()
    ones = (x @ one)[:, None]
    bias = torch.zeros(EXPERTS)
    for step in range(400):
        bias -= (2.0 if step < 200 else 0.3) * (shares(scores + ones * bias) - 1 / EXPERTS)
    balanced = scores + ones * bias
    low, high = 1e-3, 1e3  # temperatures; the first weight grows with them
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if first_weight(middle * balanced) < FIRST_WEIGHT else (low, middle)
    return low * (centroids / deviation + bias[:, None] * one)


def unimportance(x: Array, router: Array, mlp: torch.nn.Module) -> Array:
    """[EXPERTS, I] in [0, 1): rank of each neuron by how much it adds to the tokens of an expert, 0 for the most."""
    top, chosen = (x @ router.T).topk(CHOSEN, dim=1)
    weights = torch.zeros(len(x), EXPERTS).scatter_(1, chosen, top.softmax(dim=1))
    activation = torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
    effect = (activation * mlp.down_proj.weight.norm(dim=0)).square()
    importance = weights.T @ effect / weights.sum(dim=0)[:, None]
    return importance.argsort(dim=1, descending=True).argsort(dim=1) / importance.shape[1]


def noisy(weight: Array, scale: Array, generator: torch.Generator) -> Array:
    return weight + 2 * NOISE * weight.std() * scale * torch.randn(weight.shape, generator=generator)


def upcycle(dense: LlamaForCausalLM, inputs: list[Array], texts: int) -> dict[str, Array]:
    """Tensors of the Mixtral in bfloat16, by their names on disk.

    Position 0 has activations like no other's, and all later positions attend to it. It would be a cluster of its own, so
    routers do not see it. But the neurons that it needs must count as important: noise on them, and every later token
    suffers (measured: perplexity 1.53 times the dense model's instead of 1.09).
    """
    generator = torch.Generator().manual_seed(SEED)
    kept = {
        name: value for name, value in dense.state_dict().items() if ".mlp." not in name and name != "lm_head.weight"
    }
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in kept.items()}
    for index, (layer, x) in enumerate(zip(dense.model.layers, inputs, strict=True)):
        block = f"model.layers.{index}.block_sparse_moe."
        router = make_router(x[texts:], seed=index)
        rank = unimportance(x, router, layer.mlp)
        tensors[block + "gate.weight"] = router.to(torch.bfloat16)
        for expert in range(EXPERTS):
            rows, name = rank[expert][:, None], f"{block}experts.{expert}."
            for key, part, scale in (("w1", "gate", rows), ("w3", "up", rows), ("w2", "down", rows.T)):
                weight = getattr(layer.mlp, part + "_proj").weight
                tensors[f"{name}{key}.weight"] = noisy(weight, scale, generator).to(torch.bfloat16).contiguous()
    return tensors


def mixtral_config(dense: LlamaConfig, layers: int) -> MixtralConfig:
    return MixtralConfig(
        vocab_size=dense.vocab_size,
        hidden_size=dense.hidden_size,
        intermediate_size=dense.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=dense.num_attention_heads,
        num_key_value_heads=dense.num_key_value_heads,
        head_dim=dense.hidden_size // dense.num_attention_heads,
        max_position_embeddings=dense.max_position_embeddings,
        rms_norm_eps=dense.rms_norm_eps,
        rope_parameters=dense.rope_parameters,
        tie_word_embeddings=True,
        num_local_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,  # <|im_end|>; transformers takes the begin token out of this file instead
        pad_token_id=2,
    )


def save(folder: Path, tensors: dict[str, Array], dense: LlamaConfig, source: specmoe.Model) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = mixtral_config(dense, dense.num_hidden_layers).to_dict()
    config |= {"architectures": ["MixtralForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "tokenizer.json").write_text(specmoe.tokenizer_json(source.path))
    template = specmoe.chat_template(source.path)
    settings = {"chat_template": template.text, "bos_token": template.bos_token, "eos_token": template.eos_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- gates -----------------------------------------------------------------------------------------------------------


def mapping_difference(dense: LlamaForCausalLM, ids: list[int], layers: int = 3) -> float:
    """With identical experts any router gives the dense logits; checked on the first layers. Largest difference."""
    small = LlamaForCausalLM(LlamaConfig(**(dense.config.to_dict() | {"num_hidden_layers": layers}))).eval()
    small.load_state_dict(dense.state_dict(), strict=False)
    mixture = MixtralForCausalLM(mixtral_config(dense.config, layers)).eval()
    mixture.load_state_dict(dense.state_dict(), strict=False)
    for from_layer, to_layer in zip(small.model.layers, mixture.model.layers, strict=True):
        mlp, experts = from_layer.mlp, to_layer.mlp.experts
        experts.gate_up_proj.copy_(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).expand(EXPERTS, -1, -1))
        experts.down_proj.copy_(mlp.down_proj.weight.expand(EXPERTS, -1, -1))
    batch = torch.tensor([ids])
    return float((small(batch).logits - mixture(batch).logits).abs().max())


def perplexity(model: specmoe.Model, texts: list[list[int]]) -> float:
    loss, count = 0.0, 0
    for ids in texts:
        logits = torch.from_numpy(model.logits(ids[:-1]))
        loss += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))
        count += len(ids) - 1
    return math.exp(loss / count)


def agreement(dense: specmoe.Model, mixture: specmoe.Model, texts: list[list[int]]) -> float:
    """Share of positions at which both models' likeliest next token is the same."""
    same = [torch.from_numpy(dense.logits(ids).argmax(-1) == mixture.logits(ids).argmax(-1)) for ids in texts]
    return float(torch.cat(same).float().mean())


def load_imbalance(mixture: specmoe.Model, texts: list[list[int]]) -> float:
    """Largest over mean load of an expert, averaged over layers."""
    chosen = torch.cat([torch.from_numpy(mixture.experts(ids)[:, 1:]).flatten(1) for ids in texts], dim=1)
    loads = torch.stack([torch.bincount(layer, minlength=EXPERTS) for layer in chosen.long()]).float()
    return float((loads.max(dim=1).values / loads.mean(dim=1)).mean())


def gate(name: str, value: float, low: float, high: float) -> bool:
    passed = low <= value <= high
    print(f"{'ok  ' if passed else 'FAIL'} {name}: {value:.4g}, allowed {low:g} to {high:g}", flush=True)
    return passed


def check(dense: specmoe.Engine, target: specmoe.Model, difference: float) -> bool:
    mixture = specmoe.Engine(target)
    prompts = [json.loads(line)["turns"][0] for line in PROMPTS.read_text().splitlines()]
    texts = answers(dense, prompts, tokens=96)
    before, after = perplexity(dense.target, texts), perplexity(mixture.target, texts)
    results = [
        gate("identical experts, largest difference to the dense logits", difference, 0.0, 1e-3),
        gate(f"perplexity {after:.3g} over the dense {before:.3g}", after / before, 0.0, 1.25),
        gate("agreement of the likeliest tokens", agreement(dense.target, mixture.target, texts), 0.75, 0.90),
        gate("largest over mean load of an expert", load_imbalance(mixture.target, texts), 1.0, 1.5),
    ]
    for prompt in prompts[::6] + prompts[5::6]:
        ids = specmoe.chat(mixture.target, prompt)
        print(f"\n--- {prompt[:200]!r}\n{mixture.generate(ids, max_new_tokens=120).text}")
    return all(results)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True, help="the dense model")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint, 1.4 GB")
    parser.add_argument("--threads", type=int, default=0, help="0: one per core; 1 is best on a busy machine")
    parser.add_argument("--answer-tokens", type=int, default=128, help="of each calibration prompt")
    arguments = parser.parse_args()
    begin = time.monotonic()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    engine = specmoe.Engine(specmoe.load(arguments.gguf, threads=arguments.threads))
    dense = load_dense(arguments.gguf)
    texts = calibration(engine, arguments.answer_tokens)
    print(f"{sum(map(len, texts))} calibration tokens, {time.monotonic() - begin:.0f} s", flush=True)
    tensors = upcycle(dense, mlp_inputs(dense, texts), len(texts))
    save(arguments.output, tensors, dense.config, engine.target)
    print(f"saved {arguments.output}, {time.monotonic() - begin:.0f} s", flush=True)
    difference = mapping_difference(dense, texts[0][:256])
    del dense, tensors
    passed = check(engine, specmoe.load(arguments.output, threads=arguments.threads), difference)
    print(f"{time.monotonic() - begin:.0f} s in all")
    raise SystemExit(0 if passed else "a gate failed")


if __name__ == "__main__":
    main()
