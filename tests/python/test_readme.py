"""What README.md and CONTRIBUTING.md show is run, compiled and compared with the registry."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "cpu"
PROGRAM = BUILD / "specmoe"
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def run(*command: str | Path, **variables: str) -> str:
    """Standard output of a command that must succeed, from the root of the checkout."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("snippet", fences(README, "python"))
def test_python_snippet_runs(snippet):
    assert run(sys.executable, "-c", snippet).strip()


def test_policy_in_python_is_proved_and_decodes():
    (snippet,) = fences(CONTRIBUTING, "python")
    assert "LOSSLESS" in run(sys.executable, "-c", snippet)
    wrong = snippet.replace("choose(residual)", "choose(p)")
    assert wrong != snippet and "BIASED" in run(sys.executable, "-c", wrong)


@pytest.mark.parametrize("snippet", [block for block in fences(README, "sh") if "build/cpu/specmoe" in block])
def test_command_runs(snippet):
    assert run("bash", "-c", snippet).strip()


def test_every_path_exists():
    """Links and ./paths name files of the checkout."""
    named = re.findall(r"\]\((?!https?://)([^)#]+)\)", README + CONTRIBUTING)
    named += re.findall(r"(?<![\w/])\./([\w./-]+)", README + CONTRIBUTING)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


LISTING = """
import json, specmoe
kinds = {"drafter": specmoe.drafters, "topology": specmoe.tree_policies, "policy": specmoe.acceptance_policies}
print(json.dumps({kind: sorted(names()) for kind, names in kinds.items()}))
"""


def table(head: str) -> dict[str, str]:
    """The README's table of one kind of plug-in: name -> row."""
    found = re.search(rf"^\| {head} \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no table of {head}"
    return dict(re.findall(r"^\| `(\w+)` \|(.*)$", found[0], re.MULTILINE))


def test_tables_list_every_plugin():
    # A process of its own: other tests register plug-ins written in Python.
    registered = json.loads(run(sys.executable, "-c", LISTING))
    assert {kind: sorted(table(kind)) for kind in registered} == registered


def test_table_says_which_policies_are_lossy():
    listed = run(PROGRAM, "list").split("--accept\n")[1]
    lossy = re.findall(r"^  (\w+) +LOSSY", listed, re.MULTILINE)
    assert sorted(name for name, row in table("policy").items() if "nothing" in row) == sorted(lossy)


@pytest.fixture(scope="module")
def example_policy(tmp_path_factory) -> Path:
    """The policy that CONTRIBUTING.md spells out, as a shared library."""
    source = re.search(r"<!-- example: verify/threshold.cpp -->\n```cpp\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert source
    assert len(source[1].splitlines()) < 60
    folder = tmp_path_factory.mktemp("policy")
    file, library = folder / "threshold.cpp", folder / "threshold.so"
    file.write_text(source[1])
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", f"-I{ROOT}"]
    run(os.environ.get("CXX", "g++"), *flags, file, f"-L{BUILD}", "-lspecmoe", f"-Wl,-rpath,{BUILD}", "-o", library)
    return library


def test_example_policy_registers(example_policy):
    row = re.compile(r"^  threshold +LOSSY.*\n    least +=", re.MULTILINE)
    assert row.search(run(PROGRAM, "list", LD_PRELOAD=str(example_policy)))
    assert not row.search(run(PROGRAM, "list"))


def test_example_policy_decodes(example_policy):
    prompts = ROOT / "experiments/models/prompts/quickstart.jsonl"
    command = [PROGRAM, "generate", "--target", "experiments/models/target", "--drafter", "ngram", "--prompts", prompts]
    command += ["--max-new-tokens", "8", "--quiet", "--accept", "threshold(least=0.5)", "--allow-lossy"]
    assert run(*command, LD_PRELOAD=str(example_policy)).strip()


def test_example_policy_is_proved_and_benchmarked(example_policy):
    proof = [PROGRAM, "prove", "--accept", "threshold(least=0.5)", "--tree", "chain(2)"]
    done = subprocess.run(
        proof, cwd=ROOT, env={**os.environ, "LD_PRELOAD": str(example_policy)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "BIASED" in done.stdout and "counter-example" in done.stdout
    prompts = ROOT / "experiments/models/prompts/quickstart.jsonl"
    bench = [PROGRAM, "bench", "--target", "experiments/models/target", "--drafter", "ngram", "--prompts", prompts]
    bench += ["--max-new-tokens", "8", "--quiet", "--accept", "greedy,threshold(least=0.5)", "--allow-lossy"]
    assert "threshold(least=0.5)" in run(*bench, LD_PRELOAD=str(example_policy))
