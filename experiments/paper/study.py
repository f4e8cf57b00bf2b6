"""What every reproduction shares: resumable measurements, verdicts, tables, plots.

A reproduction is a folder with `study.json` (title, claim, source, what is expected, tolerance, settings; `quick` holds
what differs under --quick) and `study.py`, whose run(study) measures and gives verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _specmoe
import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt  # noqa: E402
import pandas  # noqa: E402
from PIL import Image  # noqa: E402

import specmoe  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAPER = Path(__file__).resolve().parent
SCHEMA = 1

THEMES = {
    "light": {"text": "#1f2328", "face": "#ffffff", "grid": "#d0d7de"},
    "dark": {"text": "#e6edf3", "face": "#161b22", "grid": "#3d444d"},
}
CYCLE = ["#3b82f6", "#ef7d3b", "#22a06b", "#c2559d", "#b8860b", "#6b7fd7", "#8a8f98", "#d64545"]

LOCAL_MODELS = {"experiments/models/smollm2", "experiments/models/upcycled"}
REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "REPRODUCED", "NOT REPRODUCED", "NOT MEASURED"


@dataclass
class Verdict:
    """One claim judged. rows: where its figures stand, `file:line`."""

    claim: str
    outcome: str
    figure: str
    expected: str
    why: str
    rows: list[str]

    def line(self) -> str:
        return f"{self.outcome}: {self.claim}: {self.figure} (expected {self.expected}). {self.why}"


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]
    sources: list[str]  # of each row, `file:line`; '' for a row that is computed from its neighbours


@dataclass
class Plot:
    name: str
    caption: str


@dataclass
class Study:
    """One run of one reproduction into its own folder."""

    name: str
    folder: Path
    quick: bool
    config: dict[str, Any]
    digest: str  # of the configuration, the script, and the models and prompts: a change of any measures anew
    verdicts: list[Verdict] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])  # processes that wanted a core when it started
    _rows: dict[str, tuple[int, dict]] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, name: str, output: Path, quick: bool, changes: list[Change]) -> Study:
        source = PAPER / name
        config = json.loads((source / "study.json").read_text(encoding="utf-8"))
        small = config.pop("quick", {})
        if quick:
            config = merged(config, small)
        for change in changes:
            change.apply(config)
        script = (source / "study.py").read_text(encoding="utf-8")
        digest = hashlib.sha256(json.dumps([config, script, files_of(json.dumps(config))]).encode()).hexdigest()[:16]
        study = cls(name, output / name, quick, config, digest)
        try:
            study.folder.mkdir(parents=True, exist_ok=True)
            study._read_rows()
        except OSError as error:
            raise specmoe.Error(f"cannot use '{error.filename}': {error.strerror}") from None
        return study

    # ---- measuring ----

    def sweep(self, part: str = "bench", **changes: Any) -> pandas.DataFrame:
        """The grid in config[part], one row per cell, each with `source`. A failed cell is an error here."""
        path = self.folder / "cells.jsonl"
        before = os.getcwd()
        os.chdir(ROOT)  # paths in configurations start at the repository
        try:
            frame = specmoe.sweep({"quiet": True, **self.config[part]}, cells=path.resolve(), **changes)
        finally:
            os.chdir(before)
        lines = specmoe.load_results(path).drop_duplicates("cell").set_index("cell")["line"]
        frame["source"] = [f"cells.jsonl:{lines[cell]}" for cell in frame["cell"]]
        failed = frame[frame["kind"] == "failed"]
        if len(failed):
            first = failed.iloc[0]
            name = f"{first['drafter']} {first['tree']} {first['acceptance']}"
            raise specmoe.Error(
                f"{name}: {first['error']} ({path}, line {lines[first['cell']]}: remove it to try again)"
            )
        self.provenance = self.provenance or only_provenance(frame.iloc[0])
        return frame

    def row(self, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """compute()'s values under a key, kept in rows.jsonl: what is there already is not computed again."""
        name = json.dumps([self.digest, key], sort_keys=True)
        if name in self._asked:
            raise specmoe.Error(f"two measurements of {self.name} have the key {json.dumps(key)}; give each its own")
        self._asked.add(name)
        if name not in self._rows:
            line = {"kind": "measurement", "schema": SCHEMA, "study": self.name, "digest": self.digest}
            line |= {"key": dict(key), "values": dict(compute()), "provenance": json.loads(_specmoe._provenance_json())}
            self._append(name, line)
        number, line = self._rows[name]
        self.provenance = self.provenance or line["provenance"]
        return {**line["key"], **line["values"], "source": f"rows.jsonl:{number}"}

    def _append(self, name: str, line: dict) -> None:
        with (self.folder / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines += 1
        self._rows[name] = (self._lines, json.loads(json.dumps(line)))

    def _read_rows(self) -> None:
        """Takes what an earlier run left; a half-written last line goes."""
        path, self._lines = self.folder / "rows.jsonl", 0
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            print(f"{path}: dropped a half-written last line")
            os.truncate(path, len(whole.encode()))
        for number, line in enumerate(whole.splitlines(), 1):
            self._lines = number
            try:
                row = json.loads(line)
                version, name = row["schema"], json.dumps([row["digest"], row["key"]], sort_keys=True)
            except (ValueError, KeyError, TypeError):
                raise specmoe.Error(f"{path}, line {number}: not a line of a reproduction; mend or remove it") from None
            if version != SCHEMA:
                raise specmoe.Error(f"{path}, line {number}: version {version} of the format, this reads {SCHEMA}")
            self._rows[name] = (number, row)

    # ---- telling ----

    def verdict(self, claim: str, holds: bool | None, figure: str, expected: str, why: str, rows: list[str]) -> None:
        """holds: None when it could not be measured here."""
        outcome = NOT_MEASURED if holds is None else REPRODUCED if holds else NOT_REPRODUCED
        self.verdicts.append(Verdict(claim, outcome, figure, expected, why, list(dict.fromkeys(rows))))

    def table(self, title: str, frame: pandas.DataFrame, columns: Mapping[str, str]) -> None:
        """columns: field -> heading. A field `source` says where a row comes from."""
        sources = frame["source"].to_list() if "source" in frame else [""] * len(frame)
        cells = [[text_of(value) for value in row] for row in frame[list(columns)].itertuples(index=False)]
        self.tables.append(Table(title, list(columns.values()), cells, sources))

    def plot(
        self, name: str, caption: str, draw: Callable[[Any], None], size: tuple[float, float] = (5.4, 3.6)
    ) -> None:
        """draw(axes) puts marks, labels and units on one panel; it is called once for each theme."""
        for theme, colours in THEMES.items():
            with plt.rc_context(rc_of(colours)):
                figure, axes = plt.subplots(figsize=size, layout="constrained")
                draw(axes)
                axes.grid(True, linewidth=0.6)
                axes.spines[["top", "right"]].set_visible(False)
                path = self.folder / f"{name}.{theme}.png"
                figure.savefig(path, dpi=170)
                Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)  # a third of the bytes
                plt.close(figure)
        self.plots.append(Plot(name, caption))

    def save(self) -> None:
        """The tables as CSV and everything that was said as JSON, which the report is made from."""
        for number, table in enumerate(self.tables, 1):
            frame = pandas.DataFrame(table.rows, columns=table.columns)
            frame["source"] = table.sources
            frame.to_csv(self.folder / f"table{number}.csv", index=False)
        said = {
            "schema": SCHEMA, "name": self.name, "quick": self.quick, "config": self.config, "provenance": self.provenance,
            "load": [self.load, os.getloadavg()[0]],
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "tables": [asdict(table) for table in self.tables], "plots": [asdict(plot) for plot in self.plots],
        }  # fmt: skip
        replace(self.folder / "study.json", json.dumps(said, indent=1) + "\n")


@dataclass
class Change:
    """A setting that a call replaces: the names on the way to it, and the value."""

    path: list[str]
    value: Any

    @classmethod
    def parse(cls, text: str, names: list[str]) -> Change:
        """Of `bench.batch=4`; some reproduction of these names must have the setting."""
        setting, equals, value = text.partition("=")
        try:
            change = cls(setting.split("."), json.loads(value))
        except ValueError:
            change = cls(setting.split("."), value)
        configs = [json.loads((PAPER / name / "study.json").read_text(encoding="utf-8")) for name in names]
        if not equals or not any(map(change.apply, configs)):
            raise specmoe.Error(f"--set: '{text}': none of {', '.join(names)} has a setting '{setting}'; NAME=VALUE")
        return change

    def apply(self, config: dict[str, Any]) -> bool:
        """Whether the configuration has the setting."""
        *way, last = self.path
        for name in way:
            config = config.get(name)
            if not isinstance(config, dict):
                return False
        if last not in config:
            return False
        config[last] = self.value
        return True


def replace(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def files_of(config: str) -> dict[str, str]:
    """What a configuration reads of the repository, by name, and a digest of its content.

    Models that are fetched or made locally are read by grids alone, whose cells name their weights: with or without them
    the other measurements stay what they are.
    """
    named = set(re.findall(r"experiments/[\w./-]+", config)) - LOCAL_MODELS
    return {name: _specmoe._fingerprint(str(ROOT / name)) for name in sorted(named) if (ROOT / name).exists()}


def merged(base: dict, changes: dict) -> dict:
    result = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


def only_provenance(row: pandas.Series) -> dict[str, Any]:
    prefix = "provenance."
    fields = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
    return {name: plain(value) for name, value in fields.items() if not name.startswith("config.")}


def plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def text_of(value: Any) -> str:
    value = plain(value)
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rc_of(colours: dict[str, str]) -> dict[str, Any]:
    text, face = colours["text"], colours["face"]
    return {
        "figure.facecolor": face, "axes.facecolor": face, "savefig.facecolor": face, "text.color": text,
        "axes.labelcolor": text, "axes.edgecolor": text, "xtick.color": text, "ytick.color": text,
        "grid.color": colours["grid"], "legend.facecolor": face, "legend.edgecolor": colours["grid"],
        "legend.framealpha": 0.9, "axes.prop_cycle": plt.cycler(color=CYCLE), "font.size": 10, "lines.markersize": 5,
    }  # fmt: skip
