"""The logits that findings read: those of the samples that can be scored, if they can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.finding import Finding
from confshift.findings.wording import epoch

__all__ = ["scored_logits", "without_logits"]


def scored_logits(checkpoint: Checkpoint) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Return logits and targets of the samples with a finite loss; where that is all, as they are stored."""
    predictions, finite = checkpoint.predictions, checkpoint.columns["finite"].to_numpy()
    if finite.all():
        return predictions.logits, predictions.targets
    return predictions.logits[finite], predictions.targets[finite]


def without_logits(code: str, title: str, *checkpoints: Checkpoint) -> Finding | None:
    """Return the answer to a question whose logits can't be read; None where they can."""
    for checkpoint in checkpoints:
        try:
            checkpoint.predictions  # noqa: B018
        except ConfshiftError as error:
            sentence = (
                f"This needs the logits of epoch {epoch(checkpoint.epoch)}, and they can't be used: {error}. "
                "Losses, accuracies and all that follows from them are stored apart."
            )
            step = f"Put that file back from a copy, or inspect epoch {epoch(checkpoint.epoch)} again."
            return Finding(code, title, "cannot tell", sentence, pd.DataFrame(), step)
    return None
