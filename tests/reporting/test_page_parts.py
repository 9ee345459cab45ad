"""The smaller rooms of the page: its data, bins, facts, sections."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.reliability import isotonic_curve
from confshift.analysis.stacking import stack
from confshift.findings.diagnosis import diagnose
from confshift.findings.wording import vocabulary_of
from confshift.reporting import binning, footer, layout, page_data


# ------------------------------------------------------------------------------------------------ payload
def test_a_long_run_is_thinned_evenly_with_the_compared_and_the_best_in_it(make_run, monkeypatch):
    monkeypatch.setattr(page_data, "_MAX_EPOCHS", 20)
    history = summarize(make_run(40, 3, 60))
    comparison = compare(history.main.checkpoints[7], history.main.checkpoints[31])
    carried = page_data.thin_history(history, comparison, history.rise)
    epochs = carried.main.epochs.tolist()
    assert len(epochs) <= 20
    assert {0, 7, 31, 59, *history.best["epoch"], history.recommendation.epoch} <= set(epochs)
    assert np.diff(epochs).max() <= 8
    assert carried.main.checkpoints[epochs.index(7)] is comparison.before


def test_a_large_validation_set_is_thinned_by_the_work_of_its_pairs(make_run, monkeypatch):
    monkeypatch.setattr(page_data, "_MAX_PAIR_CELLS", 40 * 25 * 25 // 2)
    history = summarize(make_run(40, 3, 30))
    comparison = compare(*history.pair)
    assert len(page_data.thin_history(history, comparison, history.rise).main.epochs) <= 25


def test_a_run_that_fits_is_carried_as_it_is(history, comparison):
    assert page_data.thin_history(history, comparison, history.rise) is history


def test_the_series_of_a_class_are_those_of_the_history(history, comparison):
    shown = list(range(len(history.main.class_names)))
    data, _ = page_data.page_data(
        history,
        comparison,
        tables={},
        specs={},
        classes=shown,
        values={},
        ticks=[-2.2, 0.0, 2.2],
        two_runs=False,
        words=vocabulary_of(history.main),
    )
    classes = data.classes
    table = history.classes.loc["val"]
    for place, code in enumerate(classes["shown"]):
        part = table.xs(code, level="class")
        assert classes["accuracy"][place] == part["accuracy"].tolist()
        assert classes["loss"][place] == part["loss"].tolist()
        assert classes["samples"][place] == part["samples"].iloc[-1]


# -------------------------------------------------------------------------------------------------- bins
def test_the_axis_of_log_odds_holds_nearly_all_confidences(make_run):
    panel = stack(make_run(500, 4, 6))
    ticks = binning.odds_ticks(panel)
    low, high = (1 / (1 + math.exp(-tick)) for tick in (ticks[0], ticks[-1]))
    assert np.mean(panel.confidence < low) <= 0.01
    assert (np.mean(panel.confidence > high, axis=1) <= 0.1).all()
    assert (np.diff(ticks) > 0).all()


@pytest.mark.parametrize("scale", ["probability", "odds"])
def test_the_bins_count_every_answer_once(make_run, scale):
    panel = stack(make_run(300, 4, 3))
    edges = binning.bin_edges(binning.odds_ticks(panel))[scale]
    counts = binning.confidence_bins(panel, edges)
    assert binning.confidences(panel, {scale: edges})["bins"] == {scale: {"edges": edges.tolist(), **counts}}
    for at in range(3):
        assert sum(counts["right"][at]) == panel.correct[at].sum()
        assert sum(counts["wrong"][at]) == (~panel.correct[at]).sum()
        inner = (panel.confidence[at] > edges[3]) & (panel.confidence[at] <= edges[4])
        assert counts["right"][at][3] == (inner & panel.correct[at]).sum()


def test_dots_and_curves_are_those_of_the_history(history):
    found = binning.confidences(history.main, binning.bin_edges(binning.odds_ticks(history.main)))
    dots, curves = found["reliability"]["dots"], found["reliability"]["isotonic"]
    assert len(dots) == len(curves) == len(history.main.epochs)
    assert sum(row[4] for row in dots[2]) == len(history.main.targets)
    expected = isotonic_curve(history.main.confidence[2], history.main.correct[2])
    np.testing.assert_allclose(curves[2], expected.to_numpy(), atol=1e-7)


# -------------------------------------------------------------------------------------------------- facts
def written_by(run, names):
    return [
        dataclasses.replace(one, provenance=dataclasses.replace(one.provenance, writer=name))
        for one, name in zip(run, names, strict=True)
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["", "", "", ""], "not recorded"),
        (["a", "a", "b", "b"], "a, b"),
        (["a", "b", "a", "b"], "they alternate 3 times"),
    ],
)
def test_writers_that_alternate_are_pointed_out(make_run, names, told):
    history = summarize(written_by(make_run(40, 3, 4), names))
    known = dict(footer.reconciliation([history], compare(*history.pair), page_epochs=4, page_samples=40))
    assert told in known["Written by"]


def test_what_is_not_carried_is_said(history, comparison):
    known = dict(footer.reconciliation([history], comparison, page_epochs=5, page_samples=100))
    assert known["Epochs on this page"].startswith("5 of 7")
    assert known["Samples on this page"].startswith("100 of 240")
    whole = dict(footer.reconciliation([history], comparison, page_epochs=7, page_samples=240))
    assert not {"Epochs on this page", "Samples on this page"} & set(whole)


def test_the_start_stands_beside_models_that_know_nothing(history):
    table = footer.start_table(history)
    shares = np.bincount(history.main.targets) / len(history.main.targets)
    assert table.loc["all classes alike", "loss"] == f"{math.log(4):.3f} nats"
    entropy = -(shares * np.log(shares)).sum()
    assert table.loc["always the class frequencies", "loss"] == f"{entropy:.3f} nats"
    assert table.loc["always the class frequencies", "accuracy"] == f"{100 * shares.max():.1f} %"
    assert table["loss"].iloc[0] == f"{history.table['loss'].iloc[0]:.3f} nats"


# ----------------------------------------------------------------------------------------------- sections
def test_every_finding_of_diagnose_has_a_section_of_its_own(run):
    findings = diagnose(run)
    assert {finding.question.section for finding in findings} <= {
        part for section in layout.SECTIONS for part in section.parts
    }
    assert len({finding.code for finding in findings}) == len(findings)
