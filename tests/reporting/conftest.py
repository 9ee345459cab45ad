"""Pages of runs with a known answer, each made once."""

from __future__ import annotations

import pytest
from hostile_names import HOSTILE_NAMES, HOSTILE_TITLE
from visiting import Visit

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting.page import report


@pytest.fixture(scope="session")
def make_run(make_logits):
    """Return a maker of runs in memory: checkpoints of the same samples, epochs 0, 1, 2, ..."""

    def make(samples=240, classes=4, checkpoints=7, *, split="val", churn=0.3, seed=0, **names):
        logits, targets = make_logits(samples, classes, checkpoints, churn=churn, seed=seed)
        return [
            Checkpoint.from_predictions(Predictions(part, targets, **names), epoch=epoch, split=split)
            for epoch, part in enumerate(logits)
        ]

    return make


@pytest.fixture(scope="session")
def run(make_run):
    """Return a run with a train split beside val."""
    return [*make_run(), *make_run(100, split="train", seed=1)]


@pytest.fixture(scope="session")
def page(run):
    return report(run, title="a run")


@pytest.fixture(scope="session")
def path(tmp_path_factory, page):
    return page.save(tmp_path_factory.mktemp("page") / "page.html").path


@pytest.fixture
def visit(browser, path):
    """Return the page as it opens; most tests find it open, and put back to that."""
    browser.set_window_size(1280, 1000)
    return Visit(browser, path).reopen()


@pytest.fixture(scope="session")
def history(run):
    return summarize(run)


@pytest.fixture(scope="session")
def comparison(history):
    return compare(*history.pair)


@pytest.fixture(scope="session")
def hostile_page(make_run):
    ids = [f"<img src=x onerror=alert({number})>" for number in range(60)]
    run = make_run(60, 3, 4, sample_ids=ids, class_names=HOSTILE_NAMES)
    return report(run, title=HOSTILE_TITLE)


@pytest.fixture(scope="module")
def pictures_on_shared_pages_alone(page, hostile_page, blank_pictures):
    """Of the pages that a file's tests make none has pictures; those that all files share are made before."""
