"""Everything that a command prints: results on stdout, the rest on stderr, nothing that moves a cursor."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

from confshift.errors import ConfshiftError
from confshift.reporting.characters import printable

#: click's exception for a missing command: it shows the help, which needs no escaping.
_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


def answer(line: str, *, aside: bool = False) -> None:
    """Print a line of results on stdout, or `aside` on stderr."""
    _print(printable(line), aside)


def answer_text(text: str, *, aside: bool = False) -> None:
    """Print results of several lines; line ends in names were escaped before."""
    _print("\n".join(map(printable, text.split("\n"))), aside)


def remark(text: str) -> None:
    """Print one line on stderr, beside the results."""
    _print(printable(text), aside=True)


def _print(text: str, aside: bool) -> None:
    # Explicit, because click would replace an ASCII stream that it finds itself by one in UTF-8.
    click.echo(text, file=sys.stderr if aside else sys.stdout)


def take_any_text() -> None:
    """Make stdout and stderr escape what their encoding lacks: without a "−" the rest is still printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Unusable(click.ClickException):
    """A run, an argument or a file can't be used: one line on stderr."""

    exit_code = 2


@contextlib.contextmanager
def clear_endings() -> Iterator[None]:
    """End with one clear line where a run, an argument or a file can't be used."""
    try:
        yield
    except BrokenPipeError:
        raise  # `confshift history | head`: click ends it quietly
    except _HELP:
        raise
    except click.UsageError as error:  # its message repeats the arguments
        raise click.UsageError(printable(error.format_message()), ctx=error.ctx) from error
    except (ConfshiftError, OSError) as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from error  # `confshift report RUN -o /dev/stdout | head`
        raise _Unusable(printable(str(error))) from error


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


@contextlib.contextmanager
def remarks_of_the_library() -> Iterator[None]:
    """Print the library's warnings as remarks: Python itself would print names without escaping them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        remark(f"warning: {message}")

    log, handler = logging.getLogger("confshift"), _Remarks(logging.WARNING)
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)
