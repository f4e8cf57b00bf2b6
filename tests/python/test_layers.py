"""The layer table of CONTRIBUTING.md, enforced on the #includes of every C++ and CUDA file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}

# What each layer may include, by the longest matching folder. Plug-in folders never include one another.
ALLOWED = {
    "kernels": {"kernels"},
    "core": {"core", "kernels"},
    "core/nn": {"core", "core/nn", "kernels"},
    "tree": {"tree", "core", "core/nn", "kernels"},
    "draft": {"draft", "core", "core/nn", "kernels"},
    "verify": {"verify", "core", "core/nn", "kernels"},
    "core/step": {"core/step", "tree", "draft", "verify", "core", "core/nn", "kernels"},
}
# These stand above all layers and may include anything; the layers may include none of them.
ABOVE = {"python", "experiments", "tests"}

TORCH = re.compile(r"^(torch|ATen|c10)/")
TORCH_ALLOWED = re.compile(r"^core/nn/reference[^/]*\.cpp$")
# kernels/ are the standard library, the compiler's intrinsics and CUDA; nothing to install.
KERNEL_FOREIGN = re.compile(r"^(Eigen|boost|nlohmann|pybind11|gtest)/|^oniguruma\.h$|^Python\.h$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.MULTILINE)


def layer(path: str) -> str | None:
    """The layer that a path from the repository root belongs to."""
    for inner in ("core/nn", "core/step"):
        if path.startswith(inner + "/"):
            return inner
    top = path.split("/")[0]
    return top if top in ALLOWED or top in ABOVE else None


def violations(files: dict[str, str]) -> list[str]:
    """One line for each include in `files` (path from the root -> text) that the table does not allow."""
    found = []
    for path, text in files.items():
        own = layer(path)
        for quote, target in INCLUDE.findall(text):
            if TORCH.match(target) and not TORCH_ALLOWED.match(path):
                found.append(f"{path}: <{target}>: torch belongs in core/nn/reference*.cpp")
            elif quote == "<":
                if own == "kernels" and KERNEL_FOREIGN.match(target):
                    found.append(f"{path}: <{target}>: kernels/ use the standard library and CUDA only")
            elif target not in files:
                found.append(f'{path}: "{target}": no such file; includes start at the repository root')
            elif own in ALLOWED and layer(target) not in ALLOWED[own]:
                found.append(f'{path}: "{target}": {own}/ may include {", ".join(sorted(ALLOWED[own]))}')
    return found


def checkout() -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for top in sorted({name.split("/")[0] for name in ALLOWED} | ABOVE)
        for path in sorted((ROOT / top).rglob("*"))
        if path.suffix in SUFFIXES
    }


def test_checkout_keeps_to_the_table():
    files = checkout()
    assert len(files) > 40, "the layer folders were not found"
    assert violations(files) == []


BASE = {
    "kernels/a.h": "",
    "core/b.h": "",
    "core/nn/c.h": "",
    "tree/d.h": "",
    "draft/e.h": "",
    "verify/f.h": "",
    "core/step/g.h": "",
}


@pytest.mark.parametrize(
    ("path", "include"),
    [
        ("kernels/x.cpp", '"core/b.h"'),
        ("kernels/cpu/x.cpp", '"tree/d.h"'),
        ("kernels/x.cpp", "<Eigen/Dense>"),
        ("kernels/x.h", "<torch/torch.h>"),
        ("core/x.cpp", '"core/nn/c.h"'),
        ("core/x.cpp", '"verify/f.h"'),
        ("core/nn/x.cpp", '"draft/e.h"'),
        ("core/nn/reference.h", "<torch/torch.h>"),
        ("core/nn/transformer.cpp", "<ATen/ATen.h>"),
        ("tree/x.cpp", '"draft/e.h"'),
        ("draft/x.cpp", '"verify/f.h"'),
        ("verify/x.cpp", '"tree/d.h"'),
        ("verify/x.cpp", '"core/step/g.h"'),
        ("core/nn/x.cpp", '"core/step/g.h"'),
        ("verify/x.cpp", '"f.h"'),
        ("core/x.cpp", '"../kernels/a.h"'),
        ("python/x.cpp", "<torch/extension.h>"),
    ],
)
def test_a_wrong_include_is_reported(path, include):
    assert len(violations({**BASE, path: f"#pragma once\n  #  include {include}\n"})) == 1


@pytest.mark.parametrize(
    ("path", "include"),
    [
        ("kernels/x.cpp", '"kernels/a.h"'),
        ("kernels/x.cpp", "<immintrin.h>"),
        ("core/x.cpp", '"kernels/a.h"'),
        ("core/nn/x.cpp", '"core/b.h"'),
        ("core/nn/reference_model.cpp", "<torch/torch.h>"),
        ("draft/x.cpp", '"core/nn/c.h"'),
        ("tree/x.cpp", '"tree/d.h"'),
        ("core/step/x.cpp", '"verify/f.h"'),
        ("tests/core/x.cpp", '"verify/f.h"'),
    ],
)
def test_a_right_include_passes(path, include):
    assert violations({**BASE, path: f"#include {include}\n"}) == []
