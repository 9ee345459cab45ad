"""Five real trainings whose validation losses rise for different reasons: what they said, kept as arrays.

    python tests/findings/real_runs.py

trains them anew and replaces the arrays. Tests read only the arrays: the last bits of a training differ
from processor to processor, and a verdict near its threshold with them.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions

ARRAYS = Path(__file__).with_name("real_runs")


class Data(NamedTuple):
    """Inputs and labels of both halves; `wrong` marks the validation labels that were drawn anew."""

    inputs: np.ndarray
    labels: np.ndarray
    val_inputs: np.ndarray
    val_labels: np.ndarray
    wrong: np.ndarray


class Recipe(NamedTuple):
    hidden: tuple[int, ...]
    epochs: int
    rate: float
    drops: tuple[int, ...] = ()  # the last epoch at each rate; the next is at a tenth of it
    batch: int = 64
    dropout: float = 0.0
    adam: bool = False
    samples: int = 1000  # of the validation half, at most, that are kept
    every: int = 1  # keep each, every second, ... epoch


def gaussian_classes(classes, samples, *, dimensions, distance, noise, shares=None, seed=0):
    """Draw classes around two centres each, and a share `noise` of all labels, both halves, anew."""
    random = np.random.default_rng(seed)
    total = sum(samples)
    truth = random.choice(classes, total, p=shares)
    centres = random.normal(size=(2, classes, dimensions)) * distance
    inputs = centres[random.integers(0, 2, total), truth] + random.normal(size=(total, dimensions))
    wrong = random.random(total) < noise
    labels = np.where(wrong, (truth + random.integers(1, classes, total)) % classes, truth)
    first = samples[0]
    return Data(inputs[:first], labels[:first], inputs[first:], labels[first:], wrong[first:])


def frozen_features(data, *, features, seed=0):
    """Replace the inputs by what a network that is never trained makes of them."""
    random = np.random.default_rng(seed)
    width = data.inputs.shape[1]
    weights = random.normal(size=(width, features)) / np.sqrt(width)
    return data._replace(
        inputs=np.maximum(data.inputs @ weights, 0), val_inputs=np.maximum(data.val_inputs @ weights, 0)
    )


def digits(*, train, noise, seed=0):
    """Scikit-learn's digits: some training labels wrong, no validation label."""
    images = load_digits()
    random = np.random.default_rng(seed)
    order = random.permutation(len(images.target))
    inputs, labels = images.data[order] / 16, images.target[order].copy()
    wrong = np.flatnonzero(random.random(train) < noise)
    labels[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    none = np.zeros(len(order) - train, bool)
    return Data(inputs[:train], labels[:train], inputs[train:], labels[train:], none)


def network(sizes, dropout):
    layers = []
    for ins, outs in pairwise(sizes[:-1]):
        layers += [nn.Linear(ins, outs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(sizes[-2], sizes[-1]))


@cache
def checkpoints_of(name):
    """Return a run's checkpoints, epoch 0 first, from the kept arrays."""
    with np.load(ARRAYS / f"{name}.npz") as kept:
        targets, epochs, rates = (kept[key] for key in ("targets", "epochs", "rates"))
        logits = kept["logits"].astype(np.float32)
    return [
        Checkpoint.from_predictions(
            Predictions(rows, targets), epoch=float(epoch), metadata={"lr": float(rate)}
        )
        for epoch, rate, rows in zip(epochs, rates, logits, strict=True)
    ]


@cache
def wrong_labels_of(name):
    """Return which of a run's validation labels were drawn anew."""
    with np.load(ARRAYS / f"{name}.npz") as kept:
        return kept["wrong"]


def keep(name):
    """Train, and write down the largest logit's distance to the others, which is all that matters."""
    data, recipe = RECIPES[name]()
    rates, logits = zip(*train(data, recipe), strict=True)
    rows, epochs = slice(recipe.samples), slice(None, None, recipe.every)
    below_top = [z[rows] - z[rows].max(axis=1, keepdims=True) for z in logits[epochs]]
    np.savez_compressed(
        ARRAYS / f"{name}.npz",
        logits=np.array(below_top, np.float16),
        targets=data.val_labels[rows].astype(np.uint8),
        wrong=data.wrong[rows],
        epochs=np.arange(recipe.epochs + 1)[epochs].astype(np.uint8),
        rates=np.array(rates[epochs]),
    )


def train(data, recipe, *, seed=0):
    """Train, and return rate and logits of the validation half before the training and after each epoch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return list(_epochs(data, recipe))
    finally:
        torch.set_num_threads(threads)


def _epochs(data, recipe):
    inputs, val_inputs = (torch.from_numpy(x.astype(np.float32)) for x in (data.inputs, data.val_inputs))
    labels = torch.from_numpy(data.labels)
    model = network((inputs.shape[1], *recipe.hidden, int(data.labels.max()) + 1), recipe.dropout)
    if recipe.adam:
        optimizer = torch.optim.Adam(model.parameters(), recipe.rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), recipe.rate, momentum=0.9)
    for epoch in range(recipe.epochs + 1):
        rate = recipe.rate * 0.1 ** sum(epoch > drop for drop in recipe.drops)
        optimizer.param_groups[0]["lr"] = rate
        model.train()
        for rows in torch.randperm(len(labels)).split(recipe.batch) if epoch else ():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            logits = model(val_inputs).numpy()
        yield rate, logits


def lr_drops(seed=0):
    data = gaussian_classes(10, (800, 1500), dimensions=20, distance=0.75, noise=0.05, seed=seed)
    return data, Recipe((64,), 60, 0.15, drops=(20, 40), batch=32, samples=700)


def three_classes(seed=2):
    data = gaussian_classes(3, (100, 1000), dimensions=60, distance=0.4, noise=0.05, seed=seed)
    return data, Recipe((8,), 60, 0.05, batch=32)


def many_classes(seed=0):
    data = gaussian_classes(64, (2560, 1600), dimensions=24, distance=1.0, noise=0.10, seed=seed)
    return frozen_features(data, features=256, seed=seed), Recipe(
        (), 40, 0.1, batch=256, samples=600, every=3
    )


def noisy_digits(seed=0):
    return digits(train=700, noise=0.10, seed=seed), Recipe((64,), 80, 0.02, every=2)


def imbalanced(seed=0):
    data = gaussian_classes(
        2, (800, 1500), dimensions=10, distance=0.6, noise=0.0, shares=(0.8, 0.2), seed=seed
    )
    return data, Recipe((64,), 60, 0.1, samples=1500)


RECIPES = {
    "lr_drops": lr_drops,
    "three_classes": three_classes,
    "many_classes": many_classes,
    "noisy_digits": noisy_digits,
    "imbalanced": imbalanced,
}


if __name__ == "__main__":
    ARRAYS.mkdir(exist_ok=True)
    for name in RECIPES:
        keep(name)
