"""The same checkpoint, prompts and greedy tokens through specmoe, transformers and, where installed, llama-cpp-python.

    .venv/bin/python experiments/benchmarks/peers.py FOLDER [--gguf FILE] [--new-tokens 32] [--rounds 5]

Batch 1, plain decoding, equal token ids in, a fixed number of tokens out (end-of-text does not stop), prefill not counted:
of every prompt the time of one token is taken from that of all. Systems take turns. Tokens are compared before any speed is
printed; the first difference from specmoe in float32 is shown per system, because formats of other systems round otherwise.
"""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

import specmoe

PROMPTS = [
    "Problem: Omar has 9 pens and buys 6 more. How many pens does Omar have now?\nSolution:",
    "Problem: Petra has 45 shells. Petra gives away 23. How many shells are there in the end?\nSolution:",
    "Problem: Nora opens 2 bowls, each with 4 stamps. How many stamps does Nora see?\nSolution:",
]
Decode = Callable[[list[int], int], list[int]]


def with_specmoe(folder: Path, dtype: str, threads: int) -> Decode:
    engine = specmoe.Engine(specmoe.load(folder, dtype=dtype, threads=threads))

    def decode(prompt: list[int], count: int) -> list[int]:
        return list(engine.generate([prompt], max_new_tokens=count, stop=[], ignore_eos=True)[0].token_ids)

    return decode


def with_transformers(folder: Path, dtype: torch.dtype) -> Decode:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None

    def decode(prompt: list[int], count: int) -> list[int]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
        return out[0, len(prompt) :].tolist()

    return decode


def with_llama_cpp(file: Path, threads: int) -> Decode:
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=1024, n_threads=threads, verbose=False)

    def decode(prompt: list[int], count: int) -> list[int]:
        model.reset()
        return [token for token, _ in zip(model.generate(prompt, temp=0.0), range(count), strict=False)]

    return decode


def first_difference(got: list[int], expected: list[int]) -> int | None:
    return next((i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b), None)


def seconds(decode: Decode, prompt: list[int], count: int) -> float:
    start = time.perf_counter()
    decode(prompt, count)
    return time.perf_counter() - start


def version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return "absent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, help="the same weights for llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON lines, one per system")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()

    systems = {
        "specmoe float32": with_specmoe(args.folder, "float32", args.threads),
        "specmoe bfloat16": with_specmoe(args.folder, "bfloat16", args.threads),
        "transformers float32": with_transformers(args.folder, torch.float32),
        "transformers bfloat16": with_transformers(args.folder, torch.bfloat16),
    }
    if args.gguf:
        systems[f"llama.cpp {args.gguf.name}"] = with_llama_cpp(args.gguf, args.threads)
    versions = {name: version(name) for name in ("torch", "transformers", "llama-cpp-python")}
    print(f"{args.folder.name}, {args.threads} threads, {platform.processor() or platform.machine()}; {versions}")

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    texts = {name: [decode(prompt, args.new_tokens) for prompt in prompts] for name, decode in systems.items()}
    expected = texts["specmoe float32"]
    different = {
        name: [first_difference(a, b) for a, b in zip(own, expected, strict=True)] for name, own in texts.items()
    }

    times: dict[str, list[float]] = {name: [] for name in systems}
    for round_ in range(args.rounds):
        order = list(systems) if round_ % 2 == 0 else list(reversed(systems))
        for name in order:
            for prompt in prompts:
                whole = seconds(systems[name], prompt, args.new_tokens)
                first = seconds(systems[name], prompt, 1)
                times[name].append((whole - first) / (args.new_tokens - 1))

    base = statistics.median(times["specmoe bfloat16"])
    print(f"{'system':24} {'us a token':>12} {'tokens/s':>10} {'over specmoe bf16':>18}  first difference by prompt")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:24} {middle * 1e6:12.1f} {1 / middle:10.1f} {middle / base:18.2f}  {different[name]}")
        if args.output:
            line = {"benchmark": "peers", "model": args.folder.name, "system": name, "seconds": values}
            line |= {"first_difference": different[name], "versions": versions, "threads": args.threads}
            with args.output.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
