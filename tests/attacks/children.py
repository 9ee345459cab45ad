"""Processes that save in a run and say so, byte by byte."""

from __future__ import annotations

import logging
import os
import warnings

import numpy as np

from confshift import Predictions

SAMPLES, CLASSES = 500, 100


def big(seed):
    """Return predictions that take some writing, of the same samples for every seed."""
    logits = np.random.default_rng(seed).normal(size=(SAMPLES, CLASSES)).astype(np.float32)
    return Predictions(logits, np.arange(SAMPLES) % CLASSES)


def start_child(action):
    """Fork a child that does `action(say)`; return its pid and the pipe on which it says bytes."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the fork; no thread has a lock here
        child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        logging.disable()  # that older epochs are replaced is meant
        action(lambda text: os.write(writing, text))
    finally:
        os._exit(9)
