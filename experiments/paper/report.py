"""The report: one page without anything from outside, from the study.json files of a result folder."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from study import SCHEMA, replace

import specmoe

STYLE = """
:root{color-scheme:light dark;--text:#1f2328;--soft:#59636e;--face:#fff;--panel:#f6f8fa;--line:#d0d7de;--good:#1a7f37;
--bad:#b42318;--none:#8a6100;--link:#0a58ca}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9aa4af;--face:#0d1117;--panel:#161b22;--line:#3d444d;
--good:#4cc26a;--bad:#ff7b72;--none:#e3b341;--link:#79b8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--face);color:var(--text);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.25rem;margin:2.5rem 0 .3rem;border-top:1px solid var(--line);
padding-top:1rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
a{color:var(--link)}.soft{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto;margin:.4rem 0}table{border-collapse:collapse;font-size:.85rem;min-width:100%}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:normal}
th{background:var(--panel)}th.number{text-align:right}td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.source,.source{color:var(--soft);font-size:.75rem;white-space:nowrap}
.summary{list-style:none;margin:0;padding:0;font-size:.9rem}
.summary li{display:grid;grid-template-columns:2.2rem 10.5rem 1fr;gap:.2rem .6rem;border-bottom:1px solid var(--line);
padding:.35rem 0}
@media(max-width:40rem){.summary li{grid-template-columns:2.2rem 1fr}.summary li>:last-child{grid-column:1/-1}}
.verdict{background:var(--panel);border-left:4px solid var(--line);padding:.5rem .8rem;margin:.5rem 0}
.REPRODUCED{border-color:var(--good)}.NOT_REPRODUCED{border-color:var(--bad)}.NOT_MEASURED{border-color:var(--none)}
.outcome{font-weight:700;white-space:nowrap}.REPRODUCED .outcome,.outcome.REPRODUCED{color:var(--good)}
.NOT_REPRODUCED .outcome,.outcome.NOT_REPRODUCED{color:var(--bad)}
.NOT_MEASURED .outcome,.outcome.NOT_MEASURED{color:var(--none)}
img{max-width:100%;height:auto;display:block;border:1px solid var(--line);border-radius:6px}
figure{margin:1rem 0}figcaption{color:var(--soft);font-size:.85rem}
pre{background:var(--panel);padding:.7rem;overflow-x:auto;font-size:.75rem;white-space:pre}
details{margin:.6rem 0}summary{cursor:pointer}
"""


def text(value: Any) -> str:
    return html.escape(str(value))


def css(outcome: str) -> str:
    return outcome.replace(" ", "_")


def sources_text(rows: list[str], most: int = 6) -> str:
    """`cells.jsonl:1,2,3`, so that every figure can be found."""
    by_file: dict[str, list[str]] = {}
    for row in rows:
        file, _, line = row.partition(":")
        by_file.setdefault(file, []).append(line)
    return "; ".join(
        f"{file}:{','.join(lines[:most])}{f' and {len(lines) - most} more' if len(lines) > most else ''}"
        for file, lines in by_file.items()
    )


def verdict_html(verdict: dict) -> str:
    rows = sources_text(verdict["rows"]) or "computed here"
    return (
        f'<div class="verdict {css(verdict["outcome"])}"><span class="outcome">{text(verdict["outcome"])}</span> '
        f"{text(verdict['claim'])}<br><b>{text(verdict['figure'])}</b> "
        f'<span class="soft">expected: {text(verdict["expected"])}</span><br>{text(verdict["why"])} '
        f'<span class="source">[{text(rows)}]</span></div>'
    )


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True


def table_html(table: dict) -> str:
    traced = any(table["sources"])
    numbers = [all(map(is_number, column)) for column in zip(*table["rows"], strict=True)]
    head = "".join(
        f"<th{' class=number' if number else ''}>{text(name)}</th>"
        for name, number in zip(table["columns"], numbers, strict=True)
    ) + ("<th>line</th>" if traced else "")
    body = []
    for cells, source in zip(table["rows"], table["sources"], strict=True):
        row = "".join(f"<td{' class=number' if is_number(cell) else ''}>{text(cell)}</td>" for cell in cells)
        body.append(f"<tr>{row}{f'<td class=source>{text(source)}</td>' if traced else ''}</tr>")
    return (
        f'<h3>{text(table["title"])}</h3><div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def plot_html(folder: Path, plot: dict) -> str:
    data = {
        theme: base64.b64encode((folder / f"{plot['name']}.{theme}.png").read_bytes()).decode()
        for theme in ("light", "dark")
    }
    prefix = "data:image/png;base64,"
    return (
        f'<figure><picture><source srcset="{prefix}{data["dark"]}" media="(prefers-color-scheme: dark)">'
        f'<img src="{prefix}{data["light"]}" alt="{text(plot["caption"])}"></picture>'
        f"<figcaption>{text(plot['caption'])}</figcaption></figure>"
    )


def study_html(folder: Path, said: dict) -> str:
    config, origin = said["config"], said["provenance"]
    settings = {name: value for name, value in config.items() if name not in ("id", "title", "claim", "source")}
    shown = "; ".join(f"{name} {value}" for name, value in origin.items() if name in PROVENANCE)
    shown += f"; load average {said['load'][0]:.1f} at the start, {said['load'][1]:.1f} at the end"
    return (
        f'<h2 id="{text(said["name"])}">{text(config["id"])}. {text(config["title"])}</h2>'
        f'<p>{text(config["claim"])}. <span class="soft">{text(config["source"])}</span></p>'
        + "".join(map(verdict_html, said["verdicts"]))
        + "".join(plot_html(folder, plot) for plot in said["plots"])
        + "".join(map(table_html, said["tables"]))
        + f'<p class="soft">{text(shown)}</p>'
        f"<details><summary>settings</summary><pre>{text(json.dumps(settings, indent=1))}</pre></details>"
    )


PROVENANCE = ("commit", "compiler", "cpu", "cores", "instruction_set", "threads", "dtype", "started")


def summary_html(studies: list[dict]) -> str:
    rows = []
    for said in studies:
        for verdict in said["verdicts"]:
            rows.append(
                f'<li><a href="#{text(said["name"])}">{text(said["config"]["id"])}</a> '
                f'<span class="outcome {css(verdict["outcome"])}">{text(verdict["outcome"])}</span> '
                f'<span>{text(verdict["claim"])}: <span class="soft">{text(verdict["figure"])}</span></span></li>'
            )
    return f'<ul class="summary">{"".join(rows)}</ul>'


def verdicts_text(studies: list[dict], tally: str) -> str:
    """The verdicts as a table in plain text, under the machine they come from."""
    origin = next((said["provenance"] for said in studies if "instruction_set" in said["provenance"]), {})
    host = ", ".join(f"{name.replace('_', ' ')} {origin[name]}" for name in PROVENANCE if name in origin)
    size = "Small runs (`--quick`). " if any(said["quick"] for said in studies) else ""
    loads = [load for said in studies for load in said["load"]]
    lines = [
        "# Verdicts",
        "",
        f"{size}{tally[:1].upper()}{tally[1:]}. {host}; load average {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "| | verdict | claim | figure | expected |",
    ]
    lines.append("|---|---|---|---|---|")
    for said in studies:
        for verdict in said["verdicts"]:
            cells = [said["config"]["id"], *(verdict[name] for name in ("outcome", "claim", "figure", "expected"))]
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def read_study(path: Path) -> dict:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        version = said["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        raise specmoe.Error(f"'{path}' is not what a reproduction says; run it again, or remove its folder") from None
    if version != SCHEMA:
        raise specmoe.Error(f"'{path}' is written in version {version} of the format, this reads {SCHEMA}")
    return said


def write(output: Path, names: list[str]) -> Path:
    """The page over these reproductions; returns its path."""
    studies = [read_study(output / name / "study.json") for name in names]
    counts: dict[str, int] = {}
    for said in studies:
        for verdict in said["verdicts"]:
            counts[verdict["outcome"]] = counts.get(verdict["outcome"], 0) + 1
    tally = ", ".join(f"{count} {outcome.lower()}" for outcome, count in sorted(counts.items()))
    quick = any(said["quick"] for said in studies)
    replace(output / "verdicts.md", verdicts_text(studies, tally))
    page = output / "index.html"
    replace(
        page,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>specmoe: reproductions</title>'
        f"<style>{STYLE}</style></head><body><h1>Published claims, reproduced with specmoe</h1>"
        f"<p>Reproductions: {len(studies)}; claims: {sum(counts.values())}, {text(tally)}."
        + (" Quick run: small samples, so intervals are wide.</p>" if quick else "</p>")
        + '<p class="soft">Behind every figure stands the file and line that it comes from, in the folder of the '
        "reproduction beside this page. Intervals are 95 % bootstrap intervals over prompts.</p>"
        + summary_html(studies)
        + "".join(study_html(output / said["name"], said) for said in studies)
        + "</body></html>\n",
    )
    return page
