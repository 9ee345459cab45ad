"""Turns: two threads never inspect the same thing at once; the second would keep what the first changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from confshift.collection.interrupts import Interrupts

__all__ = ["one_at_a_time"]

#: The thread that inspects an object, by the object's id. An id is not used again while a pass holds it.
_taken: dict[int, int] = {}
_changed = threading.Condition()


@contextmanager
def one_at_a_time(things: Iterable[Any], interrupts: Interrupts) -> Iterator[None]:
    """Wait until no other thread inspects any of these objects, and take them all for this one.

    They are taken together, so that two threads can't wait for each other. A thread that inspects within
    its own inspection doesn't wait.
    """
    me = threading.get_ident()
    objects = list(things)
    with _changed:
        while any(_taken.get(id(thing), me) != me for thing in objects):
            with interrupts.delivered():
                _changed.wait()
        fresh = {id(thing) for thing in objects} - _taken.keys()
        _taken.update(dict.fromkeys(fresh, me))
    try:
        yield
    finally:
        with _changed:
            for key in fresh:
                _taken.pop(key, None)
            _changed.notify_all()


def _start_anew() -> None:
    """In a forked process the other threads are gone, and may have held the lock."""
    global _changed
    _changed = threading.Condition()
    _taken.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
