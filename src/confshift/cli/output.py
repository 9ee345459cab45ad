"""All that a command prints: results on stdout, everything else on stderr, nothing that moves a cursor."""

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

#: What click ends with where there is no command: the help, as it is.
_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


def answer(line: str, *, aside: bool = False) -> None:
    """Print a line of results on stdout, or `aside` on stderr."""
    _print(printable(line), aside)


def answer_text(text: str, *, aside: bool = False) -> None:
    """Print results in many lines; the names in them can't hold line ends any more."""
    _print("\n".join(map(printable, text.split("\n"))), aside)


def remark(text: str) -> None:
    """Say something in one line on stderr, beside the results."""
    _print(printable(text), aside=True)


def _print(text: str, aside: bool) -> None:
    # Named, because click takes an ASCII stream of its own finding for a mistake and writes UTF-8 to it.
    click.echo(text, file=sys.stderr if aside else sys.stdout)


def take_any_text() -> None:
    """Make stdout and stderr escape what their encoding lacks: who has no "−" still gets the rest."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Unusable(click.ClickException):
    """What was given can't be used: one line on stderr."""

    exit_code = 2


@contextlib.contextmanager
def clear_endings() -> Iterator[None]:
    """End in one clear line where a run, an argument or a file can't be used."""
    try:
        yield
    except BrokenPipeError:
        raise  # `confshift history | head`: click ends it quietly
    except _HELP:
        raise
    except click.UsageError as error:  # it repeats what was given
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
    """Print what the library warns of as remarks: Python's own way would print names as they are."""

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
