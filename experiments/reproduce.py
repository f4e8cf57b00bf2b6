"""Runs reproductions of experiments/paper, prints a verdict for each claim, and writes the report."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAPER = HERE / "paper"
sys.path.insert(0, str(PAPER))

import report  # noqa: E402
from study import Change, Study  # noqa: E402

import specmoe  # noqa: E402

EPILOG = """Each reproduction is a folder of experiments/paper. Measurements are kept in DIR/NAME as they are made
(cells.jsonl, rows.jsonl) and are not made again when the same command runs after an interruption; tables (CSV), plots (PNG)
and the page DIR/index.html are written anew. Exit code: 0 when everything ran, whatever the verdicts; 1 when a reproduction
broke; 2 for a mistake in the call."""


def known() -> dict[str, str]:
    """Reproductions by name, in order of their ids."""
    found = {path.parent.name: json.loads(path.read_text())["id"] for path in PAPER.glob("*/study.json")}
    return dict(sorted(found.items(), key=lambda item: (-ord(item[1][0]), int(item[1][1:]))))  # R1, R2, .., then A1


def parse() -> argparse.Namespace:
    names = known()
    parser = argparse.ArgumentParser(prog="experiments/reproduce.sh", description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all (default), or some of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small versions of all, under three minutes on 2 cores")
    parser.add_argument("--output", type=Path, help="folder for results [results/reproduce, with --quick .../quick]")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", dest="changes",
                        help="changes a setting of study.json in every reproduction named that has it, such as "
                        "upcycled.target=FOLDER or bench.max-new-tokens=32; VALUE is JSON or a text")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="throw earlier measurements of these reproductions away")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name != "all" and name not in names]
    if unknown:
        parser.exit(2, f"reproduce: no reproduction '{unknown[0]}'; known: {', '.join(names)}, all\n")
    if not arguments.names or "all" in arguments.names:
        arguments.names = list(names)
    if arguments.output is None:
        arguments.output = HERE.parent / "results" / ("quick" if arguments.quick else "reproduce")
    try:
        arguments.changes = [Change.parse(text, arguments.names) for text in arguments.changes]
        arguments.output.mkdir(parents=True, exist_ok=True)
    except specmoe.Error as error:
        parser.exit(2, f"reproduce: {error}\n")
    except OSError as error:
        parser.exit(2, f"reproduce: --output: cannot use '{arguments.output}': {error.strerror}; give a folder\n")
    return arguments


def run_one(name: str, arguments: argparse.Namespace) -> bool:
    """One reproduction; False when it broke."""
    if arguments.fresh:
        shutil.rmtree(arguments.output / name, ignore_errors=True)
    try:
        study = Study.open(name, arguments.output, arguments.quick, arguments.changes)
        spec = importlib.util.spec_from_file_location(f"paper_{name}", PAPER / name / "study.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        script.run(study)
    except specmoe.Error as error:
        print(f"  BROKEN: {error}", flush=True)
        return False
    except Exception as error:  # the others go on
        traceback.print_exc()
        print(f"  BROKEN: {type(error).__name__}: {error}", flush=True)
        return False
    study.save()
    for verdict in study.verdicts:
        print(f"  {verdict.line()}", flush=True)
    return True


def main() -> int:
    arguments = parse()
    ids = known()
    begin, broken = time.monotonic(), []
    for number, name in enumerate(arguments.names, 1):
        print(f"[{number}/{len(arguments.names)}] {ids[name]} {name}", flush=True)
        started, worked = time.monotonic(), time.process_time()
        if not run_one(name, arguments):
            broken.append(name)
        spent = time.monotonic() - begin
        left = spent / number * (len(arguments.names) - number)
        own = f"{time.monotonic() - started:.0f} s, {time.process_time() - worked:.0f} s of them at work"
        print(f"  {own}; about {left:.0f} s left", file=sys.stderr, flush=True)
    told = [name for name in ids if (arguments.output / name / "study.json").exists() and name not in broken]
    try:
        if told:
            print(f"report: {report.write(arguments.output, told)}")
    except specmoe.Error as error:
        print(f"no report: {error}", file=sys.stderr)
        return 1
    if broken:
        print(f"broken, and not in the report: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
