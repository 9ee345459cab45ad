"""Commands about the folder of a run: add, export, verify, repair."""

from __future__ import annotations

from pathlib import Path

import click

from confshift.cli.group import (
    PathType,
    jobs_option,
    json_option,
    main,
    newest_run_folder,
    open_run,
    run_argument,
)
from confshift.cli.output import answer


@main.command()
@run_argument(required=True)
@click.argument("path", type=PathType(exists=True, path_type=Path))
@click.option("--epoch", type=float, help="Of one file: may be fractional; 0 is before training.")
@click.option("--split", help="[default: val, or what an exported folder says]")
@jobs_option("measure and save the files of a folder, one at a time each")
@json_option
def add(run: Path, path: Path, epoch: float | None, split: str | None, as_json: bool) -> None:
    """Add checkpoints from a file or folder that another program wrote; makes the run where there is none.

    PATH is a .npz or .parquet file, or a folder with one for each checkpoint. Without --epoch a file's name
    has its epoch: epoch_003.npz, val-12.5.npz, 3.npz.

    A .npz file holds `logits` or `probabilities` (N, K) and `targets` (N,), or the `predictions` and
    `label_ids` of Hugging Face; it may hold `sample_ids` (N,), `class_names` (K,), `groups` (N,), a `task`.

    A Parquet file has a list column `logits`, or logit_0, logit_1, ..., and `target`; it may have `sample_id`
    and `group`. Needs pip install 'confshift[parquet]'.
    """
    from confshift import Run
    from confshift.reporting.output import document
    from confshift.storage.saved_files import add_files, saved_files

    files, rows = saved_files(path, epoch=epoch, split=split), []
    for added in add_files(Run(run), files):
        row = {"file": added.file, "split": added.split, "epoch": added.epoch, "metrics": added.metrics}
        rows.append(row)
        if not as_json:
            answer(f"{run}: {added.split} epoch {added.epoch:g}, {_in_words(added.metrics, added.task)}")
    if as_json and path.is_dir():
        answer(document(run=str(run), checkpoints=rows))
    elif as_json:
        del rows[0]["file"]
        answer(document(run=str(run), **rows[0]))


def _in_words(metrics: dict[str, float], task: str) -> str:
    from confshift.findings.wording import Vocabulary
    from confshift.reporting.output import metrics_text
    from confshift.tasks import TASKS

    return Vocabulary(TASKS[task]).say(metrics_text(metrics))


@main.command()
@run_argument(required=False)
@click.option(
    "--parquet",
    "folder",
    type=PathType(path_type=Path),
    required=True,
    metavar="DIR",
    help="Write Parquet files to this folder, which must be new or empty.",
)
@click.option("--logits", is_flag=True, help="Add the logits, a list of float32 in each row.")
@json_option
def export(run: Path | None, folder: Path, logits: bool, as_json: bool) -> None:
    """Write the numbers of every sample at every checkpoint, for DuckDB, Polars, Spark or pandas.

    A file for each checkpoint, DIR/split=val/epoch=3/part-0.parquet, with a row for each sample. Needs
    pip install 'confshift[parquet]'.
    """
    from confshift.reporting.output import document

    saved_run = open_run(run)
    parts = saved_run.export_parquet(folder, logits=logits)
    if as_json:
        answer(document(run=str(saved_run.path), folder=str(folder), files=parts))
    else:
        answer(f"wrote {len(parts):,} files with {parts['rows'].sum():,} rows to {folder}")


@main.command()
@run_argument(required=False)
@json_option
def verify(run: Path | None, as_json: bool) -> None:
    """Read every file of a run and compare it with its checksum; exit with 1 where one is damaged."""
    from confshift import Run
    from confshift.reporting.output import document

    saved_run = Run(run if run is not None else newest_run_folder())
    files = saved_run.verify()
    damaged_files = files[~files["sound"].astype(bool)]
    if as_json:
        answer(document(run=str(saved_run.path), sound=damaged_files.empty, files=files))
    else:
        for file in damaged_files.itertuples():
            answer(f"{file.split}/{file.file}: {file.reason}")
        answer(f"{len(files)} files, {len(damaged_files)} damaged")
    if not damaged_files.empty:
        raise click.exceptions.Exit(1)


@main.command()
@run_argument(required=True)
@click.option("--dry-run", is_flag=True, help="Remove nothing; print what would be removed.")
@json_option
def repair(run: Path, dry_run: bool, as_json: bool) -> None:
    """Remove what a killed training left behind in a run; print what goes, what stays, and why.

    It removes or changes no readable checkpoint, and no file that is not the run's own. Where a record can't
    be read, the data that may belong to it stays. It refuses to run while a training saves to the run.
    """
    from confshift.reporting.output import document
    from confshift.storage.cleaning import repair as clean
    from confshift.storage.run_folder import RunFolder

    rows = [
        {"file": str(outcome.path.relative_to(run)), "removed": outcome.removed, "reason": outcome.reason}
        for outcome in clean(RunFolder(run), dry_run=dry_run)
    ]
    if as_json:
        answer(document(run=str(run), dry_run=dry_run, files=rows))
        return
    verb = "would remove" if dry_run else "removed"
    for row in rows:
        answer(f"{verb if row['removed'] else 'left'} {row['file']}: {row['reason']}")
    count = sum(bool(row["removed"]) for row in rows)
    answer(f"{verb} {count} files, left {len(rows) - count}")
