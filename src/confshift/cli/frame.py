"""What every command shares: the group, how it ends, the run it opens, how findings are printed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confshift import __version__
from confshift.errors import ConfshiftError

if TYPE_CHECKING:
    from confshift.findings.finding import Finding
    from confshift.storage.run import Run

__all__ = [
    "RUNS",
    "json_option",
    "looks_option",
    "main",
    "newest_run_folder",
    "open_run",
    "pair_options",
    "print_findings",
    "remark",
    "run_argument",
]

#: Where `inspect` puts a run that was given no folder.
RUNS = Path("runs")


class _Unusable(click.ClickException):
    """What was given can't be used: one line on stderr."""

    exit_code = 2


class _Commands(click.Group):
    """A group whose commands end in one clear line where a run, an argument or a file can't be used."""

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # a terminal or pipe that knows no "−" still gets the rest
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise  # `confshift history | head`: click ends it quietly
        except (ConfshiftError, OSError) as error:
            from confshift.reporting.characters import printable

            raise _Unusable(printable(str(error))) from error


def remark(text: str) -> None:
    """Say something on stderr, beside the results."""
    from confshift.reporting.characters import printable

    click.echo(printable(text), err=True)


def newest_run_folder() -> Path:
    """Return the run written to last, and name it on stderr; where there is none, say what to give."""
    from confshift.storage.newest import newest_run

    newest = newest_run(RUNS)
    if newest is None:
        raise click.UsageError(f"no RUN given, and there is none in {RUNS}/; name its folder")
    remark(f"run: {newest}")
    return newest


def open_run(path: Path | None) -> Run:
    """Return a run that exists, and say what of it is missing."""
    from confshift import Run

    run = Run(path if path is not None else newest_run_folder())
    for problem in run.problems.itertuples():
        where = problem.file or f"{problem.split} epoch {problem.epoch:g}"
        remark(f"{'damaged' if problem.kind == 'in part' else 'left out'}: {where}: {problem.reason}")
    return run


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def run_argument(*, required: bool) -> _Decorator:
    """Give a command the argument RUN."""
    return click.argument("run", type=click.Path(path_type=Path), required=required)


json_option = click.option("--json", "as_json", is_flag=True, help="Print unrounded JSON.")


def _read_looks(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    # The library refuses what it doesn't know.
    return int(value) if value.isdecimal() else value.replace("-", " ")


looks_option = click.option(
    "--looks",
    default="once",
    show_default=True,
    metavar="once|every-epoch|N",
    callback=_read_looks,
    help="How often you ask: once, at the end; after every epoch; after each of N planned ones.",
)


def pair_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --before and --after."""
    after = click.option("--after", type=float, metavar="EPOCH", help="Default: the last one.")
    before = click.option("--before", type=float, metavar="EPOCH", help="Default: the best by loss.")
    return before(after(command))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="confshift %(version)s")
def main() -> None:
    """Why does the validation loss rise while accuracy stays flat?

    RUN is the folder that confshift.inspect(model, loader, run=...) saves to. Where it may be left out, it
    is the newest one in runs/.
    """


def print_findings(findings: Iterable[Finding], as_json: bool, **about: Any) -> None:
    """Print findings as text, or with what they are about as JSON."""
    from confshift.reporting.document import document
    from confshift.reporting.text import findings_text

    if as_json:
        click.echo(document(**about, findings=[finding.to_dict() for finding in findings]))
    else:
        click.echo(findings_text(findings))
