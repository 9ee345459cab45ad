"""The command line: results on stdout, progress and remarks on stderr.

Exit codes: 0 it ran, 1 a gate that the user asked for failed, 2 wrong usage or an unreadable run. Everything
but click is imported by the command that needs it, so that `confshift --help` is quick.
"""

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
    from confshift.analysis.verdicts import Looks
    from confshift.findings.finding import Finding
    from confshift.storage.run import Run

__all__ = ["main"]

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
            from confshift.reporting.text import printable

            raise _Unusable(printable(str(error))) from error


def _remark(text: str) -> None:
    from confshift.reporting.text import printable

    click.echo(printable(text), err=True)


def _newest_run() -> Path:
    from confshift.storage.newest import newest_run

    newest = newest_run(RUNS)
    if newest is None:
        raise click.UsageError(f"no RUN given, and there is none in {RUNS}/; name its folder")
    _remark(f"run: {newest}")
    return newest


def _open_run(path: Path | None) -> Run:
    """Return a run that exists, and say what of it is missing."""
    from confshift import Run

    run = Run(path if path is not None else _newest_run())
    for problem in run.problems.itertuples():
        where = problem.file or f"{problem.split} epoch {problem.epoch:g}"
        _remark(f"left out: {where}: {problem.reason}")
    return run


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _run_argument(*, required: bool) -> _Decorator:
    return click.argument("run", type=click.Path(path_type=Path), required=required)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print unrounded JSON.")


def _pair_options(command: Callable[..., None]) -> Callable[..., None]:
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


def _in_a_folder(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.parent.is_dir():  # told now, not after the page is made
        raise click.BadParameter(f"there is no folder {value.parent}")
    return value


@main.command()
@_run_argument(required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    metavar="FILE",
    help="Default: <name of the run>.html",
)
@_pair_options
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@_json_option
def report(
    run: Path | None, out: Path | None, before: float | None, after: float | None, show: bool, as_json: bool
) -> None:
    """Write the page of a run; print the findings."""
    opened = _open_run(run)
    path = out or Path(f"{opened.name}.html")
    _write_page(opened, path, as_json, before=before, after=after)
    if show:
        click.launch(str(path))


def _write_page(
    run: Run, path: Path, as_json: bool, *, before: float | None = None, after: float | None = None
) -> None:
    """Write the page and print what it says: the verdict first, then the findings."""
    import confshift
    from confshift.reporting.text import printable

    page = confshift.report(run, path, before=before, after=after)
    if not as_json:
        click.echo(printable(page.verdict) + "\n")
    _print_findings(page.findings, as_json, run=str(run.path), page=str(path), verdict=page.verdict)
    _remark(f"wrote {path}")


def _print_findings(findings: Iterable[Finding], as_json: bool, **about: Any) -> None:
    from confshift.reporting.document import document
    from confshift.reporting.text import findings_text

    if as_json:
        click.echo(document(**about, findings=[finding.to_dict() for finding in findings]))
    else:
        click.echo(findings_text(findings))


@main.command()
@_run_argument(required=True)
@click.argument("before", type=float)
@click.argument("after", type=float)
@click.option("--split", default="val", show_default=True)
@_json_option
def compare(run: Path, before: float, after: float, split: str, as_json: bool) -> None:
    """Print what changed from epoch BEFORE to epoch AFTER, and in which samples."""
    import confshift
    from confshift.reporting.document import document
    from confshift.reporting.text import comparison_text

    opened = _open_run(run)
    sides = [opened.checkpoint(epoch, split=split) for epoch in (before, after)]
    comparison = confshift.compare(*sides)
    if not as_json:
        click.echo(comparison_text(comparison))
        return
    tables = {name: getattr(comparison, name) for name in ("change", "account", "cells", "classes")}
    samples = {
        "samples": len(comparison.samples),
        "samples_left_out": comparison.samples_left_out,
    }
    click.echo(document(run=str(opened.path), split=split, before=before, after=after, **samples, **tables))


@main.command()
@_run_argument(required=False)
@_json_option
def history(run: Path | None, as_json: bool) -> None:
    """Print one line per checkpoint, and which is best by what."""
    import confshift
    from confshift.reporting.document import document
    from confshift.reporting.text import history_text

    opened = _open_run(run)
    result = confshift.summarize(opened)
    if as_json:
        click.echo(
            document(run=str(opened.path), checkpoints=result.table, best=result.best, rise=result.rise)
        )
    else:
        click.echo(history_text(result))


def _looks(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    return (
        int(value) if value.isdecimal() else value.replace("-", " ")
    )  # the library refuses what it doesn't know


@main.command()
@_run_argument(required=False)
@_pair_options
@click.option(
    "--looks",
    default="once",
    show_default=True,
    metavar="once|every-epoch|N",
    callback=_looks,
    help="How often you ask: once, at the end; after every epoch; after each of N planned ones.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="CODE",
    help="Exit with 1 if the verdict of this finding is yes; may be repeated. --json shows the codes.",
)
@_json_option
def diagnose(
    run: Path | None,
    before: float | None,
    after: float | None,
    looks: Looks,
    fail_on: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the findings about a run.

    A gate for scripts: `confshift diagnose RUN --fail-on rise` exits with 1 where the loss rises.
    """
    import confshift

    opened = _open_run(run)
    findings = confshift.diagnose(opened, before=before, after=after, looks=looks)
    verdicts = {finding.code: finding.verdict for finding in findings}
    for code in fail_on:
        if code not in verdicts:
            raise click.BadParameter(
                f"no finding {code!r}; there are {', '.join(verdicts)}", param_hint="--fail-on"
            )
    _print_findings(findings, as_json, run=str(opened.path))
    failed = [code for code in fail_on if verdicts[code] == "yes"]
    if failed:
        _remark(f"failed: {', '.join(failed)}")
        raise click.exceptions.Exit(1)


@main.command()
@_run_argument(required=True)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--epoch", type=float, required=True, help="May be fractional; 0 is before training.")
@click.option("--split", default="val", show_default=True)
@_json_option
def add(run: Path, file: Path, epoch: float, split: str, as_json: bool) -> None:
    """Add a checkpoint from a .npz FILE that any other program wrote; makes the run where there is none.

    FILE holds `logits` or `probabilities` (N, K) and `targets` (N,); it may hold `sample_ids` (N,) and
    `class_names` (K,).
    """
    from confshift import Run
    from confshift.reporting.document import document
    from confshift.storage.npz import read_npz

    opened = Run(run)
    checkpoint = opened.append(read_npz(file), epoch=epoch, split=split)
    opened.flush()
    metrics = checkpoint.metrics()
    if as_json:
        click.echo(document(run=str(opened.path), split=split, epoch=epoch, metrics=metrics))
    else:
        click.echo(
            f"{run}: {split} epoch {epoch:g}, {metrics['samples']:,.0f} samples, loss {metrics['loss']:.4f} "
            f"nats, accuracy {100 * metrics['accuracy']:.2f} %"
        )


@main.command()
@_run_argument(required=False)
@_json_option
def verify(run: Path | None, as_json: bool) -> None:
    """Read every file of a run and compare it with its checksum; exit with 1 where one is damaged."""
    from confshift import Run
    from confshift.reporting.document import document
    from confshift.reporting.text import printable

    opened = Run(run if run is not None else _newest_run())
    files = opened.verify()
    damaged = files[~files["sound"].astype(bool)]
    if as_json:
        click.echo(document(run=str(opened.path), sound=damaged.empty, files=files))
    else:
        for file in damaged.itertuples():
            click.echo(printable(f"{file.split}/{file.file}: {file.reason}"))
        click.echo(f"{len(files)} files, {len(damaged)} damaged")
    if not damaged.empty:
        raise click.exceptions.Exit(1)


@main.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports/demo.html"),
    show_default=True,
    metavar="FILE",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    default=RUNS / "demo",
    show_default=True,
    metavar="DIR",
    help="Where the run goes; an earlier demo there is replaced.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Default: long enough for the loss to rise.")
@_json_option
def demo(out: Path, run: Path, epochs: int | None, as_json: bool) -> None:
    """Train a small network on handwritten digits, inspect every epoch, write the page."""
    from confshift.demo import EPOCHS, train

    trained = train(run, epochs=epochs or EPOCHS)
    out.parent.mkdir(parents=True, exist_ok=True)
    _write_page(trained, out, as_json)
