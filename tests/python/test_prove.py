"""`specmoe prove`, and the grid of policies and trees that `specmoe bench` runs on the bundled pair."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from program import DRAFTER, MODELS, PROGRAM, ROOT, TARGET, expect_one_line, ok, read_jsonl, specmoe

import specmoe as specmoe_module

sys.path.insert(0, str(ROOT / "experiments"))
from update_readme import proof_table  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")


def expected_tokens(text: str, models: str) -> float:
    return float(re.search(rf"{models}.*?: ([\d.]+) tokens per target pass", text)[1])


def test_a_lossless_pair_is_called_so_with_its_tokens():
    text = ok("prove", "--accept", "token", "--law", "iid", "--tree", "chain(gamma=2)").stdout
    assert text.count("LOSSLESS") == 3 and "BIASED" not in text
    assert expected_tokens(text, "golden toy") == 2.0  # algorithms.md, section 7


def test_without_a_tree_a_policy_is_proved_on_one_it_judges():
    for policy in ("token", "multi_step"):
        assert ok("prove", "--accept", policy).stdout.count("LOSSLESS") == 3
        assert specmoe_module.prove(policy).lossless


def test_an_interrupt_ends_a_proof():
    with subprocess.Popen([PROGRAM, "prove", "--all"], stderr=subprocess.PIPE, text=True) as process:
        while "proving multi_step" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and errors.splitlines()[-1] == "specmoe: interrupted"


def test_block_gains_on_token():
    text = ok("prove", "--accept", "block", "--tree", "chain(gamma=2)", "--exact").stdout
    assert expected_tokens(text, "golden toy") == 2.045


def test_a_biased_pair_comes_with_a_counter_example():
    done = specmoe("prove", "--accept", "lenient(lenience=0.5)", "--tree", "chain(2)")
    assert done.returncode == 1 and done.stderr == "" and "LOSSLESS" not in done.stdout
    for part in ("BIASED", "counter-example: the text [", "drafted tree 0(", "accept at node 1 slot 0: 0 <= u < "):
        assert part in done.stdout


def test_a_lossless_policy_is_biased_where_it_is_not_declared():
    done = specmoe("prove", "--accept", "multi_step(siblings=independent)", "--law", "without_replacement", "--tree",
                   "expansion(2,2)", "--json")  # fmt: skip
    assert done.returncode == 1
    report = next(report for report in json.loads(done.stdout) if report["models"].startswith("golden toy"))
    assert report["lossless"] is False and report["tvd"] > 0.01
    example = report["counter_example"]
    assert example["actual"] != pytest.approx(example["expected"], abs=1e-6) and example["uniforms"]
    assert sum(report["law_emitted"]) == pytest.approx(1) == sum(report["law_expected"])


BAD_ROWS = {
    "[[0.5, 0.5], [-0.1, 1.1]]": "target: row 1: expected weights of 0 or more, got -0.1 for token 0",
    "[[0.5, 0.5], [1, 9]]": "target: row 1: expected probabilities that sum to 1, got 10; divide",
    "[[0.5, 0.5]]": "target: expected a square matrix, got 1 rows and 2 values",
    "[[1]]": "vocabulary",
    "[]": "target: expected a vocabulary of 1 token or more, got 0",
}


def test_rows_of_ones_own(tmp_path: Path):
    target, draft = tmp_path / "target.json", tmp_path / "draft.json"
    target.write_text("[[0.5, 0.5], [0.1, 0.9]]")
    draft.write_text("[[0.8, 0.2], [0.3, 0.7]]")
    arguments = ["prove", "--accept", "token", "--tree", "chain(1)", "--target", target, "--draft", draft]
    (report,) = json.loads(ok(*arguments, "--json").stdout)
    assert report["expected_tokens"] == pytest.approx(1 + 0.5 + 0.2)  # 1 + sum of min(p, q) after token 0
    for rows, wanted in BAD_ROWS.items():
        target.write_text(rows)
        expect_one_line(specmoe(*arguments), wanted)


BAD_CALLS = {
    "policy": (["--accept", "tokens"], "known: "),
    "law": (["--accept", "token", "--law", "random"], "known: deterministic, iid"),
    "tree": (["--accept", "token", "--tree", "bush"], "known: "),
    "flag": (["--acept", "token"], "--acept"),
    "nothing": ([], "--accept POLICY"),
    "chain policy on a tree": (["--accept", "token", "--tree", "expansion(2,2)"], "chain"),
    "one model of two": (["--accept", "token", "--tree", "chain(1)", "--target", "/no/such"], "together"),
    "no such file": (["--accept", "token", "--target", "/no/such", "--draft", "/no/such"], "cannot read"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(name):
    arguments, wanted = BAD_CALLS[name]
    expect_one_line(specmoe("prove", *arguments), wanted)


# ---- everything ----


@pytest.fixture(scope="module")
def matrix() -> dict:
    return json.loads(ok("prove", "--all", "--json").stdout)


def test_every_label_holds(matrix):
    assert matrix["as_labelled"] is True
    assert all(cell["outcome"] != "biased" for cell in matrix["cells"] if cell["declared"])
    assert all(cell["tvd"] < 1e-9 for cell in matrix["cells"] if cell["outcome"] == "lossless")
    assert any(cell["outcome"] == "biased" for cell in matrix["cells"])
    assert len(matrix["zoo"]) >= 10 and all(rule["flagged"] and rule["seen_in"] for rule in matrix["zoo"])


def test_no_policy_exceeds_the_bound(matrix):
    judged = [cell for cell in matrix["cells"] if cell["outcome"] == "lossless" and cell["bound"]]
    assert judged and all(cell["expected_tokens"] <= cell["bound"] + 1e-9 for cell in judged)


def lossless_for(cells: list[dict]) -> str:
    """README's words for where a policy was proved lossless."""
    proved = [cell for cell in cells if cell["declared"] and cell["outcome"] == "lossless"]
    laws = {cell["law"] for cell in proved}
    if not laws:
        return "nothing"
    if laws == {"iid"}:
        return "independent draws"
    assert len(laws) == 5, laws
    return "every draft" if any(cell["tree"].startswith("expansion") for cell in proved) else "every chain"


def test_the_readme_claims_what_is_proved(matrix):
    table = re.search(r"^\| policy \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert table
    claims = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|,]+)(?:, at temperature 0)? \|", table[0], re.MULTILINE))
    names = {cell["policy"] for cell in matrix["cells"] if "(" not in cell["policy"]}
    proved = {name: lossless_for([cell for cell in matrix["cells"] if cell["policy"] == name]) for name in names}
    assert claims == proved


def test_the_readme_shows_the_proof(matrix):
    shown = re.search(r"<!-- proof-table -->\n(.*?)<!-- /proof-table -->", README, re.DOTALL)
    assert shown and shown[1] == proof_table(matrix), "run experiments/update_readme.py proof"


# ---- bench ----


def test_a_grid_on_the_bundled_pair_reports_every_cell(tmp_path):
    out = tmp_path / "grid.jsonl"
    prompts = MODELS / "prompts" / "quickstart.jsonl"
    text = ok(
        "bench", "--target", TARGET, "--drafter", DRAFTER, "--accept", "token,block,naive", "--tree",
        "chain(gamma=2),expansion(2,1)", "--temperature", "0,1", "--prompts", prompts, "--max-new-tokens", "6",
        "--output", out,
    ).stdout  # fmt: skip
    rows = read_jsonl(out)

    def cells(kind: str) -> dict[tuple, dict]:
        return {(r["acceptance"], r["tree"][:5], r["temperature"]): r for r in rows if r["kind"] == kind}

    ran, failed = cells("summary"), cells("failed")
    chains = {(policy, "chain", t) for policy in ("token", "block", "naive") for t in (0, 1)}
    assert set(ran) == chains | {("naive", "expan", 0), ("naive", "expan", 1)}
    assert set(failed) == {(policy, "expan", t) for policy in ("token", "block") for t in (0, 1)}
    assert all("chains only" in row["error"] for row in failed.values()) and text.count("not run: ") == 4
    for (_, _, temperature), row in ran.items():
        assert row["lossless"] is True and row["identical"] is (True if temperature == 0 else None)
        assert row["tau"] > 1
