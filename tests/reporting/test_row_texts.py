"""Ids of tokens, pixels and labels say of which sample they are, where they are known to."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest

from confshift import report
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting.row_texts import row_texts

SAMPLES, EACH = np.repeat([-2, 0, 7], 4), np.tile(np.arange(4), 3)


def texts_of(ids, task="tokens", groups=SAMPLES, **more):
    logits = np.random.default_rng(0).normal(size=(len(ids), 2))
    predictions = Predictions(logits, EACH % 2, sample_ids=ids, groups=groups, task=task, **more)
    panel = stack([Checkpoint.from_predictions(predictions, epoch=1)])
    rows = [panel.sample_ids.tolist().index(row_id) for row_id in ids]
    return row_texts(panel, np.array(rows))


@pytest.mark.parametrize(
    ("task", "bits", "places", "written"),
    [
        ("tokens", 24, EACH, "document {}, token {}"),
        ("causal_lm", 24, EACH, "document {}, token {}"),
        ("pixels", 32, 5 << 16 | EACH, "image {}, row 5, column {}"),
        ("pixels", 32, 9 << 16 | 1020 + EACH * (1 << 11), "image {}"),  # or a voxel: nobody knows
    ],
)
def test_a_row_is_named_by_its_sample_and_its_place(task, bits, places, written):
    ids = (SAMPLES << bits) + places
    expected = [f"{row} ({written.format(*pair)})" for row, *pair in zip(ids, SAMPLES, EACH, strict=True)]
    assert texts_of(ids, task) == expected


def test_a_label_is_named_where_labels_have_names():
    ids, names = SAMPLES * 4 + EACH, ("cat", "dog", "a cow", "hen")
    named = [
        f"{row} (sample={sample}, {names[place]})"
        for row, sample, place in zip(ids, SAMPLES, EACH, strict=True)
    ]
    assert texts_of(ids, "multilabel", label_names=names) == named
    assert texts_of(ids, "multilabel") == list(map(str, ids))


def test_a_sample_whose_id_is_text_is_named_by_it():
    groups = np.repeat(["b", "a", "c"], 4)
    ids = (np.repeat([1, 0, 2], 4) << 24) + EACH
    assert texts_of(ids, groups=groups)[:5:4] == [
        f"{1 << 24} (document b, token 0)",
        "0 (document a, token 0)",
    ]


@pytest.mark.parametrize("groups", [None, np.repeat([0, 0, 7], 4), np.repeat(["b", "a", "c"], 4)])
def test_ids_that_may_be_the_users_own_stand_alone(groups):
    ids = (SAMPLES << 24) + EACH
    assert texts_of(ids, groups=groups) == list(map(str, ids))
    assert texts_of(ids, "multiclass") == list(map(str, ids))
    text = np.array([f"row {row}" for row in ids])
    assert texts_of(text) == list(text)


def test_the_page_names_tokens_where_it_lists_them(make_logits):
    logits, targets = make_logits(60, 3, 3, churn=0.2)
    samples = np.arange(60) // 6
    ids = (samples << 24) + np.arange(60) % 6
    run = [
        Checkpoint.from_predictions(
            Predictions(one, targets, sample_ids=ids, groups=samples, task="tokens"), epoch=epoch
        )
        for epoch, one in enumerate(logits)
    ]
    html = report(run).html
    table = re.search(r'<table id="movers">.*?</table>', html, re.DOTALL)[0]
    listed = re.findall(r"<tr><td>(\d+) \(document (\d+), token (\d+)\)</td>", table)
    assert len(listed) == 12
    assert all(int(row) == (int(sample) << 24) + int(place) for row, sample, place in listed)
    assert "16777219 (document 1, token 3)" in ids_of(html)


def ids_of(html):
    """Return the ids that the page's script lists."""
    packed = re.search(r'id="sample-data">([^<]*)<', html)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))["ids"]
