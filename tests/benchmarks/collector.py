"""What `inspect` costs, beside the evaluation loop that it replaces.

Run as a script; nothing here is a test. Rounds are paired and interleaved in random order, each ratio is
that of two passes of one round, and what is printed is their median, with the median difference in ms.

    python tests/benchmarks/collector.py [--rounds 15] [--kinds mlp cnn] [--classes 3 10 1000] [--all]

The bare loop, as people write it: eval mode, `torch.no_grad()`, cross-entropy and accuracy of each batch,
`.item()` each time. `inspect` is called as it is at every epoch but the first, whose checks are for once
(`--all` adds the first); "read" is the same with the loss and the accuracy read, which waits until the
background writer has scored. Three clocks: wall; the CPU time of the training's thread, for a machine that
others use (what it waits for is not in it); and that of the whole process until the checkpoint is on the
disk.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import confshift


def make_mlp(classes, samples):
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, classes))
    return model, torch.randn(samples, 64), 256


def make_cnn(classes, samples):
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(32, classes)),
    )
    return model, torch.randn(samples, 3, 32, 32), 128


def overconfident(model, inputs):
    """Make the logits 1.5 times too large for the targets that are returned: a trained model's state."""
    with torch.inference_mode():
        logits = torch.cat([model.eval()(part) for part in inputs.split(500)])
        model[-1].weight.mul_(3 / logits.std())
        logits = torch.cat([model(part) for part in inputs.split(500)])
    model.train()
    return torch.multinomial((logits / 1.5).softmax(1), 1)[:, 0]


def bare_loop(model, loader, mode=torch.no_grad):
    was_training = model.training
    model.eval()
    loss = right = samples = 0
    with mode():
        for inputs, targets in loader:
            logits = model(inputs)
            loss += functional.cross_entropy(logits, targets, reduction="sum").item()
            right += (logits.argmax(1) == targets).sum().item()
            samples += len(targets)
    model.train(was_training)
    return loss / samples, right / samples


def forward_only(model, loader):
    model.eval()
    with torch.no_grad():
        for inputs, _ in loader:
            model(inputs)
    model.train()


def clocks():
    return np.array([time.perf_counter(), time.thread_time(), time.process_time()])


def measure_rounds(ways, rounds, settle):
    """Return the seconds of each way in each round, by each clock; `settle` runs untimed between two of them.

    The last clock goes on until that is over.
    """
    for way in ways.values():
        way()
        settle()
    seconds = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(ways)):
            gc.collect()
            gc.disable()
            start = clocks()
            ways[name]()
            passed = clocks() - start
            settle()
            passed[2] = clocks()[2] - start[2]
            seconds[name].append(passed)
            gc.enable()
    return {name: np.array(times) for name, times in seconds.items()}


def compare(make, classes, *, samples, rounds, loaded, thorough):
    """Return the seconds of each way: the bare loop, `inspect`, and with `thorough` some for comparison."""
    torch.manual_seed(0)
    model, inputs, batch_size = make(classes, samples)
    targets = overconfident(model, inputs)
    if loaded:
        loader = DataLoader(TensorDataset(inputs, targets), batch_size)
    else:
        loader = list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        run = confshift.Run(folder)

        def evaluated():
            checkpoint = confshift.inspect(model, loader, run=run)
            return checkpoint.loss, checkpoint.accuracy

        def flushed():
            confshift.inspect(model, loader, run=run, epoch=1)
            run.flush()

        ways = {
            "bare loop": lambda: bare_loop(model, loader),
            "inspect": lambda: confshift.inspect(model, loader, run=run),
            "inspect, read": evaluated,
        }
        if thorough:
            ways |= {
                "bare loop again": lambda: bare_loop(model, loader),
                "bare loop, inference mode": lambda: bare_loop(model, loader, torch.inference_mode),
                "forward only": lambda: forward_only(model, loader),
                "inspect with its checks": lambda: confshift.inspect(model, loader, run=run, check=True),
                "inspect and metrics()": lambda: confshift.inspect(model, loader, run=run).metrics(),
                "inspect and flush()": flushed,
            }
        return measure_rounds(ways, rounds, run.flush)


def write(title, seconds):
    bare = seconds["bare loop"]
    milliseconds = ", ".join(f"{1e3 * value:.1f}" for value in np.median(bare, axis=0))
    sys.stdout.write(f"{title}: bare loop {milliseconds} ms (wall, its thread, all CPU)\n")
    for name, times in seconds.items():
        if name != "bare loop":
            ratios, more = np.median(times / bare, axis=0), 1e3 * np.median(times - bare, axis=0)
            cells = "  ".join(
                f"{ratio:5.2f} {extra:+7.1f} ms" for ratio, extra in zip(ratios, more, strict=True)
            )
            sys.stdout.write(f"    {name:26s} {cells}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=["mlp"], choices=["mlp", "cnn"])
    parser.add_argument("--classes", nargs="+", type=int, default=[3, 10, 1000])
    loaders = ["DataLoader", "list"]
    parser.add_argument("--loaders", nargs="+", default=loaders, choices=loaders)
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for kind in chosen.kinds:
        for loader in chosen.loaders:
            for classes in chosen.classes:
                seconds = compare(
                    {"mlp": make_mlp, "cnn": make_cnn}[kind],
                    classes,
                    samples=chosen.samples,
                    rounds=chosen.rounds,
                    loaded=loader == "DataLoader",
                    thorough=chosen.all,
                )
                write(f"{kind} {loader} K={classes}", seconds)


if __name__ == "__main__":
    main()
