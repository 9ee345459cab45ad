"""Bits flipped, files cut, extended, emptied, exchanged: found before a number is made of it, or harmless."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import numpy as np
from small_runs import NAMES, attempt, call, copied, make_run, overwrite, read

from confshift import ConfshiftError, Run

KINDS = ("run.json", "class_names.json", "*/*.json", "*/*.columns.npy", "*/*.logits.npy", ".lock")
#: One attack in so many is also shown to the command line.
_SHOWN = 25
_COMMANDS = (("history",), ("verify",), ("compare", 0, 2), ("diagnose",))


def flips(folder, count, seed, *, pages=0):
    """Damage one file of a run `count` times, and read all of the run each time.

    Returns
    -------
    dict
        tried; found (listed as a problem, or by verify alone), harmless; failures, a list of sentences: a
        wrong number, damage that nothing tells of, an error that is not a ConfshiftError.
    """
    draw, tally, failures = random.Random(seed), Counter(), []
    path = make_run(folder / "run")
    names, whole, _ = read(path)
    for number in range(count):
        copy = copied(path, number)
        what = _damage(copy, draw, number)
        try:
            outcome = _judged(copy, names, whole)
            if number % _SHOWN == 0:
                command = _COMMANDS[number // _SHOWN % len(_COMMANDS)]
                code, raw = call(command[0], copy, *command[1:])
                outcome = raw or outcome if code in (0, 1, 2) else f"exit code {code}"
            if pages and number % pages == 0:
                code, raw = call("report", copy, "-o", folder / "page.html")
                outcome = raw or outcome
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if outcome in ("found", "harmless"):
            tally[outcome] += 1
        else:
            failures.append(f"{what}: {outcome}")
        shutil.rmtree(copy)
    return {"tried": count, **tally, "failures": failures}


def _damage(path, draw, number):
    """Damage a file, of each kind in turn; return what was done."""
    file = draw.choice(sorted(path.glob(KINDS[number % len(KINDS)])))
    raw = bytearray(file.read_bytes())
    how = draw.choice(["flip"] * 6 + ["cut", "extend", "empty", "zeros", "exchange"]) if raw else "extend"
    at = draw.randrange(len(raw)) if raw else 0
    if how == "flip":
        raw[at] ^= 1 << draw.randrange(8)
    elif how == "cut":
        del raw[at:]
    elif how == "extend":
        raw += draw.randbytes(draw.randrange(1, 100))
    elif how == "empty":
        raw.clear()
    elif how == "zeros":
        raw[at : at + 64] = bytes(len(raw[at : at + 64]))
    else:
        other = draw.choice(sorted(path.glob(KINDS[number % len(KINDS)])))
        raw, mine = bytearray(other.read_bytes()), raw
        overwrite(other, mine)
    overwrite(file, raw)
    return f"{how} {file.relative_to(path)} at {at}"


def _judged(path, names, whole):
    """Return "found" or "harmless", or what is wrong."""
    told, found, problems = read(path)
    if isinstance(found, ConfshiftError):
        return "found"
    for key, (columns, logits) in found.items():
        expected = whole.get(key)
        if expected is None:
            return f"{key} appeared"
        for number, right in ((columns, expected[0]), (logits, expected[1])):
            if not isinstance(number, ConfshiftError) and number != right:
                return f"a wrong number at {key}"
    same = found == whole and told == names
    if not same and told not in (NAMES, ("0", "1", "2", "3")):
        return f"class names {told}"
    if not same and problems.empty:
        return "something is missing, and nothing tells of it"
    if not same or not problems.empty:
        return "found"
    return "harmless" if attempt(lambda: Run(path).verify()["sound"].all()) is np.True_ else "found"
