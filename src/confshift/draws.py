"""Random numbers that made nobody's data."""

from __future__ import annotations

import numpy as np

#: Any number will do that nobody else seeds a generator with.
_OWN = 0x636F6E667368696674


def own_generator(seed: int) -> np.random.Generator:
    """Return a generator for folds, permutations and simulated labels.

    `default_rng(seed)` may have made the data: labels in an order that it drew would fill one fold each.
    """
    return np.random.default_rng((_OWN, seed))
