"""Prints what nvcc's assembler reports about every kernel as a Markdown table, and what the products keep in flight.

cmake --preset cuda && cmake --build build/cuda --target specmoe 2>&1 | tee build/cuda/ptxas.log
experiments/benchmarks/kernel_resources.py build/cuda/ptxas.log
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def short_name(mangled: str) -> str:
    """`linear_kernel<Bfloat16Weight, 2>` out of a mangled name."""
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = re.sub(r"\([\w:]+\)(?=\d)", "", name)  # the type of a number
    for noise in (
        "(anonymous namespace)::",
        "specmoe::kernels::cuda::",
        "specmoe::kernels::",
        "specmoe::cuda::",
        "void ",
    ):
        name = name.replace(noise, "")
    return name.split("(", 1)[0]


def read_log(text: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Kernel -> architecture -> registers, bytes spilled."""
    table: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    kernel = architecture = None
    spilled = 0
    for line in text.splitlines():
        if match := ENTRY.search(line):
            kernel, architecture = match.groups()
            kernel = None if "3cub" in kernel else kernel  # not ours
        elif match := SPILL.search(line):
            spilled = int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and kernel:
            table[kernel][architecture] = (int(match[1]), spilled)
            kernel = None
    return table


# Of one multiprocessor: registers, threads, shared memory that its blocks may have.
LIMITS = {"sm_80": (65536, 2048, 164 * 1024), "sm_90a": (65536, 2048, 228 * 1024)}
PRODUCT = re.compile(r"(linear|moe_up|moe_down)_kernel<\w+, (\d+)")
PRODUCT_THREADS = 256
BLOCK_AHEAD = 8 * 8 * 512  # kernels/cuda/panel_product.h: warps, tiles that each loads before it uses the first, bytes


def in_flight(kernel: str, architecture: str, registers: int) -> tuple[int, int, int] | None:
    """Shared memory of a block, blocks per multiprocessor, bytes of weights that these ask for at once."""
    if not (match := PRODUCT.match(kernel)):
        return None
    most_registers, most_threads, most_shared = LIMITS[architecture]
    shared = 4096 * int(match[2]) * (2 if match[1] == "moe_up" else 1)
    per_thread = (registers + 7) // 8 * 8
    blocks = min(
        most_registers // (per_thread * PRODUCT_THREADS),
        most_threads // PRODUCT_THREADS,
        most_shared // (shared + 1024),  # which every block has besides
    )
    return shared, blocks, blocks * BLOCK_AHEAD


def print_in_flight(table: dict[str, dict[str, tuple[int, int]]], architectures: list[str]) -> None:
    heads = "".join(f" {a}: blocks, KB in flight |" for a in architectures)
    print(f"\n| kernel | shared memory of a block |{heads}\n|---|---|" + "---|" * len(architectures))
    for kernel in sorted(table, key=short_name):
        name = short_name(kernel)
        found = [in_flight(name, a, table[kernel][a][0]) for a in architectures if a in table[kernel]]
        if found and found[0]:
            print(f"| `{name}` | {found[0][0]} |" + "".join(f" {f[1]}, {f[2] // 1024} |" for f in found))


def main() -> None:
    table = read_log(Path(sys.argv[1]).read_text())
    architectures = sorted({architecture for row in table.values() for architecture in row})
    print("| kernel |" + "".join(f" {a}: registers, spilled bytes |" for a in architectures))
    print("|---|" + "---|" * len(architectures))
    for kernel in sorted(table, key=short_name):
        cells = [table[kernel].get(a) for a in architectures]
        print(f"| `{short_name(kernel)}` |" + "".join(f" {c[0]}, {c[1]} |" if c else " - |" for c in cells))
    print_in_flight(table, architectures)


if __name__ == "__main__":
    main()
