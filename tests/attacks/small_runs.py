"""A small run to attack, and everything that can be read of one."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np

import confshift
from confshift import ConfshiftError, Predictions, Run

SAMPLES, CLASSES, EPOCHS = 30, 4, 3
NAMES = ("cat", "dog", "<b>&é", "猫")


def make_run(path, *, names=NAMES):
    """Save three epochs of val and one of train, with every kind of note, and return the folder."""
    random = np.random.default_rng(0)
    targets = random.integers(0, CLASSES, SAMPLES)
    ids = [f"sample {number:03d} é" for number in range(SAMPLES)]
    groups = [f"document {number // 2} é" for number in range(SAMPLES)]
    run = Run(path)
    for split, epochs in (("val", range(EPOCHS)), ("train", [2])):
        for epoch in epochs:
            logits = random.normal(size=(SAMPLES, CLASSES)).astype(np.float32) * (epoch + 1)
            run.append(
                Predictions(logits, targets, sample_ids=ids, class_names=names, groups=groups),
                epoch=epoch,
                split=split,
                metadata={"lr": 0.1, "class_weights": [1.0, 2.0, 3.0, 4.0]},
                logged={"loss": 1.5},
                checks={"modes": {"status": "passed", "count": 0, "modules": []}},
            )
    run.flush()
    return Path(path)


def copied(path, number):
    """Return a copy of a run that no cache of this process knows; it shares the files until overwritten."""
    copy = path.with_name(f"{path.name}-{number}")
    shutil.copytree(path, copy, copy_function=os.link)
    return copy


def overwrite(file, content):
    """Give a file of a copy another content, the original keeping its own."""
    file.unlink()
    file.write_bytes(content)


def attempt(action, *arguments):
    """Return what an action gives, or the ConfshiftError it ends in; any other error passes through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action(*arguments)
    except ConfshiftError as error:
        return error


def numbers_of(checkpoint):
    """Return all that is read of a checkpoint, as bytes: columns and logits, or why there are none."""
    columns = attempt(lambda: checkpoint.measurement.rows.tobytes())
    logits = attempt(lambda: np.ascontiguousarray(checkpoint.predictions.logits).tobytes())
    return columns, logits


def read(path):
    """Return the class names and, by split and epoch, the numbers of a run; or the error it ends in."""
    run = Run(path)
    names = attempt(lambda: run.class_names)
    found = attempt(lambda: {(one.split, one.epoch): numbers_of(one) for one in run})
    return names, found, attempt(lambda: run.problems)


def judge(path):
    """Ask all questions about a run, and put the answers into words; numbers may overflow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _judge(path)


def _judge(path):
    from confshift.findings.diagnosis import diagnose
    from confshift.reporting.output import comparison_text, history_text
    from confshift.reporting.summary import findings_text

    run = Run(path)
    attempt(lambda: (len(run), run.epochs, run.splits, run.verify()))
    history = attempt(confshift.summarize, run)
    if isinstance(history, ConfshiftError):
        return
    attempt(lambda: history_text(history).encode())
    findings = attempt(diagnose, history)
    if not isinstance(findings, ConfshiftError):
        findings_text(findings, {}).encode()
    comparison = attempt(lambda: confshift.compare(run[0], run[2]))
    if not isinstance(comparison, ConfshiftError):
        comparison_text(comparison).encode()
        attempt(lambda: comparison.competitors)


def call(*arguments):
    """Run a command; return its exit code, 1 also for a traceback, and what it printed."""
    from click.testing import CliRunner

    from confshift.cli import main

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(main, [str(one) for one in arguments])
    raw = done.exception is not None and not isinstance(done.exception, SystemExit)
    return done.exit_code, f"{type(done.exception).__name__}: {done.exception}" if raw else ""
