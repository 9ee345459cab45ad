"""Commands that draw: report, plot, demo."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confshift.cli.group import (
    RUNS,
    PathType,
    Printing,
    groups_option,
    jobs_option,
    looks_option,
    main,
    objective_options,
    open_run,
    out_option,
    pair_options,
    print_summary,
    printing_options,
    run_argument,
    slices_option,
)
from confshift.cli.output import remark

if TYPE_CHECKING:
    import pandas as pd

    from confshift.analysis.series import Looks
    from confshift.reporting.thumbnails import Thumbnail
    from confshift.storage.run import Run


@main.command()
@run_argument(required=False)
@click.argument("other", type=PathType(path_type=Path), required=False)
@out_option("Default: <name of the run>.html, of two runs <RUN>-<OTHER>.html")
@pair_options
@looks_option
@objective_options
@groups_option
@slices_option
@jobs_option()
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--watch",
    "watching",
    is_flag=True,
    help="Write the page anew whenever a checkpoint is added; the open page reloads itself. Waits for a run "
    "that is not there yet; --looks is then every-epoch.",
)
@printing_options
def report(
    run: Path | None,
    other: Path | None,
    out: Path | None,
    before: float | None,
    after: float | None,
    looks: Looks,
    objective: dict[str, Any],
    groups: str | None,
    slices: pd.DataFrame | None,
    show: bool,
    watching: bool,
    printing: Printing,
) -> None:
    """Write the page of a run; print what it says first.

    With OTHER, a second run on the same samples, the page compares the two: RUN at its best (or at --before)
    with OTHER at its best (or at --after).
    """
    counting: dict[str, Any] = {"looks": looks, "groups": groups, **objective}
    options = {"before": before, "after": after, "slices": slices, **counting}
    if watching:
        from confshift.cli.watching import watch

        watch(run, other, out, as_json=printing.as_json, **options)
        return
    first_run = open_run(run)
    second_run = None if other is None else open_run(other)
    names = [shown_run.name for shown_run in (first_run, second_run) if shown_run is not None]
    path = out or Path(f"{'-'.join(names)}.html")
    _write_page(first_run, path, printing, other=second_run, **options)
    if show:
        click.launch(str(path.absolute()))  # absolute: a name that begins with "-" would be an option


def _write_page(
    run: Run,
    path: Path,
    printing: Printing,
    *,
    other: Run | None = None,
    thumbnail: Thumbnail | None = None,
    **options: Any,
) -> None:
    """Write the page and print what it says first; `options` are those of `report`."""
    import confshift
    from confshift.storage.saving import is_stdout

    page = confshift.report(run, path, other=other, thumbnail=thumbnail, **options)
    runs = {"RUN": run} if other is None else {"RUN": run, "OTHER": other}
    aside = is_stdout(path)  # a page on stdout must not be followed by text
    print_summary(page.summary, printing, runs, aside=aside, page=str(path))
    remark(f"wrote {path}")


class _ListingFigures(click.Command):
    """A command whose help names the charts; it imports them only then, because that takes a second."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from confshift.reporting.plotting import figures

        with formatter.section("Figures"):
            formatter.write_dl(list(figures().items()))


@main.command(cls=_ListingFigures)
@run_argument(required=True)
@click.argument("figure")
@out_option("Ends in .svg, .png or .pdf. Default: FIGURE.svg")
@pair_options
@click.option(
    "--scale",
    type=click.Choice(["probability", "odds"]),
    help="Axis of confidences: plain, the default, or stretched at both ends, as log-odds.",
)
@click.option(
    "--whole", is_flag=True, help="Draw losses from the first epoch on, not after the initial fall."
)
def plot(
    run: Path,
    figure: str,
    out: Path | None,
    before: float | None,
    after: float | None,
    scale: str | None,
    whole: bool,
) -> None:
    """Draw one chart of the page as a picture of its own, for papers and slides.

    The charts of single samples have a button on the page instead.
    """
    import confshift

    path = confshift.plot(
        open_run(run),
        figure,
        out or Path(f"{figure}.svg"),
        before=before,
        after=after,
        scale=scale,
        whole=whole,
    )
    remark(f"wrote {path}")


@main.command()
@click.option(
    "-o",
    "--out",
    type=PathType(dir_okay=False, path_type=Path),
    default=Path("reports/demo.html"),
    show_default=True,
    metavar="FILE",
)
@click.option(
    "--run",
    type=PathType(path_type=Path),
    default=RUNS / "demo",
    show_default=True,
    metavar="DIR",
    help="Where the run goes; an earlier demo there is replaced.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Default: long enough for the loss to rise.")
@printing_options
def demo(out: Path, run: Path, epochs: int | None, printing: Printing) -> None:
    """Train a small network on handwritten digits, inspect every epoch, write the page."""
    from confshift.demo import EPOCHS, train, validation_images
    from confshift.reporting.vega import check_drawing

    check_drawing()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # an error now, not after the training
        raise click.BadParameter(f"the folder {out.parent} can't be made: {error.strerror}") from error
    demo_run = train(run, epochs=epochs or EPOCHS)
    pictures = validation_images() if find_spec("PIL") else None
    _write_page(demo_run, out, printing, thumbnail=pictures)
