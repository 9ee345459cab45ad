"""What `inspect` costs, beside the evaluation loop that it replaces.

Run as a script; nothing here is a test. Rounds are paired and interleaved in random order, each ratio is
that of two passes of one round, and what is printed is their median [lower, upper quartile].

    python tests/benchmarks/collector.py [--rounds 15] [--kinds mlp cnn] [--classes 3 10 128 1000] [--cpu]

The bare loop, as people write it: eval mode, `torch.no_grad()`, cross-entropy and accuracy of each batch,
`.item()` each time. Beside it, for information, the same in inference mode. With `--cpu` the CPU time of the
training's thread is taken, for a machine that others use: what it waits for is not in it.
"""

from __future__ import annotations

import argparse
import gc
import os
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


def measure_rounds(ways, rounds, settle, clock):
    """Return the seconds of each way in each round; `settle` runs untimed between two of them."""
    for way in ways.values():
        way()
        settle()
    seconds = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(ways)):
            gc.collect()
            gc.disable()
            start = clock()
            ways[name]()
            seconds[name].append(clock() - start)
            gc.enable()
            settle()
    return {name: np.array(times) for name, times in seconds.items()}


def compare(make, classes, *, samples, rounds, loaded, clock):
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
            checkpoint = confshift.inspect(model, loader, run=run, check=False)
            return checkpoint.loss, checkpoint.accuracy

        def flushed():
            confshift.inspect(model, loader, run=run, epoch=1, check=False)
            run.flush()

        ways = {
            "bare loop": lambda: bare_loop(model, loader),
            "bare loop again": lambda: bare_loop(model, loader),
            "bare loop, inference": lambda: bare_loop(model, loader, torch.inference_mode),
            "forward only": lambda: forward_only(model, loader),
            "inspect": lambda: confshift.inspect(model, loader, run=run, check=False),
            "inspect, loss, accuracy": evaluated,
            "inspect and metrics()": lambda: confshift.inspect(model, loader, run=run, check=False).metrics(),
            "inspect and flush()": flushed,
        }
        seconds = measure_rounds(ways, rounds, run.flush, clock)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=["mlp", "cnn"], choices=["mlp", "cnn"])
    parser.add_argument("--classes", nargs="+", type=int, default=[3, 10, 128, 1000])
    parser.add_argument(
        "--loaders", nargs="+", default=["list", "DataLoader"], choices=["list", "DataLoader"]
    )
    parser.add_argument("--cpu", action="store_true")
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
                    clock=time.thread_time if chosen.cpu else time.perf_counter,
                )
                bare = seconds["bare loop"]
                print(f"{kind} {loader} K={classes}: bare loop {1e3 * np.median(bare):.1f} ms")  # noqa: T201
                for name, times in seconds.items():
                    low, middle, high = np.percentile(times / bare, [25, 50, 75])
                    print(f"    {name:24s} {middle:.2f} [{low:.2f}, {high:.2f}]", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
