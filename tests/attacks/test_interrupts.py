"""Ctrl-C ends an inspection, never the training's right to go on as if there had been none."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from interrupts import Target, strikes_at_lines

from confshift.collection.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_an_interrupt_at_any_line_leaves_everything_as_it_was():
    results = list(strikes_at_lines(50))
    assert len(results) >= 50
    assert sum(came_out for _, came_out, _ in results) >= 45
    assert [(moment, problems) for moment, _, problems in results if problems] == []


def test_a_real_interrupt_at_any_moment_leaves_everything_as_it_was():
    # In a process of its own: a real signal goes to a whole process, and this one runs other tests too.
    code = (
        "import signal, sys; sys.path[:0] = sys.argv[1:]\n"
        "from interrupts import strikes_at_random\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print([(moment, found) for moment, _, found in strikes_at_random(15) if found])"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, here, here.parent / "collection"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr[-2000:]


def test_an_interrupt_while_a_save_is_handed_over_leaves_no_thread_waiting(tmp_path):
    target, moments = Target(tmp_path), itertools.count()
    for strike in range(0, 160, 8):
        events = itertools.count()

        def trace(frame, event, _, events=events, strike=strike):
            if Path(frame.f_code.co_filename).name in ("threading.py", "writer.py"):
                if event != "call" and next(events) == strike:
                    next(moments)
                    signal.raise_signal(signal.SIGINT)
                return trace
            return trace if "confshift" in frame.f_code.co_filename else None

        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                target.inspect()
        finally:
            sys.settrace(tracing)
        waiting = threading.Thread(target=target.run.flush, daemon=True)
        waiting.start()
        waiting.join(30)
        assert not waiting.is_alive()
    assert next(moments) > 5


def test_a_signal_is_held_back_and_then_delivered():
    happened = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        happened.append("held back")
        with interrupts.delivered():
            happened.append("not reached")
    assert happened == ["held back"]

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
            happened.append("again")
        happened.append("not reached")
    assert happened == ["held back", "again"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["SIGTERM", "SIGALRM", "SIGUSR1"])
def test_other_signals_are_held_back_where_they_have_a_handler(name):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    number, seen = getattr(signal, name), []
    before = signal.signal(number, lambda *_: seen.append(inside))
    try:
        inside = True
        with Interrupts(), Interrupts():
            signal.raise_signal(number)
            inside = False
        assert seen == [False]
    finally:
        signal.signal(number, before)
    with Interrupts():
        assert signal.getsignal(number) == before  # nothing of ours without a handler


def test_a_handler_that_is_set_meanwhile_stays():
    before = signal.getsignal(signal.SIGUSR1)

    def handler(*_):
        raise AssertionError

    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Interrupts():
            signal.signal(signal.SIGUSR1, handler)
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_there_is_nothing_to_hold_back():
    handlers = []

    def work():
        with Interrupts() as interrupts, interrupts.delivered():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
