"""A run that does not fit into memory gives the numbers of one that does, and is read in parts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import confshift
from confshift import Run
from confshift.analysis.decomposition import pairwise_cells
from confshift.analysis.panel import Panel
from confshift.findings.diagnosis import diagnose
from confshift.reporting.page_data import rows_of
from confshift.storage import columns as columns_module
from confshift.storage.columns import StoredColumns

EPOCHS, SAMPLES, CLASSES = 6, 320, 3
#: Blocks of so many numbers: of some 40 samples.
FEW = 240

KINDS = {
    "gaps": {"gaps": True},
    "groups": {"groups": True},
    "weights and smoothing": {"class_weight": [0.5, 1.0, 3.0], "label_smoothing": 0.1},
    "weights, groups and gaps": {"class_weight": [0.0, 1.0, 3.0], "groups": True, "gaps": True},
}


def saved(path, *, groups=False, gaps=False):
    """Save a run whose loss falls, then rises."""
    draw = np.random.default_rng(0)
    targets = draw.integers(0, CLASSES, SAMPLES)
    ease = draw.normal(0.5, 1, SAMPLES)
    run = Run(path)
    for epoch in range(EPOCHS):
        logits = draw.normal(size=(SAMPLES, CLASSES)) * (1 + epoch / 3)
        logits[np.arange(SAMPLES), targets] += ease * (1 + epoch)
        if gaps:
            logits[epoch:40:2, 0] = np.nan
            logits[100 + epoch, targets[100 + epoch]] = -np.inf if epoch else 0.0
        run.append(
            confshift.Predictions(logits, targets, groups=np.arange(SAMPLES) % 90 if groups else None),
            epoch=epoch,
        )
    run.flush()


def tables(path, **options):
    """Return everything that a run says, by name."""
    history = confshift.summarize(Run(path), **options)
    comparison = history.compare(*history.pair)
    found = {
        name: getattr(history, name)
        for name in ("table", "classes", "reliability", "cells", "best", "rise", "candidates", "dynamics")
    }
    found |= {"pairs": history.pairs, "suspects": history.label_suspects}
    found |= {
        name: getattr(comparison, name)
        for name in ("change", "account", "cells", "classes", "samples", "concentration", "balance")
    }
    cells = [np.r_[sums, counts] for _, _, sums, counts in pairwise_cells(history.main)]
    found["cells of every pair"] = pd.DataFrame(cells)
    found["rows"] = pd.DataFrame(rows_of(history.main, np.arange(3, SAMPLES, 7))[1])
    return {f"{place} {name}": frame for place, (name, frame) in enumerate(found.items())}


@pytest.fixture
def in_parts(monkeypatch):
    """Return a function after which panels are large, files too, and no matrix may have all checkpoints."""
    stacked = Panel._stacked

    def limited(panel, name):
        assert len(panel.checkpoints) <= 2 or panel.is_small, f"all of {name} was asked for at once"
        return stacked(panel, name)

    def start():
        monkeypatch.setattr("confshift.analysis.panel.KEPT_NUMBERS", FEW)
        monkeypatch.setattr("confshift.analysis.pairs.KEPT_NUMBERS", FEW)
        monkeypatch.setattr("confshift.analysis.objective._KEPT", 0)
        monkeypatch.setattr(Panel, "_stacked", limited)
        monkeypatch.setattr(columns_module, "_SMALL", 0)
        monkeypatch.setattr(columns_module, "_MAX_BYTES", 0)
        monkeypatch.setattr(columns_module, "_PART_BYTES", 5_000)
        monkeypatch.setattr(StoredColumns, "_recent", type(StoredColumns._recent)())

    return start


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_parts_has_the_numbers_of_the_whole(kind, tmp_path, in_parts):
    options = dict(KINDS[kind])
    saved(tmp_path, groups=options.pop("groups", False), gaps=options.pop("gaps", False))
    whole = tables(tmp_path, **options)
    in_parts()
    parts = tables(tmp_path, **options)
    assert whole.keys() == parts.keys()
    for name, table in whole.items():
        pd.testing.assert_frame_equal(parts[name], table, rtol=1e-9, atol=1e-11, obj=name)


def test_a_diagnosis_and_a_page_ask_for_no_more_than_a_part(tmp_path, in_parts):
    saved(tmp_path / "run", gaps=True)
    in_parts()
    found = diagnose(Run(tmp_path / "run"))
    assert {finding.verdict for finding in found} > {"yes", "no"}
    assert len(confshift.report(Run(tmp_path / "run")).findings) == len(found)


def test_at_most_two_checkpoints_stay_in_memory_where_no_more_have_room(tmp_path, in_parts):
    saved(tmp_path)
    in_parts()
    run = list(Run(tmp_path))
    for checkpoint in run:
        assert np.isfinite(checkpoint.loss)
    kept = [bool(checkpoint.measurement.table._kept) for checkpoint in run]
    assert kept == [False] * (EPOCHS - 2) + [True] * 2


def test_checkpoints_share_their_ids_and_groups(tmp_path):
    saved(tmp_path, groups=True)
    first, *others = (checkpoint.measurement for checkpoint in Run(tmp_path))
    for other in others:
        assert other.sample_ids is first.sample_ids
        assert other.groups is first.groups


def test_the_columns_that_were_dropped_are_checked_again_when_they_are_read(tmp_path, in_parts):
    saved(tmp_path)
    in_parts()
    checkpoint = Run(tmp_path)[0]
    assert len(checkpoint.measurement.sample_ids) == SAMPLES
    file = next(iter(sorted((tmp_path / "val").glob("*columns.npy"))))
    content = bytearray(file.read_bytes())
    content[-30] ^= 1
    file.write_bytes(content)
    with pytest.raises(confshift.ConfshiftError, match="does not match its checksum"):
        checkpoint.measurement.column("hedge")


def test_a_part_in_memory_is_no_larger_than_its_rows(tmp_path, in_parts):
    saved(tmp_path)
    in_parts()
    table = Run(tmp_path)[0].measurement.table
    table._kept = {}
    table.part("hedge", slice(10, 20))
    rows = table._part[2]
    assert rows.base is None or rows.base.nbytes == rows.nbytes == 10 * table.layout.itemsize


def test_a_run_without_answers_is_as_undecided_in_parts_as_in_memory(tmp_path, in_parts):
    run, targets = Run(tmp_path), np.arange(SAMPLES) % CLASSES
    for epoch in range(EPOCHS):
        logits = np.full((SAMPLES, CLASSES), np.nan)
        logits[epoch::9] = np.random.default_rng(epoch).normal(size=(len(logits[epoch::9]), CLASSES))
        run.append(confshift.Predictions(logits, targets), epoch=epoch)
    run.flush()
    whole = confshift.summarize(Run(tmp_path)).judgement
    in_parts()
    for part, table in zip(confshift.summarize(Run(tmp_path)).judgement, whole, strict=True):
        pd.testing.assert_frame_equal(part, table)
