"""The small real training that `confshift demo` inspects: handwritten digits, and a loss that rises.

Scikit-learn's 1,797 digits are halved. The network learns from 100 images of the training half, 4 of which
get a wrong label, and is inspected on all of the other half, whose labels are unchanged. It has three hidden
layers of 256 units, far more than 100 images can constrain. By epoch 15 it has memorised 99 of the 100
labels, so some wrong ones too; from then on only larger logits can lower the training loss. They hardly help
on validation images that the network gets right already; on those it gets wrong, about one in six, they make
it wrong with ever more confidence. So the mean loss rises while hardly any answer changes between right and
wrong.

Measured for seeds 0 to 9: from the best epoch (8 to 14) to the last the loss rises by 35 to 61 %; accuracy
changes by +0.1 points on average, with a standard deviation of 2.1, most of it the jitter of early epochs.
The default seed, 5, is one whose accuracy ends where it was (+0.1 points; loss +55 %).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from confshift.collection.inspection import inspect
from confshift.errors import ConfshiftError
from confshift.storage.run import Run

EPOCHS = 60
SEED = 5
_IMAGES = 100
_WRONG_LABELS = 4
_WIDTH = 256
_LEARNING_RATE = 3e-3
_BATCH = 20
_TRAIN_EVERY = 5  # epochs between looks at the training images
_CLASSES = 10
_NOTES = {"made_by": "confshift demo", "lr": _LEARNING_RATE}


def train(path: str | Path, *, epochs: int = EPOCHS, seed: int = SEED) -> Run:
    """Train the network; inspect it before training and after each epoch.

    Parameters
    ----------
    path : path-like
        The run's folder. An earlier demo there is replaced.
    epochs : int
    seed : int
        Of the halves, the wrong labels, the initial weights and the order of the batches: on one machine each
        demo is the same. Global random states stay unchanged.

    Returns
    -------
    Run
        Saved: split "val" at every epoch, and "train", in eval mode and with its wrong labels, at every
        fifth and at the last.

    Raises
    ------
    ConfshiftError
        Where `path` holds a run that is not a demo run.
    """
    run = _empty_run(path)
    training, validation = _halves(seed)
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        model = _network()
        batches = DataLoader(training, _BATCH, shuffle=True, generator=torch.Generator().manual_seed(seed))
        looks = {"val": DataLoader(validation, 256), "train": DataLoader(training, 256)}
        optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
        for epoch in tqdm(range(epochs + 1), "demo", disable=None, leave=False, unit="epoch"):
            if epoch:
                _train_one_epoch(model, batches, optimizer)
            inspect(model, looks["val"], run=run, epoch=epoch, metadata=_NOTES, strict=True)
            if epoch % _TRAIN_EVERY == 0 or epoch == epochs:
                inspect(
                    model, looks["train"], run=run, split="train", epoch=epoch, metadata=_NOTES, strict=True
                )
    run.flush()
    return run


def validation_images(*, seed: int = SEED) -> NDArray[np.uint8]:
    """Return the images that a demo is inspected on, for `report(thumbnail=...)`.

    Returns
    -------
    ndarray, shape (N, 8, 8)
        Black ink on white, by sample id.
    """
    pixels = _halves(seed)[1].tensors[0].numpy().reshape(-1, 8, 8)
    return np.asarray(255 * (1 - pixels)).astype(np.uint8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: more gain nothing with matrices this small, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _empty_run(path: str | Path) -> Run:
    """Return an empty run; delete an earlier one there only if a demo wrote it."""
    run = Run(path)
    if run.exists():
        if any(checkpoint.metadata.get("made_by") != _NOTES["made_by"] for checkpoint in run):
            raise ConfshiftError(
                f"run={str(path)!r} holds a run that is not a demo run; give the demo another folder"
            )
        run.delete()
    return run


def _halves(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Return some images of one half, a few with a wrong label, and all images of the other half."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    half = len(order) // 2
    labels = digits.target.copy()
    wrong = order[:_WRONG_LABELS]
    labels[wrong] = (labels[wrong] + rng.integers(1, _CLASSES, _WRONG_LABELS)) % _CLASSES
    return _dataset(digits.data, labels, order[:_IMAGES]), _dataset(digits.data, labels, order[half:])


def _dataset(
    images: NDArray[np.float64], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> TensorDataset:
    pixels = images[rows].astype(np.float32) / 16  # as given, 0 to 16
    return TensorDataset(torch.from_numpy(pixels), torch.from_numpy(labels[rows]))


def _network() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(64, _WIDTH), nn.ReLU()),
        *(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()),
        *(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()),
        nn.Linear(_WIDTH, _CLASSES),
    )


def _train_one_epoch(
    model: nn.Module, batches: DataLoader[tuple[torch.Tensor, ...]], optimizer: torch.optim.Optimizer
) -> None:
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
