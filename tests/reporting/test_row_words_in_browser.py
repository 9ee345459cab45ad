"""The script of the page calls the rows what Python calls them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from visiting import Visit

from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting.page import report

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("blank_pictures")]


def test_another_pair_and_a_chosen_row_are_described_in_the_words_of_the_task(browser, tmp_path, make_logits):
    logits, targets = make_logits(120, 2, 3, churn=0.2)
    run = [
        Checkpoint.from_predictions(
            Predictions(
                one, targets, groups=np.arange(120) // 4, task="multilabel", label_names=["cat", "dog"]
            ),
            epoch=epoch,
        )
        for epoch, one in enumerate(logits)
    ]
    report(run, tmp_path / "page.html")
    visit = Visit(browser, tmp_path / "page.html").open()
    visit.choose(0, 1)
    visit.run("return window.confshift.choose({pinned: 3})")
    seen = visit.run("return document.body.innerText").replace("\xa0", " ")
    assert "120 labels of 30 samples" in seen
    assert "95 % interval by 30 samples" in seen
    assert "Label 3, true class" in seen
    classes = visit.run("return document.querySelector('#classes').textContent")
    assert re.search("Which labels the change comes from.*(cat.*dog|dog.*cat)", classes, re.DOTALL)
    rows = r"\b(120|1|one|each|of the|single) samples?\b"
    assert not re.search(rows, seen), re.search(rows, seen)
    assert not re.search(r"\bgroups?\b(?!=)", seen)
