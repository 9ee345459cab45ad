"""The logits that findings read: those of the samples that can be scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.checkpoint import Checkpoint

__all__ = ["scored_logits"]


def scored_logits(checkpoint: Checkpoint) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Return logits and targets of the samples with a finite loss; where that is all, as they are stored."""
    predictions, finite = checkpoint.predictions, checkpoint.columns["finite"].to_numpy()
    if finite.all():
        return predictions.logits, predictions.targets
    return predictions.logits[finite], predictions.targets[finite]
