"""Prints what nvcc's assembler reports about every kernel as a Markdown table.

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
    for noise in (
        "(anonymous namespace)::",
        "(int)",
        "(specmoe::cuda::DeviceRule)",
        "specmoe::kernels::cuda::",
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
        elif match := SPILL.search(line):
            spilled = int(match[2]) + int(match[3])
        elif (match := USED.search(line)) and kernel:
            table[kernel][architecture] = (int(match[1]), spilled)
            kernel = None
    return table


def main() -> None:
    table = read_log(Path(sys.argv[1]).read_text())
    architectures = sorted({architecture for row in table.values() for architecture in row})
    print("| kernel |" + "".join(f" {a}: registers, spilled bytes |" for a in architectures))
    print("|---|" + "---|" * len(architectures))
    for kernel in sorted(table, key=short_name):
        cells = [table[kernel].get(a) for a in architectures]
        print(f"| `{short_name(kernel)}` |" + "".join(f" {c[0]}, {c[1]} |" if c else " - |" for c in cells))


if __name__ == "__main__":
    main()
