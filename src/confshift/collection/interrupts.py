"""Interrupts: Ctrl-C may end a pass, but not the restoring after it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

#: Signals for which programs set handlers that raise: Ctrl-C, the end of a job, a time limit.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


class Interrupts:
    """A context that holds signals back, except inside :meth:`delivered`.

    It holds back those with a handler in Python, until the end of the context at the latest. Python runs
    handlers in the main thread only: elsewhere there is nothing to hold back.

    The handlers stay in place for the whole context and look at a flag. Setting a flag can't be interrupted
    half-way; installing a handler can.
    """

    def __init__(self) -> None:
        self._holding = True
        self._pending: list[tuple[int, FrameType | None]] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._own = self._receive  # one object: each access to the method makes another

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._own)
        return self

    def __exit__(self, *_: object) -> None:
        self._holding = True
        try:
            for number, handler in reversed(self._handlers.items()):  # Ctrl-C last: it may strike at once
                if signal.getsignal(number) is self._own:
                    signal.signal(number, handler)
        finally:
            self._holding = False
            self._deliver()

    def delivered(self) -> _Delivered:
        """Return a context that lets signals through, those held back so far first."""
        return _Delivered(self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._pending.append((number, frame))
        else:
            self._handlers[number](number, frame)

    def _deliver(self) -> None:
        while self._pending:
            number, frame = self._pending.pop(0)
            self._handlers[number](number, frame)


class _Delivered:
    """Not a generator: between its `yield` and the body of the `with` an interrupt would skip the rest."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts._holding = False
        try:
            self._interrupts._deliver()
        except BaseException:
            self._interrupts._holding = True
            raise

    def __exit__(self, *_: object) -> None:
        self._interrupts._holding = True
