"""What decides how the charts are framed; the data itself comes later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """Which epochs, classes and ranges the charts show."""

    epochs: Sequence[float]  # ascending
    classes: int  # shown one by one
    odds_ticks: Sequence[float]  # the first and the last bound the axis of log-odds
    limits: Mapping[str, Mapping[str, float]]  # of the charts over epochs: the scale of each span
    splits: bool  # whether there is another split
    rises: bool  # whether the begin of a rise is known
    infinite: bool = False  # whether the loss is infinite at some epoch
    runs: Sequence[str] = ()  # what two runs are called; then there is a checkpoint of each
    lone: bool = False  # whether one of the two has no other checkpoint

    @property
    def two_runs(self) -> bool:
        """Whether two runs are compared."""
        return len(self.runs) > 1

    @property
    def ends(self) -> tuple[float, float] | None:
        """The first and the last epoch of one run; the other split's lie between them."""
        return (self.epochs[0], self.epochs[-1]) if self.paired and not self.two_runs else None

    @property
    def paired(self) -> bool:
        """Whether there are two checkpoints to compare."""
        return len(self.epochs) > 1
