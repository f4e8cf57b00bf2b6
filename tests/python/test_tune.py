"""specmoe tune: predictions beside measurements, and what it refuses."""

import re

import pytest
from program import DRAFTER, MODELS, SMALL, TARGET, expect_one_line, ok, read_jsonl, specmoe

from specmoe import Error, load_results, tune

PROMPTS = MODELS / "prompts/quickstart.jsonl"
TUNE = ["tune", "--target", TARGET, "--drafter", DRAFTER, "--prompts", PROMPTS, "--max-new-tokens", "48", "--quiet"]


def rows_of(text: str) -> list[tuple[str, list[str]]]:
    """The table's trees with predicted tau, r(T), speed-up, measured tau, r(T), speed-up, off by, median."""
    rows = re.findall(r"^  ((?:chain|expansion|sequoia|expert_aware|adaptive|opt)\S*) +(.+)$", text, re.MULTILINE)
    return [(name, re.split(r" {2,}", rest)) for name, rest in rows]


def trees(text: str) -> dict[str, list[str]]:
    return dict(rows_of(text))


def test_predicts_what_it_then_measures():
    text = ok(*TUNE, "--tree", "opt_tree").stdout
    assert "outputs identical: yes" in text
    found = trees(text)
    assert list(found)[:6] == [
        "chain(gamma=1)", "chain(gamma=3)", "chain(gamma=8)", "expansion(2)", "expansion(4)", "expansion(8)",
    ]  # fmt: skip
    for gamma in (1, 3, 8):  # replayed, so exact but for extra tokens after chains that were accepted whole
        predicted, measured = (float(found[f"chain(gamma={gamma})"][i]) for i in (0, 3))
        assert abs(predicted / measured - 1) < 0.03
    (sequoia,) = (name for name in found if name.startswith("sequoia("))
    assert abs(float(found[sequoia][0]) / float(found[sequoia][3]) - 1) < 0.2  # ranks count alike at every depth
    (opt_tree,) = (name for name in found if name.startswith("opt_tree("))
    assert found[opt_tree][:3] == ["-", "-", "-"]
    assert re.search(r"^fastest: (plain decoding|--tree '.+', \d\.\d\d times plain decoding)$", text, re.MULTILINE)


def test_keeps_what_was_predicted_beside_what_came(tmp_path):
    output = tmp_path / "tune.jsonl"
    found = rows_of(ok(*TUNE, "--output", output).stdout)
    frame = load_results(output)
    assert list(frame["tree"].str.partition("(")[0]) == [name.partition("(")[0] for name, _ in found]
    predicted = [float(row[0]) for _, row in found if row[0] != "-"]
    assert list(frame["predicted.tau"].dropna()) == pytest.approx(predicted, abs=0.006)
    assert list(frame["tau"]) == pytest.approx([float(row[3]) for _, row in found], abs=0.006)
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
    assert frame["predicted.tau"].notna()[:6].all() and frame["predicted.tau"].isna().any()
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
