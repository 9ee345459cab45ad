"""Commands about the folder of a run: add, export, verify, repair."""

from __future__ import annotations

from pathlib import Path

import click

from confshift.cli.group import PathType, json_option, main, newest_run_folder, open_run, run_argument
from confshift.cli.output import answer


@main.command()
@run_argument(required=True)
@click.argument("file", type=PathType(exists=True, dir_okay=False, path_type=Path))
@click.option("--epoch", type=float, required=True, help="May be fractional; 0 is before training.")
@click.option("--split", default="val", show_default=True)
@json_option
def add(run: Path, file: Path, epoch: float, split: str, as_json: bool) -> None:
    """Add a checkpoint from a .npz FILE that any other program wrote; makes the run where there is none.

    FILE holds `logits` or `probabilities` (N, K) and `targets` (N,); it may hold `sample_ids` (N,),
    `class_names` (K,), `groups` (N,) and a `task`.
    """
    from confshift import Run
    from confshift.findings.wording import Vocabulary
    from confshift.reporting.output import document, metrics_text
    from confshift.storage.npz import read_npz
    from confshift.tasks import TASKS

    target_run, predictions = Run(run), read_npz(file)
    checkpoint = target_run.append(predictions, epoch=epoch, split=split)
    target_run.flush()
    metrics = checkpoint.metrics()
    if as_json:
        answer(document(run=str(target_run.path), split=split, epoch=epoch, metrics=metrics))
    else:
        said = Vocabulary(TASKS[predictions.task]).say(metrics_text(metrics))
        answer(f"{run}: {split} epoch {epoch:g}, {said}")


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
