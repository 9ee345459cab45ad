"""Processes that save the same epochs of one run at once: one wins each, the others are told."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter

from children import big, start_child
from small_runs import call

from confshift import ConfshiftError, Run
from confshift.storage import writer

_REFUSED = re.compile(r"saved epoch \d+ meanwhile|saved by another process that is still running")


def rivals(folder, count, seed, *, numbers=(2, 4)):
    """Let two, then four processes save the same `count` epochs, and read the run meanwhile.

    Returns
    -------
    dict
        tried, the saves; acknowledged; refused; looks, how often the run was read meanwhile; failures, a
        list of sentences.
    """
    tally, failures = Counter(), []
    for number in numbers:
        failures += [
            f"{number} writers: {one}" for one in _race(folder / str(number), number, count, seed, tally)
        ]
    return {**tally, "failures": failures}


def _race(path, number, count, seed, tally):
    Run(path).append(big(0), epoch=0)  # so that each of them resumes a run
    Run(path).flush()
    writer._finish()
    writer._forget_writers()
    start, started = os.pipe()
    end, ended = os.pipe()
    children = []
    for own in range(1, number + 1):
        draw = random.Random(f"{seed} {own}")

        def save(say, own=own, draw=draw):
            os.close(started)
            os.close(ended)
            os.read(start, 1)  # until all are there
            _save(path, range(1, count + 1), own, draw, say)
            os.read(end, 1)  # what has ended may be resumed, so none ends before the others

        children.append(start_child(save))
    os.close(started)
    failures = []
    outcomes = dict.fromkeys(range(1, number + 1), b"")
    for _, pipe in children:
        os.set_blocking(pipe, False)
    while any(len(said) < count for said in outcomes.values()):
        failures += _torn(path, number, final=False)
        tally["looks"] += 1
        for own, (_, pipe) in enumerate(children, 1):
            try:
                said = os.read(pipe, 1000)
            except BlockingIOError:
                continue
            outcomes[own] += said
            if not said:
                outcomes[own] += b"!" * (count - len(outcomes[own]))
        time.sleep(0.001)
    os.close(ended)
    for pid, pipe in children:
        os.waitpid(pid, 0)
        os.close(pipe)
    os.close(start)
    os.close(end)
    failures += _torn(path, number, final=True)
    stored = _stored(path)
    for place in range(count):
        epoch, said = place + 1, [outcomes[own][place : place + 1] for own in outcomes]
        tally["tried"] += number
        tally["acknowledged"] += said.count(b"+")
        tally["refused"] += said.count(b"-")
        if sorted(said) != [b"+", *[b"-"] * (number - 1)]:
            failures.append(f"epoch {epoch}: {said}")
        elif stored.get(epoch) != big(1 + said.index(b"+")).logits.tobytes():
            failures.append(f"epoch {epoch} is not what the process saved that was told so")
    code, raw = call("repair", path)
    return failures + ([] if code == 0 else [f"repair: exit code {code} {raw}"])


def _save(path, epochs, own, draw, say):
    run, given = Run(path), big(own)
    for epoch in epochs:
        time.sleep(draw.uniform(0, 0.005))
        try:
            run.append(given, epoch=epoch)
            run.flush()
            say(b"+")
        except ConfshiftError as error:
            say(b"-" if _REFUSED.search(str(error)) else b"?")


def _stored(path):
    writer._forget_writers()
    return {int(one.epoch): one.predictions.logits.tobytes() for one in Run(path).checkpoints()}


def _torn(path, number, *, final):
    """Return what a reader finds wrong now."""
    whole = [big(own).logits.tobytes() for own in range(number + 1)]
    found = [f"epoch {epoch} is mixed" for epoch, logits in _stored(path).items() if logits not in whole]
    problems = Run(path).problems
    if not problems.empty:
        found.append(problems.to_string())
    if final and not Run(path).verify()["sound"].all():
        found.append("verify finds damage")
    return found
