"""Prints architecture x mode x result from the JUnit report of the parity tests.

.venv/bin/python tests/parity_matrix.py build/cpu/parity.xml
"""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

MODELS = Path(__file__).parent / "golden" / "models"
MODES = {
    "Parity.Whole": "whole",
    "Parity.Chunks": "chunks",
    "Parity.OneByOne": "one by one",
    "Parity.TreeBlocks": "tree blocks",
    "Parity.AfterRollback": "rollback",
    "Parity.GreedyText": "64 greedy",
    "Parity.SpeculativeText": "speculative",
    "Invariance": "T-invariance",
    "Mutation": "mutations",
}


def architectures() -> dict[str, str]:
    """model_type by case, longer names first: a test's name may go on behind the case."""
    cases = {path.parent.name: json.loads(path.read_text())["model_type"] for path in MODELS.glob("*/config.json")}
    return dict(sorted(cases.items(), key=lambda item: -len(item[0])))


def results(report: str) -> dict[tuple[str, str], list[bool]]:
    """Whether each test passed, by architecture and mode."""
    kinds = architectures()
    found = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        parts = re.match(r"Models/(\w+)\.(\w+)/(\w+)", case.get("name", ""))
        if parts is None:
            continue
        suite, test, parameter = parts.groups()
        mode = MODES.get(f"{suite}.{test}") or MODES.get(suite)
        kind = next((kinds[name] for name in kinds if parameter.startswith(name)), None)
        if mode and kind:
            found[kind, mode].append(case.get("status") == "run" and case.find("failure") is None)
    return found


def cell(passed: list[bool]) -> str:
    if not passed:
        return "-"
    return f"{len(passed)} ok" if all(passed) else f"{passed.count(False)} of {len(passed)} FAILED"


def main() -> None:
    found = results(sys.argv[1])
    modes = list(MODES.values())
    rows = [["architecture", *modes]]
    for kind in sorted({kind for kind, _ in found}):
        rows.append([kind, *(cell(found.get((kind, mode), [])) for mode in modes)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")


if __name__ == "__main__":
    main()
