"""Per-sample losses of imagined runs, whose population mean at each epoch is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def simulated_losses(
    samples: int,
    epochs: int,
    random: np.random.Generator,
    *,
    memory: float = 0.95,
    jitter: float = 0.0,
    jitter_correlation: float = 0.0,
    rise: float = 0.0,
    rise_from: int = 10,
    risers: float = 0.2,
) -> NDArray[np.float64]:
    """Return losses of shape (epochs, samples).

    Each sample has a level with a heavy right tail and a movement of its own around it, autoregressive
    with coefficient `memory` (1: a random walk), of a scale that differs widely between samples. The
    population mean is constant but for normal `jitter` (its lag-1 correlation is `jitter_correlation`)
    and a line after epoch `rise_from` that ends `rise` higher, carried by a share `risers` of the samples.
    """
    level = random.gamma(0.4, 2.0, samples)
    scale = 0.25 * np.exp(random.standard_normal(samples))
    moves = random.standard_normal((epochs, samples)) * scale
    innovation = np.sqrt(1 - memory**2) if memory < 1 else 1.0
    movement = np.empty((epochs, samples))
    movement[0] = moves[0]
    for epoch in range(1, epochs):
        movement[epoch] = memory * movement[epoch - 1] + innovation * moves[epoch]
    line = rise * np.clip((np.arange(epochs) - rise_from) / (epochs - 1 - rise_from), 0, None)
    slopes = (random.random(samples) < risers) / risers * np.exp(0.8 * random.standard_normal(samples) - 0.32)
    shared = jitter * correlated(epochs, random, jitter_correlation)
    return level + movement + shared[:, None] + line[:, None] * slopes


def correlated(epochs: int, random: np.random.Generator, correlation: float) -> NDArray[np.float64]:
    """Return a stationary autoregressive series of variance 1."""
    noise = random.standard_normal(epochs)
    series = noise.copy()
    for epoch in range(1, epochs):
        series[epoch] = correlation * series[epoch - 1] + np.sqrt(1 - correlation**2) * noise[epoch]
    return series
