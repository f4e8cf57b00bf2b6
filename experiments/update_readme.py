"""Runs the commands of README.md that are followed by an output block and puts what they print there.

A block is the ```sh fence before `<!-- NAME-output -->`; what lies between that comment and `<!-- /NAME-output -->` is
replaced. Standard output only, as printed when it is no terminal.

    .venv/bin/python experiments/update_readme.py [NAME]...     # default: all blocks
"""

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

    known = [match["name"] for match in BLOCK.finditer(text)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"README.md has no output block {', '.join(unknown)}; it has {', '.join(known)}")
    return BLOCK.sub(replace, text)


if __name__ == "__main__":
    README.write_text(updated(README.read_text(), sys.argv[1:]))
