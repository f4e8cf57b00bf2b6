"""Runs the commands of README.md that are followed by an output block and puts what they print there.

A block is the ```sh fence before `<!-- NAME-output -->`; what lies between that comment and `<!-- /NAME-output -->` is
replaced. Standard output only, as printed when it is no terminal. The block `proof` is a table made from
`specmoe prove --all --json`.

    .venv/bin/python experiments/update_readme.py [NAME]...     # default: all blocks
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(
    r"```sh\n(?P<command>[^`]+?)\n```\n\n<!-- (?P<name>\w+)-output -->\n(?P<old>.*?)<!-- /(?P=name)-output -->",
    re.DOTALL,
)


PROOF = re.compile(r"(?<=<!-- proof-table -->\n).*?(?=<!-- /proof-table -->)", re.DOTALL)
LAWS = ("deterministic", "iid", "without_replacement", "top_plus_sampled", "multi_drafter")


def proof_table(matrix: dict) -> str:
    """Policies × draft laws as Markdown: tokens per target pass where lossless, else the distance, on the golden toy."""
    columns = [("chain(3)", "iid"), *(("expansion(2,2)", law) for law in LAWS)]
    cells = {(cell["policy"], cell["tree"], cell["law"]): cell for cell in matrix["cells"]}

    def text(policy: str, tree: str, law: str) -> str:
        cell = cells[policy, tree, law]
        if cell["outcome"] == "refused":
            return "-"
        if cell["outcome"] == "biased":
            return f"*{cell['tvd']:.3f}*"
        value = f"{cell['expected_tokens']:.3f}"
        return f"**{value}**" if cell["declared"] else value

    policies = sorted({policy for policy, _, _ in cells})
    head = "| | " + " | ".join(f"`{tree}` {law}" for tree, law in columns) + " |\n" + "|---" * 7 + "|\n"
    rows = (
        f"| `{policy}` | " + " | ".join(text(policy, *column) for column in columns) + " |\n" for policy in policies
    )
    bounds = (next(c["bound"] for c in matrix["cells"] if (c["tree"], c["law"]) == column and c["bound"])
              for column in columns)  # fmt: skip
    return head + "".join(rows) + "| no policy can exceed | " + " | ".join(f"{bound:.3f}" for bound in bounds) + " |\n"


def run(command: str) -> str:
    """Standard output of a command that must succeed, trailing blanks removed."""
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").split("\n"))


def shortened(output: str) -> str:
    """Of several decoded texts the first, so that the table stays on the first screen."""
    return re.sub(r"^== 2 ==$.*?(?=^target )", "[texts 2 and on left out]\n\n", output, flags=re.DOTALL | re.MULTILINE)


def updated(text: str, names: list[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if names and match["name"] not in names:
            return match[0]
        head = match[0][: match.start("old") - match.start()]
        tail = match[0][match.end("old") - match.start() :]
        return f"{head}```text\n{shortened(run(match['command']))}\n```\n{tail}"

    known = [match["name"] for match in BLOCK.finditer(text)] + ["proof"]
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"README.md has no output block {', '.join(unknown)}; it has {', '.join(known)}")
    if not names or "proof" in names:
        table = proof_table(json.loads(run("build/cpu/specmoe prove --all --json")))
        text = PROOF.sub(lambda _: table, text)
    return BLOCK.sub(replace, text)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(), sys.argv[1:]))
