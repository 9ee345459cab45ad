"""The labels of a multi-label task: what each adds, by a literal loop, and as it is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confshift import Predictions, compare
from confshift.analysis.grouping import mean_error
from confshift.reporting.label_table import label_table
from confshift.reporting.output import comparison_text
from confshift.tasks import places


def compared(labels, samples, *, seed=0, names=None, hole=False):
    """Compare two models on samples, each with so many labels of which some are not known."""
    random = np.random.default_rng(seed)
    ids = (np.arange(samples)[:, None] * places(labels) + np.arange(labels)).ravel()
    known = random.permutation(len(ids))[: max(3, int(0.9 * len(ids)))]
    targets = random.integers(0, 2, len(ids))
    first = random.normal(size=len(ids)) + targets
    sides = []
    for logits in (first, 2.5 * first + random.normal(size=len(ids))):
        logits = np.where((ids == ids[known[0]]) & hole, np.nan, logits)
        sides.append(
            Predictions(
                np.c_[np.zeros(len(ids)), logits][known],
                targets[known],
                sample_ids=ids[known],
                groups=ids[known] // places(labels),
                task="multilabel",
                label_names=names or [f"label {number}" for number in range(labels)],
            )
        )
    return compare(*sides)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(4, 12), st.integers(0, 99), st.booleans())
def test_each_label_has_the_numbers_of_its_rows_and_they_add_up(labels, samples, seed, hole):
    comparison = compared(labels, samples, seed=seed, hole=hole)
    table, rows = comparison.labels, comparison.samples
    of = rows.index.to_numpy() % places(labels)
    assert table.index.tolist() == [f"label {number}" for number in range(labels)]
    assert table["contribution"].sum() == pytest.approx(comparison.change.loc["loss", "change"], abs=1e-12)
    for number, (_, row) in enumerate(table.iterrows()):
        own = rows[of == number]
        assert (row["samples"], row["answered_samples"]) == (len(own), len(own))
        if not len(own):
            assert np.isnan(row["loss_before"])
            continue
        for side in ("before", "after"):
            assert row[f"loss_{side}"] == pytest.approx(own[f"loss_{side}"].mean())
            assert row[f"accuracy_{side}"] == pytest.approx(
                (own[f"predicted_{side}"] == own["target"]).mean()
            )
        assert row["positives"] == pytest.approx(own["target"].mean())
        assert row["contribution"] == pytest.approx(own["change"].sum() / len(rows), abs=1e-12)
        part = np.where(of == number, rows["change"], 0.0)
        assert row["contribution_se"] == pytest.approx(
            mean_error(part, rows.index.to_numpy() // places(labels)), nan_ok=True
        )


@pytest.mark.parametrize("labels", [3, 30])
def test_the_nats_of_the_table_add_up_as_they_are_written(labels):
    comparison = compared(labels, 40)
    head, rows = label_table(comparison, ("A", "B"))
    assert {len(row) for row in rows} == {len(head)}
    assert len(rows) == min(labels, 21)
    nats = [float(row[-1].replace("−", "-")) for row in rows]
    change = comparison.change.loc["loss", "change"]
    assert sum(nats) == pytest.approx(change, abs=0.5 * 10.0 ** -len(rows[0][-1].partition(".")[2]) + 1e-9)
    assert sum(int(row[1].replace(",", "")) for row in rows) == len(comparison.samples)
    if labels > 20:
        assert rows[-1][0] == "10 other samples"


def test_the_terminal_prints_the_labels_where_they_have_names():
    text = comparison_text(compared(2, 40, names=["cat", "dog\x1b[2J"]))
    assert "label" in text
    assert "cat" in text
    assert "\x1b" not in text
    plain = compare(
        *(
            Predictions([[0.0, 1.0 + k], [1.0, k], [0.5, 0]], [0, 1, 0], sample_ids=list("abc"))
            for k in (0, 1)
        )
    )
    assert plain.labels.empty
    same = compare(plain.before, plain.before)
    assert label_table(same, ("A", "B"))[1] == []
    assert "yes" not in comparison_text(plain)
