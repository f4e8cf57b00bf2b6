"""experiments/reproduce.sh, the page it writes, the first study, and the drivers built against the installed package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import specmoe

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
MODELS = EXPERIMENTS / "models"
CLAIMS = ("REPRODUCED", "NOT REPRODUCED", "NOT MEASURED")
IDS = ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R13", "A1"]

sys.path.insert(0, str(EXPERIMENTS / "paper"))


def reproduce(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXPERIMENTS / "reproduce.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, **options)


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("reproduce")
    done = reproduce("--quick", "--output", folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


@pytest.mark.timeout(1200)
def test_every_reproduction_runs_and_gives_verdicts(quick):
    folder, text = quick
    assert re.findall(r"^\[\d+/\d+\] (\w+) ", text, re.MULTILINE) == IDS
    studies = [json.loads(path.read_text()) for path in folder.glob("*/study.json")]
    assert sorted(said["config"]["id"] for said in studies) == sorted(IDS)
    for said in studies:
        assert said["verdicts"] and said["tables"], said["name"]
        assert {verdict["outcome"] for verdict in said["verdicts"]} <= set(CLAIMS)
        assert {"commit", "compiler", "cpu"} <= set(said["provenance"]), said["name"]
    # What is exact holds on every machine, however small the run.
    for name in ("expected_tokens", "block_verification", "traversal_verification", "acceptance_identity"):
        said = next(said for said in studies if said["name"] == name)
        assert said["verdicts"][0]["outcome"] == "REPRODUCED", said["verdicts"][0]


def test_every_figure_can_be_traced_to_its_line(quick):
    folder, _ = quick
    for path in folder.glob("*/study.json"):
        said = json.loads(path.read_text())
        rows = [row for verdict in said["verdicts"] for row in verdict["rows"]]
        rows += [source for table in said["tables"] for source in table["sources"] if source]
        assert rows, path
        for row in rows:
            file, line = row.split(":")
            text = (path.parent / file).read_text().splitlines()[int(line) - 1]
            assert json.loads(text)["schema"] == 1
        assert len(list(path.parent.glob("table*.csv"))) == len(said["tables"])


def test_weights_that_are_compared_by_time_took_turns(quick):
    """They share a plain run, so none of them came from another grid with the same cell."""
    folder = quick[0] / "specinfer_article"
    verdicts = json.loads((folder / "study.json").read_text())["verdicts"]
    rows = next(verdict["rows"] for verdict in verdicts if verdict["claim"] == "an INT8 drafter drafts faster")
    lines = (folder / "cells.jsonl").read_text().splitlines()
    cells = [json.loads(lines[int(row.split(":")[1]) - 1]) for row in rows]
    assert len(cells) == 2 and cells[0]["plain_counts"] == cells[1]["plain_counts"]


class Outside(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "href") and value and not value.startswith(("data:", "#")):
                self.found.append(f"{tag} {name}={value[:60]}")
            if tag in ("script", "link", "iframe"):
                self.found.append(tag)


def test_the_page_stands_alone(quick):
    page = (quick[0] / "index.html").read_text(encoding="utf-8")
    parser = Outside()
    parser.feed(page)
    assert parser.found == [] and "url(" not in page and "@import" not in page
    assert page.count("<figure>") == len(list(quick[0].glob("*/*.light.png"))) > 8
    assert "prefers-color-scheme:dark" in page and "width=device-width" in page
    assert str(ROOT) not in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_screen(quick, tmp_path, width):
    """Laid out by a browser, nothing but its scrolling tables is wider than the window, and pictures have loaded."""
    page = (quick[0] / "index.html").read_text(encoding="utf-8")
    probe = (
        f'<iframe id="page" src="page.html" style="border:0;width:{width}px;height:900px"></iframe><pre id="told"></pre>'
        "<script>onload=()=>{const d=document.getElementById('page').contentDocument;"
        "told.textContent='wide='+d.documentElement.scrollWidth+' pictures='"
        "+[...d.images].every(i=>i.complete&&i.naturalWidth>0)+' '+d.images.length}</script>"
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=20000",
               "--dump-dom", (tmp_path / "probe.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    told = re.search(r"wide=(\d+) pictures=(\w+) (\d+)", done.stdout)
    assert told, done.stdout[-500:] + done.stderr[-500:]
    assert int(told[1]) <= width and told[2] == "true" and int(told[3]) > 8


def test_a_second_run_measures_nothing_again(quick):
    folder, _ = quick
    before = {path: path.read_bytes() for path in folder.glob("*/*.jsonl")}
    done = reproduce("--quick", "--output", folder, "expected_tokens", "block_verification")
    assert done.returncode == 0
    assert {path: path.read_bytes() for path in folder.glob("*/*.jsonl")} == before


def test_a_half_written_row_is_dropped_and_measured_again(quick, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(quick[0] / "expected_tokens", folder / "expected_tokens")
    rows = folder / "expected_tokens" / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole[:-50])
    done = reproduce("--quick", "--output", folder, "expected_tokens")
    assert done.returncode == 0 and "dropped a half-written last line" in done.stdout
    assert len(rows.read_text().splitlines()) == len(whole.splitlines())
    for damage in ("nonsense\n" + whole, whole.replace('"schema": 1', '"schema": 9')):
        rows.write_text(damage)
        done = reproduce("--quick", "--output", folder, "expected_tokens")
        assert done.returncode == 1 and "line 1" in done.stdout and rows.read_text() == damage


def measured(folder: Path) -> list[str]:
    """Names of what lies in the result files of a reproduction, in order, repeats included."""
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(row["cell"] if "cell" in row else json.dumps(row["key"]) for row in rows)


def test_killed_in_three_places_a_reproduction_ends_with_the_same_measurements(quick, tmp_path):
    name = "block_verification"
    whole = measured(quick[0] / name)
    assert len(whole) == 14
    command = [sys.executable, EXPERIMENTS / "reproduce.py", "--quick", "--output", tmp_path, name]
    stops = []
    for wanted in (1, 6, 10):  # among the proofs, and in the grid
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            deadline = time.monotonic() + 300
            while run.poll() is None and time.monotonic() < deadline:
                lines = [path.read_bytes().count(b"\n") for path in (tmp_path / name).glob("*.jsonl")]
                if sum(lines) >= wanted:
                    break
                time.sleep(0.002)
            run.kill()
        stops.append(len(measured(tmp_path / name)))
    assert 1 <= stops[0] <= stops[1] <= stops[2] < len(whole), stops
    done = reproduce(*command[2:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(tmp_path / name) == whole
    verdicts = [json.loads((folder / name / "study.json").read_text())["verdicts"] for folder in (tmp_path, quick[0])]
    assert [v["figure"] for v in verdicts[0]] == [v["figure"] for v in verdicts[1]]  # tokens are counted, not timed


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["R99"], "no reproduction 'R99'"),
        (["--output", __file__], "give a folder"),
        (["--output", f"{__file__}/folder"], "give a folder"),
        (["expected_tokens", "--set", "bench.speed=2"], "none of expected_tokens has a setting 'bench.speed'"),
        (["expected_tokens", "--set", "bench"], "NAME=VALUE"),
    ],
)
def test_bad_call(arguments, wanted):
    done = reproduce(*arguments)
    assert done.returncode == 2 and wanted in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("bench.tree=[]", "the list is empty"),
        ('bench.drafter=["crystal_ball"]', "ngram"),
        ('bench.batch=[4,4]', "twice"),
        ("bench.target=no/such/folder", "no/such/folder"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_run_breaks_its_reproduction_in_one_line(change, wanted, tmp_path):
    done = reproduce("--quick", "--output", tmp_path, "expected_tokens", "--set", change)
    broken = [line for line in done.stdout.splitlines() if "BROKEN" in line]
    assert done.returncode == 1 and len(broken) == 1 and wanted in broken[0], done.stdout
    assert "Traceback" not in done.stderr and "expected_tokens" in done.stderr
    assert not (tmp_path / "expected_tokens" / "cells.jsonl").exists()


def test_a_changed_setting_is_measured_and_recorded(quick, tmp_path):
    done = reproduce("--quick", "--output", tmp_path, "expected_tokens", "--set", "bench.max-new-tokens=16")
    said = json.loads((tmp_path / "expected_tokens" / "study.json").read_text())
    assert done.returncode == 0 and said["config"]["bench"]["max-new-tokens"] == 16
    assert not set(measured(tmp_path / "expected_tokens")) >= set(measured(quick[0] / "expected_tokens"))


def test_results_that_cannot_be_read_are_named_and_left_alone(quick, tmp_path):
    for name in ("expected_tokens", "moe_experts"):
        shutil.copytree(quick[0] / name, tmp_path / name)
    (tmp_path / "index.html").write_text("the page of before")
    other = tmp_path / "moe_experts" / "study.json"
    whole = other.read_text()
    for damage, wanted in ((whole[:400], "is not what a reproduction says"), ("[]", "is not what a reproduction says"),
                           (whole.replace('"schema": 1', '"schema": 9', 1), "version 9")):  # fmt: skip
        other.write_text(damage)
        done = reproduce("--quick", "--output", tmp_path, "expected_tokens")
        assert done.returncode == 1 and wanted in done.stderr and "moe_experts" in done.stderr
        assert other.read_text() == damage and (tmp_path / "index.html").read_text() == "the page of before"
    rows = tmp_path / "expected_tokens" / "rows.jsonl"
    rows.unlink()
    rows.mkdir()
    done = reproduce("--quick", "--output", tmp_path, "expected_tokens")
    assert done.returncode == 1 and "rows.jsonl" in done.stdout and "Traceback" not in done.stderr


def test_two_measurements_of_one_key_are_refused(tmp_path):
    from study import Study

    study = Study.open("expected_tokens", tmp_path, quick=True, changes=[])
    assert study.row({"policy": "token"}, lambda: {"value": 1})["value"] == 1
    with pytest.raises(specmoe.Error, match="two measurements of expected_tokens have the key"):
        study.row({"policy": "token"}, lambda: {"value": 2})
    again = Study.open("expected_tokens", tmp_path, quick=True, changes=[])
    assert again.row({"policy": "token"}, lambda: {"value": 2})["value"] == 1  # what was measured is kept


def test_energy_is_counted_through_the_wrap_of_its_counter(tmp_path, monkeypatch):
    import energy

    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    counter = package / "energy_uj"
    (package / "max_energy_range_uj").write_text("1000000000")
    counter.write_text("999000000")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    meter = energy.Meter()
    meter.start()
    counter.write_text("4000000")
    assert meter.stop() == pytest.approx(5.0)
    monkeypatch.setattr(energy, "RAPL", tmp_path / "absent")
    monkeypatch.setattr(energy.Meter, "_nvml", staticmethod(lambda: None))
    meter = energy.Meter()
    meter.start()
    assert meter.stop() is None and "RAPL" in meter.why


def test_the_first_study_goes_from_a_question_to_a_plot(tmp_path):
    script = EXPERIMENTS / "first_study.py"
    assert len(script.read_text().splitlines()) < 60
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("LOSSLESS") == 2 and "speedup" in done.stdout
    assert (tmp_path / "first_study.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 8


@pytest.fixture(scope="module")
def drivers(tmp_path_factory) -> Path:
    """The drivers, built against the package that `cmake --install` makes of this build."""
    build = Path(os.environ.get("SPECMOE_BUILD", ROOT / "build/cpu"))
    folder = tmp_path_factory.mktemp("drivers")
    prefix = folder / "installed"
    for command in (
        ["cmake", "--install", build, "--prefix", prefix],
        ["cmake", "-S", EXPERIMENTS / "drivers", "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["cmake", "--build", folder / "build"],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.mark.timeout(1200)
def test_drivers_build_against_the_installed_package_and_run(drivers):
    pair = [str(MODELS / "target"), str(MODELS / "drafter")]
    own = subprocess.run([drivers / "build/custom_policy", *pair], capture_output=True, text=True, timeout=120)
    assert own.returncode == 0, own.stderr
    assert own.stdout.startswith("LOSSLESS") and "tokens per target pass" in own.stdout
    swept = subprocess.run([drivers / "build/gamma_sweep", *pair, "3"], capture_output=True, text=True, timeout=120)
    rows = [line.split() for line in swept.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"] and float(rows[0][2]) == 1.0
    assert float(rows[1][2]) < float(rows[3][2])
    broken = subprocess.run(
        [drivers / "build/gamma_sweep", "/no/such", "x"], capture_output=True, text=True, timeout=60
    )
    assert broken.returncode == 2 and "/no/such" in broken.stderr
    program = subprocess.run([drivers / "installed/bin/specmoe", "list"], capture_output=True, text=True, timeout=60)
    assert program.returncode == 0 and "chain" in program.stdout
