"""Scenarios of several ranks: processes of a gloo group, forked from one that has made the slow imports.

A script of scenarios ends with `main(sys.argv[1])`; a test starts it and reads what each rank saw.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from confshift import Run

SCENARIOS = {}


def scenario(size):
    """Note a function of the scenario's folder and the rank; it is called on so many ranks."""

    def note(function):
        SCENARIOS[function.__name__] = size, function
        return function

    return note


def started(script, folder, warnings="error"):
    """Run every scenario of a script once, in folders of their own."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-W", warnings, str(script), str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return folder


def results_of(folder, scenario):
    """Return the result of each rank, and what each has logged."""
    place = folder / scenario
    errors = {path.name: path.read_text() for path in place.glob("*.error")}
    assert not errors
    loaded = [pickle.loads(path.read_bytes()) for path in sorted(place.glob("*.pickle"))]
    return [result for result, _ in loaded], [logged for _, logged in loaded]


def seen(checkpoint):
    """Return what a test compares of a checkpoint."""
    rows = checkpoint.predictions
    return {
        "epoch": checkpoint.epoch,
        "loss": checkpoint.loss,
        "logits": rows.logits.copy(),
        "targets": rows.targets.copy(),
        "ids": rows.sample_ids.copy(),
        "duplicates": rows.duplicate_samples,
        "checks": dict(checkpoint.provenance.checks),
        "in_memory": not checkpoint.provenance.writer,
    }


def refused(function, *args, **options):
    """Return the type and the text of a call's error, and how long it took."""
    begin = time.monotonic()
    try:
        function(*args, **options)
    except Exception as error:  # the tests look at its type
        return type(error).__name__, str(error), time.monotonic() - begin
    return "", "", 0.0


def _run_rank(name, folder, rank):
    size, function = SCENARIOS[name]
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("confshift").addHandler(handler)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    result = function(folder, rank)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps((result, records)))
    if rank == 0 and (folder / "run").is_dir() and Run(folder / "run").exists():
        Run(folder / "run").flush()


def main(folder):
    """Run all scenarios, one after the other."""
    torch.set_num_threads(1)
    for name, (size, _) in SCENARIOS.items():
        place = Path(folder) / name
        place.mkdir()
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    _run_rank(name, place, rank)
                    status = 0
                except BaseException as error:  # to be seen by the test that reads the result
                    (place / f"{rank}.error").write_text(f"{type(error).__name__}: {error}")
                os._exit(status)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
