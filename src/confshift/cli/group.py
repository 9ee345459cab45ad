"""What the commands share: the group, opening a run, options, printing findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from confshift import __version__
from confshift.cli.output import (
    answer,
    answer_text,
    clear_endings,
    remark,
    remarks_of_the_library,
    take_any_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from confshift.reporting.summary import Summary
    from confshift.storage.run import Run

#: Where `inspect` puts a run without a folder of its own.
RUNS = Path("runs")


class _Commands(click.Group):
    """A group whose commands print safely and end clearly."""

    def main(self, *arguments: Any, **more: Any) -> Any:
        take_any_text()
        return super().main(*arguments, **more)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with clear_endings():
            return super().make_context(*arguments, **more)

    def invoke(self, context: click.Context) -> Any:
        with clear_endings(), remarks_of_the_library():
            return super().invoke(context)


def newest_run_folder() -> Path:
    """Return the most recently written run and name it on stderr; where there is none, ask for a folder."""
    from confshift.storage.finding_runs import newest_run

    newest = newest_run(RUNS)
    if newest is None:
        raise click.UsageError(f"RUN is missing, and {RUNS}/ holds none: give the folder of a run")
    remark(f"run: {newest}")
    return newest


def open_run(path: Path | None) -> Run:
    """Return a run, and report on stderr what is damaged or missing."""
    from confshift import Run

    run = Run(path if path is not None else newest_run_folder())
    for problem in run.problems.itertuples():
        where = problem.file or f"{problem.split} epoch {problem.epoch:g}"
        remark(f"{'damaged' if problem.kind == 'in part' else 'left out'}: {where}: {problem.reason}")
    return run


class PathType(click.Path):
    """A path as click reads it; an empty one, often from an unset variable, is not the working folder."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Refuse a path that can't name a file."""
        if not str(value) or "\0" in str(value):
            self.fail("it is empty" if not str(value) else "it holds a null character", parameter, context)
        return super().convert(value, parameter, context)


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def run_argument(*, required: bool) -> _Decorator:
    """Give a command the argument RUN."""
    return click.argument("run", type=PathType(path_type=Path), required=required)


def _in_a_folder(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.parent.is_dir():  # an error now, not after the work
        raise click.BadParameter(f"there is no folder {value.parent}")
    return value


def out_option(text: str) -> _Decorator:
    """Give a command the option -o, a file in a folder that exists."""
    kind = PathType(dir_okay=False, path_type=Path)
    return click.option("-o", "--out", type=kind, callback=_in_a_folder, metavar="FILE", help=text)


json_option = click.option("--json", "as_json", is_flag=True, help="Print unrounded JSON.")


def _read_looks(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    # The library refuses unknown values.
    return int(value) if value.isdecimal() else {"every-epoch": "every epoch"}.get(value, value)


looks_option = click.option(
    "--looks",
    default="once",
    show_default=True,
    metavar="once|every-epoch|N",
    callback=_read_looks,
    help="How often you ask: once, at the end; after every epoch; after each of N planned ones.",
)


def _read_weights(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    """Read the name of a rule, or "cat=1,dog=2"; the library refuses what it can't use."""
    if "=" not in value:
        return None if value == "none" else value
    weights: dict[str | int, float] = {}
    for part in value.split(","):
        name, _, number = part.rpartition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            raise click.BadParameter(f"{part!r} is not a class and its weight, such as cat=2") from None
    return weights


def _read_smoothing(context: click.Context, parameter: click.Parameter, value: str) -> Any:
    try:
        return value if value == "stored" else float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 1") from None


def objective_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --class-weight and --label-smoothing, as its argument `objective`."""

    @wraps(command)
    def with_objective(*, class_weight: Any, label_smoothing: Any, **others: Any) -> None:
        objective = {"class_weight": class_weight, "label_smoothing": label_smoothing}
        command(objective=objective, **others)

    weight = click.option(
        "--class-weight",
        default="stored",
        metavar="stored|balanced|none|CLASS=W,...",
        callback=_read_weights,
        help="What each class weighs in the loss. Default: stored, what the checkpoints' metadata name.",
    )
    smoothing = click.option(
        "--label-smoothing",
        default="stored",
        metavar="stored|EPS",
        callback=_read_smoothing,
        help="Of the loss that is trained. Default: stored.",
    )
    return weight(smoothing(with_objective))


groups_option = click.option(
    "--groups",
    type=click.Choice(["stored", "rows"]),
    default="stored",
    show_default=True,
    callback=lambda context, parameter, value: None if value == "stored" else value,
    help="What errors count: the groups saved with the samples, if any, or each row for itself.",
)


def jobs_option(work: str = "share a run of a million rows or more") -> _Decorator:
    """Return what gives a command the option --jobs, whose workers joblib starts and ends."""

    def add_option(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_jobs(*, jobs: int, **others: Any) -> None:
            if jobs == 1:
                return command(**others)
            import joblib

            with joblib.parallel_config(n_jobs=jobs):
                return command(**others)

        kind = click.IntRange(min=1)
        text = f"How many workers {work}."
        option = click.option("--jobs", type=kind, default=1, show_default=True, metavar="N", help=text)
        return option(with_jobs)

    return add_option


def _read_slices(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> pd.DataFrame | None:
    """Read a table of attributes: ids stay text, and a column has numbers where no cell is another text."""
    if value is None:
        return None
    import pandas as pd

    try:
        text = pd.read_csv(value, dtype=str, keep_default_na=False, na_values=[""], index_col=0)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise click.BadParameter(f"{value} can't be read as CSV: {error}") from error
    for name in text:
        numbers = pd.to_numeric(text[name], errors="coerce")
        is_code = text[name].str.match(r"-?0\d").any()  # 007
        if (numbers.notna() == text[name].notna()).all() and not is_code:
            text[name] = numbers
    return text


slices_option = click.option(
    "--slices",
    type=PathType(exists=True, dir_okay=False, path_type=Path),
    callback=_read_slices,
    metavar="FILE.csv",
    help="Attributes of the samples, such as their site: first column sample id or group, a column for each.",
)


def pair_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --before and --after."""
    after = click.option("--after", type=float, metavar="EPOCH", help="Default: the last one.")
    before = click.option(
        "--before",
        type=float,
        metavar="EPOCH",
        help="Default: the best.",
    )
    return before(after(command))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="confshift %(version)s")
def main() -> None:
    """Why does the validation loss rise while accuracy stays flat?

    RUN is the folder that confshift.inspect(model, loader, run=...) saves to. Commands that take it as an
    option use the newest one in runs/ without it.
    """


class Printing(NamedTuple):
    """How a command prints what it found about a run."""

    as_json: bool
    brief: bool
    every_check: bool


def printing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --json, --brief and --all, as its argument `printing`."""

    @wraps(command)
    def with_printing(*, as_json: bool, brief: bool, every_check: bool, **others: Any) -> None:
        if brief and not as_json:
            raise click.UsageError("--brief shortens JSON: add --json")
        if every_check and as_json:
            raise click.UsageError("--all is for text, and --json has every check: leave out one of the two")
        command(printing=Printing(as_json, brief, every_check), **others)

    brief = click.option("--brief", is_flag=True, help="With --json: what matters most, at most 2 kB.")
    every_check = click.option("--all", "every_check", is_flag=True, help="Print every check in full.")
    return json_option(brief(every_check(with_printing)))


def print_summary(
    summary: Summary, printing: Printing, runs: Mapping[str, Run], *, aside: bool = False, **about: Any
) -> None:
    """Print what matters first about a run, every check, or JSON.

    Parameters
    ----------
    summary : Summary
    printing : Printing
    runs : mapping
        By what stands for its path in a command: RUN, and of two runs OTHER.
    aside : bool
        Whether to print on stderr.
    **about
        What else JSON says.
    """
    from confshift.reporting.brief import brief_document
    from confshift.reporting.output import document
    from confshift.reporting.summary import answer_document, findings_document, summary_text

    places = {name: run.path for name, run in runs.items()}
    if printing.brief:
        answer(brief_document(summary, places), aside=aside)
    elif printing.as_json:
        paths = {name.lower(): str(path) for name, path in places.items()}
        answer(
            document(
                **paths,
                **about,
                verdict=summary.answer.text,
                answer=answer_document(summary.answer, places),
                findings=findings_document(summary.findings, places),
            ),
            aside=aside,
        )
    else:
        answer_text(summary_text(summary, places, every_check=printing.every_check), aside=aside)
