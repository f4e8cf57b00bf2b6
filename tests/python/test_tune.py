"""specmoe tune: predictions beside measurements, and what it refuses."""

import re

import pytest
from program import DRAFTER, MODELS, SMALL, TARGET, expect_one_line, ok, read_jsonl, specmoe

import specmoe as library
from specmoe import Error, load_results, tune

PROMPTS = MODELS / "prompts/quickstart.jsonl"
TUNE = ["tune", "--target", TARGET, "--drafter", DRAFTER, "--prompts", PROMPTS, "--max-new-tokens", "48", "--quiet"]


def rows_of(text: str) -> list[tuple[str, list[str]]]:
    """The table's trees with predicted tau, r(T), speed-up, measured tau, r(T), speed-up, off by, median; of those that
    were passed over the first three."""
    rows = re.findall(r"^  (?!r\()([a-z_]+\(\S*|adaptive_chain) +(.+)$", text, re.MULTILINE)
    return [(name, re.split(r" {2,}", rest)) for name, rest in rows]


def trees(text: str) -> dict[str, list[str]]:
    return dict(rows_of(text))


def ran(text: str) -> dict[str, list[str]]:
    return {name: row for name, row in rows_of(text) if len(row) > 3}


def test_predicts_what_it_then_measures():
    text = ok(*TUNE, "--tree", "opt_tree(nodes=6); chain(gamma=2); gated; best_first(nodes=4)").stdout
    assert "outputs identical: yes" in text
    found = trees(text)
    assert list(found)[:6] == [
        "chain(gamma=1)", "chain(gamma=3)", "chain(gamma=8)", "expansion(2)", "expansion(4)", "expansion(8)",
    ]  # fmt: skip
    assert found == ran(text)  # all that was asked for
    assert {name.partition("(")[0] for name in list(found)[6:]} == {
        "chain", "sequoia", "expert_aware", "opt_tree", "gated", "best_first",
    }  # fmt: skip
    assert all(row[0] == row[3] for row in found.values())  # replayed: exact
    assert all(re.fullmatch(r"[+-]\d+ %", row[6]) for row in found.values())
    assert re.search(r"^fastest: (plain decoding|--tree '.+', \d\.\d\d times plain decoding)$", text, re.MULTILINE)


def test_runs_the_best_of_the_trees_that_grow():
    text = ok(*TUNE).stdout
    measured, passed_over = ran(text), text.partition("\npassed over\n")[2]
    growing = [name for name in measured if name.partition("(")[0] not in ("chain", "expansion", "sequoia")]
    rejected = rows_of(passed_over)
    assert len(growing) == 3
    assert "adaptive_chain" in " ".join(growing)  # on this pair it is what pays
    assert {name.partition("(")[0] for name in [*growing, *dict(rejected)]} == {
        "adaptive_chain", "best_first", "confidence", "expert_aware", "gated", "opt_tree",
    }  # fmt: skip
    speeds = [float(measured[name][2]) for name in growing] + [float(row[2]) for _, row in rejected]
    assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize("drafter", [f"eagle(path={MODELS / 'eagle'})", "synthetic(alpha=0.7)", "ngram"])
def test_predicts_every_kind_of_drafter(drafter):
    text = ok("tune", "--target", TARGET, "--drafter", drafter, "--prompts", PROMPTS, "--max-new-tokens", "16",
              "--tree", "confidence(nodes=6)", "--batch", "3", "--quiet").stdout  # fmt: skip
    found = ran(text)
    assert {name.partition("(")[0] for name in found} >= {"chain", "confidence"}
    assert all(row[0] == row[3] for row in found.values())


@pytest.mark.parametrize("flags", [["--temperature", "0.7"], ["--accept", "typical", "--allow-lossy"]])
def test_predicts_no_growth_where_texts_hang_on_the_draft(flags):
    text = ok(*TUNE, *flags).stdout
    assert "\nnot replayed: " in text
    found = trees(text)
    grown = {name: row[:3] for name, row in found.items() if name.startswith(("adaptive_chain", "expert_aware"))}
    assert len(grown) == 3
    assert set(map(tuple, grown.values())) == {("-", "-", "-")}
    assert all(row[0] != "-" for name, row in found.items() if name not in grown)


def test_predicts_no_growth_of_a_drafter_that_goes_by_more_than_the_text():
    @library.register("tune_test_moody")
    class Moody(library.Drafter):
        """Proposes anything, and something else each time."""

        asked = 0

        def deterministic(self):
            return True

        def propose(self, request):
            Moody.asked += 1
            return [[int(request.text[-1 - (Moody.asked * Moody.asked) % 7])] for _ in request.frontier]

    frame = tune(target=SMALL, drafter="tune_test_moody", prompts=PROMPTS, max_new_tokens=16, quiet=True)
    grows = frame["tree"].str.contains("adaptive_chain|expert_aware")
    assert grows.sum() == 3
    assert frame["predicted.tau"].isna().equals(grows)


def test_keeps_what_was_predicted_beside_what_came(tmp_path):
    output = tmp_path / "tune.jsonl"
    text = ok(*TUNE, "--output", output).stdout
    found = [(name, row) for name, row in rows_of(text) if len(row) > 3]
    frame = load_results(output)
    assert list(frame["tree"].str.partition("(")[0]) == [name.partition("(")[0] for name, _ in found]
    columns = {"predicted.tau": 0, "predicted.verify_cost_ratio": 1, "predicted.tokens_per_s_ratio": 2, "tau": 3}
    for column, at in columns.items():
        assert list(frame[column]) == pytest.approx([float(row[at]) for _, row in found], abs=0.006)
    answers = [line for line in read_jsonl(output) if line["kind"] == "answer"]
    assert len(answers) == 2 * 8 * (len(found) + 2)  # two runs of eight prompts; plain beside the probes and the others


def test_python_tunes_as_the_program_does(tmp_path):
    output = tmp_path / "tune.jsonl"
    flags = {"target": TARGET, "drafter": DRAFTER, "prompts": PROMPTS, "quiet": True}
    frame = tune(flags, max_new_tokens=48, tree="chain(gamma=2)", output=output)
    found = rows_of(ok(*TUNE, "--tree", "chain(gamma=2)").stdout)
    # Which chain is the best hangs on the machine's mood, and so does the tree that branches.
    assert list(frame["tree"].str.partition("(")[0])[:6] == [name.partition("(")[0] for name, _ in found][:6]
    assert list(frame["tau"])[:6] == pytest.approx([float(row[3]) for _, row in found][:6], abs=0.006)
    assert list(frame["predicted.tau"]) == list(frame["tau"])
    assert (frame["tokens_per_s_ratio"] > 0).all()
    kept = load_results(output)
    for column in ("tree", "tokens_per_s_ratio"):
        assert list(kept[column]) == list(frame[column])


def test_python_refuses_by_name():
    with pytest.raises(Error, match="tune needs --drafter SPEC"):
        tune(target=SMALL, prompt="a")
    with pytest.raises(Error, match="tune takes one --batch, got 2"):
        tune(target=SMALL, drafter="ngram", prompt="a", batch=[1, 8])


@pytest.mark.parametrize("topology", ["sequoia", "expert_aware"])
def test_the_trees_that_it_names_can_be_run(topology):
    (tree,) = (name for name in trees(ok(*TUNE).stdout) if name.startswith(topology + "("))
    ok("generate", "--target", TARGET, "--drafter", DRAFTER, "--tree", tree, "--prompt", "a", "--max-new-tokens", "8")


def test_names_trees_that_a_policy_of_chains_cannot_judge():
    text = ok(*TUNE, "--temperature", "0.7", "--accept", "block").stdout
    assert "outputs: sampled, the same in every run" in text
    assert "accepted by rank" in text
    assert "not run: expansion(2): this acceptance policy judges chains only" in text
    assert "not run: expert_aware(" in text
    assert not any(name.startswith("sequoia") for name in trees(text))


def test_a_dense_target_and_a_batch():
    text = ok("tune", "--target", SMALL, "--drafter", "ngram", "--prompts", PROMPTS, "--batch", "4",
              "--max-new-tokens", "16", "--quiet").stdout  # fmt: skip
    assert "routing correlation" not in text
    assert "batch 4" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "--target", SMALL, "--prompt", "a"], "tune needs --drafter SPEC to compare with plain decoding"),
        ([*TUNE, "--temperature", "0,1"], "tune takes one --temperature, got 2; bench compares several"),
        ([*TUNE, "--batch", "1,8"], "tune takes one --batch, got 2; bench compares several"),
        ([*TUNE, "--accept", "token; naive"], "tune takes one --accept, got 2; bench compares several"),
        ([*TUNE, "--tree", "chane"], "unknown"),
        ([*TUNE, "--cells", "x.jsonl"], "tune has no option --cells"),
        ([*TUNE, "--output", "no/such/folder/x"], "no/such/folder/x"),
        ([*TUNE, "--accept", "typical"], "chain(gamma=1): "),  # lossy, and not allowed to be
    ],
)
def test_refuses_by_name(arguments, message):
    expect_one_line(specmoe(*arguments), message)
