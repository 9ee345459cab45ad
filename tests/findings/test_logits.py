"""Questions whose logits are damaged say so; every other question is answered as before."""

from __future__ import annotations

import reprlib
from dataclasses import replace

import numpy as np
import pytest

import confshift
from confshift import ConfshiftError, Predictions, Run
from confshift.reporting.plotting import plot
from confshift.storage.writer import _forget_writers
from reading_pages import Page

READ_LOGITS = {"one_competitor", "scale_growth", "label_noise", "class_bias"}


@pytest.fixture
def run(tmp_path, make_logits):
    logits, targets = make_logits(300, 6, 5)
    run = Run(tmp_path / "run")
    for epoch, one in enumerate(logits):
        run.append(Predictions(one, targets), epoch=epoch, logged={"loss": 7.0})
    run.flush()
    return run


def damage(run, epoch):
    """Flip a bit of an epoch's logits, and return the run as another process sees it."""
    file = sorted(run.path.glob("val/*.logits.npy"))[epoch]
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    _forget_writers()
    return Run(run.path), file.name


def answers(run):
    return {
        finding.code: (finding.verdict, f"{finding.sentence} {finding.details}")
        for finding in confshift.diagnose(run)
    }


@pytest.mark.parametrize(
    ("epoch", "silenced"),
    [(0, READ_LOGITS - {"class_bias"} | {"too_good"}), (4, READ_LOGITS), (2, set())],
    ids=["first", "last", "other"],
)
def test_only_the_questions_that_need_damaged_logits_go_without_an_answer_and_say_why(run, epoch, silenced):
    before = answers(run)
    look, file = damage(run, epoch)
    after = answers(look)
    silenced = silenced | {"logged_loss"}  # tried at every epoch with a logged loss
    for code, (verdict, sentence) in after.items():
        if code in silenced:
            assert verdict == ("no" if code == "logged_loss" else "cannot tell")
            assert f"{file} is damaged: piece 1 of 1" in sentence
            assert before[code] != (verdict, sentence)
        else:
            assert (verdict, sentence) == before[code]
    assert set(after) == set(before)


def test_a_page_goes_without_the_competitors_and_lists_the_file(run, tmp_path):
    look, file = damage(run, 4)
    page = confshift.report(look, tmp_path / "page.html")
    said = {finding.code for finding in page.findings if file in f"{finding.sentence} {finding.details}"}
    assert said == READ_LOGITS | {"logged_loss"}
    parsed = Page((tmp_path / "page.html").read_text())
    assert "in part" in parsed.text
    assert parsed.json("data")["tables"]["competitors"] == []
    with pytest.raises(ConfshiftError, match="is damaged"):
        plot(look, "competitors", tmp_path / "a.svg")
    assert plot(look, "loss", tmp_path / "b.svg").exists()


@pytest.mark.parametrize("entry", [True, "x", [1], {"status": 5}, {"status": "x"}, None])
def test_an_odd_entry_of_the_checks_is_a_check_that_was_not_made(entry):
    checks = dict.fromkeys(("modes", "repeatable", "alone", "head"), entry)
    findings = {finding.code: finding for finding in confshift.diagnose([checked(checks)])}
    assert findings["evaluates_plainly"].verdict == "not applicable"
    assert findings["start_loss"].evidence.index.tolist() == ["uniform guess", "best constant", "start"]


@pytest.mark.parametrize(
    "odd",
    [
        {"modules": "x"},
        {"modules": 5},
        {"modules": [1, {}], "count": "many"},
        {"difference": "x"},
        {"difference": 10**400},
        {"difference": [1]},
        {"reason": {"a": 1}},
        {"count": -3, "modules": ["a"]},
        {"mean_squared_norm": "x", "in_features": 3, "bias": True},
        {"mean_squared_norm": 1.0, "in_features": 0, "bias": True},
        {"mean_squared_norm": 1.0, "in_features": [4], "bias": True},
        {"mean_squared_norm": 1.0, "in_features": 4, "bias": "yes"},
    ],
)
def test_odd_details_of_a_check_are_passed_over(odd):
    checks = {name: {"status": "failed", **odd} for name in ("modes", "repeatable", "alone")}
    checks["head"] = {"status": "measured", **odd}
    findings = {finding.code: finding for finding in confshift.diagnose([checked(checks)])}
    assert findings["evaluates_plainly"].verdict == "no"
    assert findings["start_loss"].evidence.index.tolist() == ["uniform guess", "best constant", "start"]


@pytest.mark.parametrize("status", ["passed", "measured"])
def test_odd_details_of_a_check_that_did_not_fail_are_not_looked_at(status):
    odd = {"status": status, "modules": [1, {}]}
    checks = {"modes": odd, "repeatable": odd, "alone": odd, "head": odd}
    findings = {finding.code: finding for finding in confshift.diagnose([checked(checks)])}
    assert findings["evaluates_plainly"].verdict == "yes"


def checked(checks):
    logits = np.random.default_rng(0).normal(size=(30, 5)) - 3
    plain = confshift.Checkpoint.from_predictions(Predictions(logits, np.arange(30) % 5), epoch=0)
    return replace(plain, provenance=replace(plain.provenance, checks=checks))


@pytest.mark.parametrize("odd", ["abc", [1.0], True, {"a": 1}, 10**400])
def test_a_logged_loss_that_is_not_a_number_is_named(odd):
    plain = checked({})
    odd_one = replace(plain, provenance=replace(plain.provenance, logged={"loss": odd}))
    finding = next(finding for finding in confshift.diagnose([odd_one]) if finding.code == "logged_loss")
    assert finding.verdict == "not applicable"
    assert f"at epoch 0 can't be read as a number: {reprlib.repr(odd)}" in finding.sentence


@pytest.mark.parametrize("none", [None, float("nan"), float("inf")])
def test_a_loss_that_was_not_computed_or_diverged_is_none_to_compare_with(none):
    plain = checked({})
    odd_one = replace(plain, provenance=replace(plain.provenance, logged={"loss": none}))
    finding = next(finding for finding in confshift.diagnose([odd_one]) if finding.code == "logged_loss")
    assert finding.sentence == "No loss of your own was given to compare with."


@pytest.mark.parametrize("odd", ["abc", [1.0], True, {"a": 1}, 10**400])
def test_saving_a_logged_value_that_is_not_a_number_is_refused_with_the_remedy(tmp_path, odd):
    given = Predictions([[2.0, 0.0], [0.0, 3.0]], [0, 1])
    with pytest.raises(ConfshiftError, match=r"logged\['loss'\]=.* is not a number .* metadata="):
        Run(tmp_path / "run").append(given, logged={"loss": odd})
    Run(tmp_path / "run").append(given, logged={"loss": None, "x": float("nan")})
