"""A report asks each costly question once: what the findings found is what the page shows."""

from __future__ import annotations

from collections import Counter

import pytest

from confshift.analysis import comparison, competitors, history
from confshift.analysis.causes import baseline
from confshift.checkpoint import Checkpoint
from confshift.findings.question import SEVERITIES
from confshift.predictions import Predictions
from confshift.reporting.page import report

pytestmark = pytest.mark.usefixtures("blank_pictures")

ASKED_ONCE = {
    "compare": (comparison, "change_of"),
    "competitors": (competitors, "competitors_of"),
    "scale": (competitors, "scale_parts"),
    "references": (baseline, "references"),
    "judgement": (history, "judge"),
    "suspects": (history, "suspects_of"),
    "class bias": (comparison, "class_bias_test"),
}


@pytest.fixture(scope="module")
def run(make_logits):
    logits, targets = make_logits(200, 4, 6, churn=0.2)
    return [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate(logits)
    ]


def test_a_report_computes_each_statistic_once(run, monkeypatch):
    calls = Counter()

    def counting(name, function):
        def counted(*args, **options):
            calls[name] += 1
            return function(*args, **options)

        return counted

    for name, (module, function) in ASKED_ONCE.items():
        monkeypatch.setattr(module, function, counting(name, getattr(module, function)))
    made = report(run)
    assert calls == dict.fromkeys(ASKED_ONCE, 1)
    assert len(made.findings) == 25


def test_the_run_up_to_a_chosen_epoch_is_judged_once(run, monkeypatch):
    judged, judge = [], history.judge

    def counted(panel, *args, **options):
        judged.append(len(panel.checkpoints))
        return judge(panel, *args, **options)

    monkeypatch.setattr(history, "judge", counted)
    grown = [
        Checkpoint.from_predictions(
            Predictions(
                (3 if at == 4 else 1) * checkpoint.predictions.logits, checkpoint.predictions.targets
            ),
            epoch=checkpoint.epoch,
        )
        for at, checkpoint in enumerate(run)
    ]
    made = report(grown, after=4)
    assert made.change.loc["loss", "change_low"] > 0
    assert sorted(judged) == [5, 6]


def test_every_finding_of_a_report_has_a_severity_that_its_verdict_explains(run):
    for finding in report(run).findings:
        assert finding.severity in SEVERITIES
        undecided = {"cannot tell": "undecided", "not applicable": "not applicable"}
        assert finding.severity == undecided.get(finding.verdict, finding.severity)
        if finding.verdict in ("yes", "no"):
            bad = finding.question.problem
            assert finding.severity == ("problem" if finding.verdict == bad else "fine")
