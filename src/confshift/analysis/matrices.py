"""A panel's matrices (T, N): kept where the panel is small, made anew for each part of a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

#: A matrix of up to so many numbers stays in memory; a larger one is made anew whenever it is asked for, so
#: whoever goes through all checkpoints does so one by one, or in blocks of samples.
KEPT_NUMBERS = 1 << 20


class Matrix(Generic[Number]):
    """A matrix (T, N) of a panel, made when it is asked for: a cached property, but for large panels.

    That of a part of a small panel is a part of that panel's.
    """

    def __init__(self, make: Callable[[Any], NDArray[Number]]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def of(self, panel: object) -> NDArray[Number]:
        """Return the matrix of a panel: for code that one of several matrices is passed to."""
        return self.__get__(panel, type(panel))

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, panel: None, owner: type) -> Matrix[Number]: ...

    @overload
    def __get__(self, panel: object, owner: type) -> NDArray[Number]: ...

    def __get__(self, panel: Any, owner: type) -> Matrix[Number] | NDArray[Number]:
        if panel is None:
            return self
        matrices: dict[str, Any] = panel._matrices
        matrix: NDArray[Number] | None = matrices.get(self._name)
        if matrix is None:
            whole: PartOf | None = panel.part_of
            if whole is not None and whole.panel.is_small:
                matrix = whole.cut(getattr(whole.panel, self._name))
            else:
                matrix = self._make(panel)
            if panel.is_small:
                matrices[self._name] = matrix
        return matrix


class Counts(NamedTuple):
    """Of each checkpoint, (T,): the samples with an answer, with a finite loss, and with an infinite one."""

    answered: NDArray[np.int64]
    finite: NDArray[np.int64]
    infinite: NDArray[np.int64]


class PartOf(NamedTuple):
    """The panel that another is a part of, and which part."""

    panel: Any
    places: list[int] | slice
    samples: NDArray[np.bool_] | slice

    @property
    def all_samples(self) -> bool:
        """Whether it has all samples of the panel."""
        return isinstance(self.samples, slice) and self.samples == slice(None)

    def cut(self, matrix: NDArray[Number]) -> NDArray[Number]:
        """Return the part of a matrix of the panel; a view, where it has no gaps."""
        return matrix[self.places][:, self.samples]
