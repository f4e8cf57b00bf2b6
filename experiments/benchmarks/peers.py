"""The same checkpoint and token ids through specmoe, transformers and, where installed, llama-cpp-python.

    .venv/bin/python experiments/benchmarks/peers.py FOLDER [--gguf FILE ...] [--new-tokens 32] [--rounds 5]
        [--drafter 'independent(path=FOLDER)' --tree 'chain(gamma=4)']

Batch 1, greedy. Three things are timed, systems taking turns: a token of plain decoding (of every prompt the time of one
token is taken from that of all), a pass of T rows of the text at once, as a verify pass is, and the prefill of 512 tokens.
Texts are compared before any speed is printed; the first difference from specmoe in float32 is shown per system, because
other formats round otherwise. With a drafter, speculative decoding in bfloat16 is one more system, of which tokens alone are
timed. `gguf_export.py` writes the GGUF files.

With --device cuda all of it is on the device, in bfloat16 alone: prefill with cuBLASLt is a system of its own, and --static
adds transformers with a static cache, compiled.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import transformers

import specmoe

PROMPTS = Path(__file__).parents[1] / "models" / "prompts" / "quickstart.jsonl"
QUESTIONS, PREFILL_TOKENS = 3, 512
ALL_FIGURES = {"token", "pass", "prefill"}
BASE = "specmoe bfloat16"


class Specmoe:
    """Our engine; a pass of T rows is the verify pass of a chain of T - 1 tokens that are all right."""

    def __init__(
        self, folder: Path, dtype: str, args: argparse.Namespace, fast_prefill: bool = False, **speculation: str
    ):
        self.model = specmoe.load(folder, dtype, args.device, args.threads, fast_prefill=fast_prefill)
        self.engines = {1: specmoe.Engine(self.model, **speculation)}
        self.figures = {"token"} if speculation else {"prefill"} if fast_prefill else ALL_FIGURES

    def decode(self, prompt: list[int], count: int) -> list[int]:
        return list(self.run(1, prompt, count).token_ids)

    def pass_seconds(self, prompt: list[int], text: list[int], rows: int) -> float:
        if rows not in self.engines:
            chain = f"chain(gamma={rows - 1})"
            self.engines[rows] = specmoe.Engine(self.model, "synthetic(alpha=1)", chain, "greedy")
        steps = self.run(rows, prompt, len(text)).steps
        return statistics.median(steps["verify_ns"][steps["pass_rows"] == rows]) * 1e-9

    def prefill_seconds(self, prompt: list[int]) -> float:
        return self.run(1, prompt, 1).stage_times["prefill_ns"] * 1e-9

    def run(self, rows: int, prompt: list[int], count: int) -> specmoe.Result:
        return self.engines[rows].generate([prompt], max_new_tokens=count, stop=[], ignore_eos=True)[0]


class Transformers:
    """AutoModelForCausalLM.generate with its defaults, or with a static cache, which it compiles its forward for."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: str, static: bool = False):
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
        self.model.generation_config.eos_token_id = None
        self.device, self.figures = device, {"token"} if static else ALL_FIGURES
        self.options = {"cache_implementation": "static"} if static else {}
        if static and device == "cpu":  # on a device generate() does so by itself
            self.model.forward = torch.compile(self.model.forward)

    def tensor(self, ids: list[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self.device)

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def decode(self, prompt: list[int], count: int) -> list[int]:
        ids = self.tensor(prompt)
        mask = torch.ones_like(ids)
        out = self.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=count, **self.options)
        return out[0, len(prompt) :].tolist()

    @torch.inference_mode()
    def pass_seconds(self, prompt: list[int], text: list[int], rows: int) -> float:
        cache, times = self.model(self.tensor(prompt)).past_key_values, []
        for at in range(0, len(text) - rows + 1, rows):
            self.wait()
            start = time.perf_counter()
            cache = self.model(self.tensor(text[at : at + rows]), past_key_values=cache).past_key_values
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    @torch.inference_mode()
    def prefill_seconds(self, prompt: list[int]) -> float:
        self.wait()
        start = time.perf_counter()
        self.model(self.tensor(prompt), logits_to_keep=1)
        self.wait()
        return time.perf_counter() - start


class LlamaCpp:
    """llama.cpp's C interface: Python adds a few microseconds to a step."""

    def __init__(self, file: Path, threads: int):
        import llama_cpp

        self.api = llama_cpp
        self.figures = ALL_FIGURES
        self.llama = llama_cpp.Llama(
            str(file), n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)

    def reset(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.llama.ctx), True)
        self.past = 0

    def forward(self, tokens: list[int], all_rows: bool = False) -> None:
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, self.past + i, 1, 0
            batch.logits[i] = all_rows or i == len(tokens) - 1
        if self.api.llama_decode(self.llama.ctx, batch) != 0:
            raise RuntimeError(f"llama.cpp could not decode {len(tokens)} tokens at {self.past}")
        self.past += len(tokens)

    def best(self) -> int:
        logits = self.api.llama_get_logits_ith(self.llama.ctx, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self.llama.n_vocab(),)).argmax())

    def decode(self, prompt: list[int], count: int) -> list[int]:
        self.reset()
        self.forward(prompt)
        text = [self.best()]
        while len(text) < count:
            self.forward(text[-1:])
            text.append(self.best())
        return text

    def pass_seconds(self, prompt: list[int], text: list[int], rows: int) -> float:
        self.reset()
        self.forward(prompt)
        times = []
        for at in range(0, len(text) - rows + 1, rows):
            start = time.perf_counter()
            self.forward(text[at : at + rows], all_rows=True)
            self.best()  # waits for the result
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def prefill_seconds(self, prompt: list[int]) -> float:
        self.reset()
        start = time.perf_counter()
        self.forward(prompt)
        self.best()
        return time.perf_counter() - start


def first_difference(got: list[int], expected: list[int]) -> int | None:
    return next((i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b), None)


def token_seconds(system, prompt: list[int], count: int) -> float:
    times = []
    for tokens in (count, 1):
        start = time.perf_counter()
        system.decode(prompt, tokens)
        times.append(time.perf_counter() - start)
    return (times[0] - times[1]) / (count - 1)


def version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return "absent"


def provenance(device: str) -> dict:
    """Where and when; the device by its own name."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=PROMPTS.parent
    )
    where = {"commit": commit.stdout.strip() or "unknown", "cpu": platform.processor() or platform.machine()}
    where["device"] = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    return where | {"ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def open_systems(args: argparse.Namespace) -> dict:
    """By name; the first one's texts are those that the others are compared with."""
    here = args.device == "cpu"
    dtypes = ["float32", "bfloat16"] if here else ["bfloat16"]
    systems = {f"specmoe {dtype}": Specmoe(args.folder, dtype, args) for dtype in dtypes}
    if not here:
        systems["specmoe fast prefill"] = Specmoe(args.folder, "bfloat16", args, fast_prefill=True)
    if args.drafter:
        systems["specmoe speculative"] = Specmoe(args.folder, "bfloat16", args, drafter=args.drafter, tree=args.tree)
    for dtype in [] if args.no_transformers else dtypes:
        systems[f"transformers {dtype}"] = Transformers(args.folder, getattr(torch, dtype), args.device)
    if args.static:
        systems["transformers static"] = Transformers(args.folder, torch.bfloat16, args.device, static=True)
    for file in args.gguf:
        systems[f"llama.cpp {file.stem}"] = LlamaCpp(file, args.threads)
    return systems


def measure(systems: dict, texts: dict, prompts: list, long_prompt: list, args: argparse.Namespace) -> dict:
    """Seconds by system and figure, one value per round (and prompt)."""
    times = {name: {} for name in systems}
    for round_ in range(args.rounds):
        for name in list(systems) if round_ % 2 == 0 else list(reversed(systems)):
            system, own = systems[name], times[name]
            if "prefill" in system.figures:
                own.setdefault("prefill", []).append(system.prefill_seconds(long_prompt))
            for prompt, text in zip(prompts, next(iter(texts.values())), strict=True):
                if "token" in system.figures:
                    own.setdefault("token", []).append(token_seconds(system, prompt, args.new_tokens))
                for rows in args.rows if "pass" in system.figures else []:
                    own.setdefault(f"pass of {rows}", []).append(system.pass_seconds(prompt, text, rows))
    return times


def report(times: dict, different: dict, args: argparse.Namespace) -> None:
    """One table per figure: median, spread, and how many times specmoe's bfloat16 it is."""
    for figure in times[BASE]:
        base = statistics.median(times[BASE][figure])
        print(f"\n{figure:24} {'median':>12} {'least':>12} {'most':>12} {'over specmoe bf16':>18}")
        for name, own in times.items():
            if figure not in own:
                continue
            values = [value * 1e6 for value in own[figure]]
            middle = statistics.median(values)
            ratio = middle * 1e-6 / base
            print(f"{name:24} {middle:9.1f} us {min(values):9.1f} us {max(values):9.1f} us {ratio:18.2f}")
    print(f"\nfirst token that differs from {next(iter(times))}, by prompt")
    for name, places in different.items():
        print(f"{name:24} {places}")
    if args.output:
        versions = {name: version(name) for name in ("torch", "transformers", "llama-cpp-python")}
        with args.output.open("a") as file:
            for name, own in times.items():
                line = {"benchmark": "peers", "model": args.folder.name, "system": name, "seconds": own}
                line |= {"first_difference": different[name], "versions": versions, "threads": args.threads}
                line |= {"provenance": provenance(args.device)}
                file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", type=Path, nargs="*", default=[], help="the same weights for llama-cpp-python")
    parser.add_argument("--drafter", help="adds speculative decoding with this drafter")
    parser.add_argument("--tree", default="chain(gamma=4)", help="its topology")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--rows", type=int, nargs="*", default=[2, 4, 8, 16], help="rows of the passes that are timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--static", action="store_true", help="adds transformers with a static cache, compiled")
    parser.add_argument("--no-transformers", action="store_true", help="leave transformers out: it is slow")
    parser.add_argument("--output", type=Path, help="JSON lines, one per system")
    args = parser.parse_args()
    if not (args.folder / "config.json").is_file():
        parser.error(f"{args.folder} has no config.json; give a Hugging Face folder")
    if missing := [file for file in args.gguf if not file.is_file()]:
        parser.error(f"{missing[0]} is no file; gguf_export.py writes one")
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()

    systems = open_systems(args)
    versions = {name: version(name) for name in ("torch", "transformers", "llama-cpp-python")}
    print(f"{args.folder.name}, {args.threads} threads, {platform.processor() or platform.machine()}; {versions}")

    vocab = transformers.AutoConfig.from_pretrained(args.folder).vocab_size
    random = np.random.default_rng(1)
    long_prompt = random.integers(3, vocab, PREFILL_TOKENS).tolist()
    if (args.folder / "tokenizer.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
        questions = [json.loads(line)["turns"][0] for line in PROMPTS.read_text().splitlines()[:QUESTIONS]]
        ids = [tokenizer(question)["input_ids"] for question in questions]
    else:
        ids = random.integers(3, vocab, (QUESTIONS, 32)).tolist()
    texts = {name: [system.decode(prompt, args.new_tokens) for prompt in ids] for name, system in systems.items()}
    different = {
        name: [first_difference(a, b) for a, b in zip(own, next(iter(texts.values())), strict=True)]
        for name, own in texts.items()
    }
    report(measure(systems, texts, ids, long_prompt, args), different, args)


if __name__ == "__main__":
    main()
