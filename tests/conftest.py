"""Fixtures for every test: runs with a known answer, and a browser."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from chromium import missing_chromium, start_chromium

# Examples are drawn the same way on every machine, and no test is judged by a clock.
settings.register_profile("confshift", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("confshift")

# Texts are Python's strings: pyarrow's, which pandas takes where it is installed, cost an eighth of all time.
# Commands that tests start have pyarrow's, and with TEXTS=pyarrow so do the tests.
pd.set_option("mode.string_storage", os.environ.get("TEXTS", "python"))

# A job in the background ignores Ctrl-C and hands that on; the tests of interrupts need Python's own handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Nothing that is made while tests are collected goes away before they have run.
gc.disable()


def pytest_collection_finish() -> None:
    """Keep what thousands of collected tests are made of out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()
    gc.enable()


MakeLogits = Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]


@pytest.fixture(scope="session")
def make_logits() -> MakeLogits:
    """Return a generator of runs whose loss rises while the accuracy stays flat.

    `make_logits(samples, classes, checkpoints, seed=0, churn=0.0)` gives logits (T, N, K) and targets (N,).

    Checkpoint t is the same evidence x (the true class gets SHIFT, every class noise of variance 1) times a
    scale that grows from SHIFT, where such logits are calibrated, to four times it. So with churn = 0 the
    predictions, the accuracy and the refinement are the same at every checkpoint, the temperature is
    proportional to the scale, and the whole rise of the loss is calibration. With churn > 0 that share of the
    noise's variance is drawn anew at each checkpoint: samples are learned and forgotten, the accuracy stays
    flat on average.
    """
    shift = 1.5

    def make(
        samples: int, classes: int, checkpoints: int, *, seed: int = 0, churn: float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        targets = rng.integers(0, classes, samples)
        lasting = rng.normal(size=(samples, classes))
        fresh = rng.normal(size=(checkpoints, samples, classes))
        evidence = np.sqrt(1 - churn) * lasting + np.sqrt(churn) * fresh
        evidence[:, np.arange(samples), targets] += shift
        scales = shift * np.geomspace(1, 4, checkpoints)
        return evidence * scales[:, None, None], targets

    return make


@pytest.fixture(scope="module")
def blank_pictures() -> Iterator[None]:
    """Spare pages whose still pictures no test looks at the third of a second in which five are drawn."""
    from confshift.reporting import template_context, vega

    def pictures(*arguments: Any, **options: Any) -> dict[str, str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vega, "_convert", lambda name, specs: ["<svg></svg>" for _ in specs])
            return vega.pictures(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_context, "pictures", pictures)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start a headless chromium by selenium; skip without one, but fail where CI=true promised it."""
    if missing_chromium():
        message = "this test needs Debian's chromium and chromium-driver: apt-get install them"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    session = start_chromium()
    yield session
    session.quit()
