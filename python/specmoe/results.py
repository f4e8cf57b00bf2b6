"""Grids of measurements, and the files they are kept in."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _specmoe

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
"""Version of the result lines that this package reads."""


def sweep(config: Mapping[str, Any] | str | os.PathLike[str], **flags: Any) -> pandas.DataFrame:
    """Measures a grid as `specmoe bench` does, in this process, and returns one row per cell, as load_results() does.

    config  flags of `specmoe bench` by name, or the path of a JSON file of them; drafter, tree, accept, temperature,
            batch, dtype and category take lists, and every combination is a cell
    flags   more of them, which win: max_new_tokens=64
    With `cells`, each cell is appended to that file as soon as it is measured, and the same call goes on there after an
    interruption. Plug-ins that were registered in Python take part. Progress goes to sys.stderr unless quiet. Raises Error for settings that cannot be run, or when no cell can.
    """
    return to_frame([json.loads(line) for line in _specmoe._sweep(*flags_of("sweep", config, flags))])


def tune(config: Mapping[str, Any] | str | os.PathLike[str] | None = None, **flags: Any) -> pandas.DataFrame:
    """Finds the tree that pays most for a target, a drafter and a kind of text, as `specmoe tune` does, in this process.

    config  flags of `specmoe tune` by name, or the path of a JSON file of them
    flags   more of them, which win: max_new_tokens=64
    Returns one row per tree that ran, as load_results() does: the chains and stars that the model of their speed was
    fitted to, then the best that it found and those of `tree`. `predicted.tau`, `predicted.verify_cost_ratio` and
    `predicted.tokens_per_s_ratio` are what was expected, missing for trees that grow by what they see where they cannot
    be replayed: above temperature 0, for a lossy policy, and for a drafter that goes by more than the text. Plug-ins that
    were registered in Python take part. Raises Error for settings that cannot be run, or when plain decoding or a chain
    cannot.
    """
    return to_frame([json.loads(line) for line in _specmoe._tune(*flags_of("tune", config or {}, flags))])


def flags_of(
    where: str, config: Mapping[str, Any] | str | os.PathLike[str], flags: Mapping[str, Any]
) -> tuple[str, str]:
    """All flags as JSON, and how errors name where they come from."""
    if isinstance(config, str | os.PathLike):
        where = f"{where}: '{os.fspath(config)}'"
        config = read_config(Path(config))
    settings = {**config, **{name.replace("_", "-"): value for name, value in flags.items()}}
    if "config" in settings:
        raise _specmoe.Error(f"{where}: 'config' inside a config; give one of them")
    paths = {name: os.fspath(value) for name, value in settings.items() if isinstance(value, os.PathLike)}
    try:
        text = json.dumps({**settings, **paths})
    except (TypeError, ValueError) as error:
        raise _specmoe.Error(f"{where}: {error}; flags are texts, numbers, true or false, and lists of these") from None
    os.environ.setdefault("SPECMOE_PYTHON", sys.executable)  # `chat` renders in a process of its own
    return text, where


def load_results(*paths: str | os.PathLike[str]) -> pandas.DataFrame:
    """Reads result files of `specmoe bench` (--cells or --output) or sweep(): one row per cell.

    Columns are the fields of a line; those of nested objects are joined with a dot (`counts.steps`), and `speedup` is
    the median over prompts, with `speedup_low` and `speedup_high`; `tokens_per_s_ratio` is the speed over plain
    decoding's, all texts together. `file` and `line` say where a row comes from; a cell that failed has its `error` and
    no figures. Rows of single answers are left out. A half-written last line is dropped with a warning. Raises Error
    for anything else that is no result line of this version, and for files without a cell.
    """
    if not paths:
        raise _specmoe.Error("load_results: give one result file or more")
    rows = [row for path in paths for row in read_cells(Path(path))]
    return to_frame(rows)


def read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _specmoe.Error(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise _specmoe.Error(f"'{path}' is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise _specmoe.Error(f"'{path}' must hold one JSON object of flags")
    return config


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of one file, each with where it stands."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise _specmoe.Error(f"cannot read '{path}': {error.strerror}") from None
    whole, _, rest = text.rpartition("\n")
    lines = whole.split("\n")
    cells = []
    for number, line in enumerate(lines, 1):
        row = parse_line(line, f"{path}, line {number}") if line.strip() else {}
        if row.get("kind") in ("summary", "failed"):
            cells.append({**row, "file": str(path), "line": number})
    if rest:
        warnings.warn(f"{path}: dropped a half-written last line ({len(rest)} characters)", stacklevel=3)
    if not cells:
        raise _specmoe.Error(f"{path}: no cell in it; expected a file that `specmoe bench` or sweep() wrote")
    return cells


def parse_line(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise _specmoe.Error(f"{where}: not a line of JSON; mend or remove it") from None
    if not isinstance(row, dict) or "kind" not in row:
        raise _specmoe.Error(f"{where}: not a result line; expected a file that `specmoe bench` or sweep() wrote")
    if row.get("schema") != SCHEMA:
        raise _specmoe.Error(
            f"{where}: written in version {row.get('schema')} of the format, this package reads {SCHEMA}"
        )
    return row


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def to_frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError:
        raise _specmoe.Error("results are pandas data frames: pip install pandas") from None
    names = {"speedup.median": "speedup", "speedup.low": "speedup_low", "speedup.high": "speedup_high"}
    frame = pandas.DataFrame([flatten(row) for row in rows]).rename(columns=names)
    if "speculative_tokens_per_s" in frame:  # not where every cell failed
        frame["tokens_per_s_ratio"] = frame["speculative_tokens_per_s"] / frame["plain_tokens_per_s"]
    return frame
