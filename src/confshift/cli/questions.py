"""Commands that print results: compare, history, diagnose, explain, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from confshift.cli.group import (
    Printing,
    groups_option,
    jobs_option,
    json_option,
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
from confshift.cli.output import answer, answer_text, remark

if TYPE_CHECKING:
    import pandas as pd

    from confshift.analysis.series import Looks


@main.command()
@run_argument(required=True)
@click.argument("before", type=float)
@click.argument("after", type=float)
@click.option("--split", default="val", show_default=True)
@objective_options
@groups_option
@jobs_option()
@slices_option
@json_option
def compare(
    run: Path,
    before: float,
    after: float,
    split: str,
    objective: dict[str, Any],
    groups: str | None,
    slices: pd.DataFrame | None,
    as_json: bool,
) -> None:
    """Print what changed from epoch BEFORE to epoch AFTER, and in which samples."""
    import confshift
    from confshift.findings.trained import objective_document
    from confshift.reporting.output import comparison_text, document

    saved_run = open_run(run)
    sides = [saved_run.checkpoint(epoch, split=split) for epoch in (before, after)]
    comparison = confshift.compare(*sides, groups=groups, slices=slices, **objective)
    if not as_json:
        answer_text(comparison_text(comparison))
        return
    names = ("change", "account", "cells", "classes", *(["slices"] if comparison.attributes else []))
    tables = {name: getattr(comparison, name) for name in names}
    before_infinite, after_infinite = comparison.infinite_samples
    samples = {
        "samples": len(comparison.panel.targets),
        "samples_left_out": comparison.samples_left_out,
        "samples_unanswered": comparison.samples_unanswered,
        "infinite_samples": {"before": before_infinite, "after": after_infinite},
        **objective_document(comparison.whole),
    }
    answer(document(run=str(saved_run.path), split=split, before=before, after=after, **samples, **tables))


@main.command()
@run_argument(required=False)
@looks_option
@objective_options
@groups_option
@jobs_option()
@json_option
def history(
    run: Path | None, looks: Looks, objective: dict[str, Any], groups: str | None, as_json: bool
) -> None:
    """Print one line per checkpoint, and the best one by each criterion."""
    import confshift
    from confshift.findings.trained import objective_document
    from confshift.reporting.output import document, history_text

    saved_run = open_run(run)
    result = confshift.summarize(saved_run, looks=looks, groups=groups, **objective)
    if as_json:
        tables = {"checkpoints": result.table, "best": result.best, "rise": result.rise}
        answer(document(run=str(saved_run.path), **objective_document(result.main), **tables))
    else:
        answer_text(history_text(result))


@main.command()
@run_argument(required=False)
@pair_options
@looks_option
@objective_options
@groups_option
@jobs_option()
@slices_option
@click.option(
    "--fail-on",
    multiple=True,
    metavar="CODE",
    help="Exit with 1 if the verdict of this finding is yes, or leaves out what is not finite; may be "
    "repeated. --json shows the codes.",
)
@printing_options
def diagnose(
    run: Path | None,
    before: float | None,
    after: float | None,
    looks: Looks,
    objective: dict[str, Any],
    groups: str | None,
    slices: pd.DataFrame | None,
    fail_on: tuple[str, ...],
    printing: Printing,
) -> None:
    """Print what to do about a run, and the problems found.

    A gate for scripts: `confshift diagnose RUN --fail-on rise` exits with 1 where the loss rises, and where
    samples or epochs without a finite loss could hide that.
    """
    import confshift
    from confshift.findings.left_out import left_out_of
    from confshift.reporting.subject import tell_run
    from confshift.reporting.summary import summary_of

    saved_run = open_run(run)
    history = confshift.summarize(saved_run, looks=looks, groups=groups, **objective)
    pair = {"before": before, "after": after}
    story = tell_run(saved_run, history, title=None, thumbnail=None, slices=slices, **pair)
    findings = story.findings
    verdicts = {finding.code: finding.verdict for finding in findings}
    for code in fail_on:
        if code not in verdicts:
            raise click.BadParameter(
                f"no finding {code!r}; there are {', '.join(verdicts)}", param_hint="--fail-on"
            )
    print_summary(summary_of(story), printing, {"RUN": saved_run})
    failures = [code for code in fail_on if verdicts[code] == "yes"]
    omissions = {finding.code: left_out_of(finding) for finding in findings if finding.code in fail_on}
    unsure = {code: reason for code, reason in omissions.items() if reason and code not in failures}
    if failures:
        remark(f"failed: {', '.join(failures)}")
    for code, reason in unsure.items():
        remark(
            f"failed: {code}: the verdict, {verdicts[code]!r}, can't vouch for what it leaves out: {reason}"
        )
    if failures or unsure:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Print what the question CODE asks, by which formula and thresholds, and what to do about its answers.

    Without CODE, print the code of each question. The page names it under the details of each check.
    """
    from confshift.findings.question import explanations
    from confshift.reporting.output import explanation_text, questions_text

    texts = explanations()
    if code is None:
        answer_text(questions_text(texts))
    elif code in texts:
        answer_text(explanation_text(texts[code]))
    else:
        raise click.BadParameter(f"no finding {code!r}; there are {', '.join(texts)}", param_hint="CODE")


@main.command()
@run_argument(required=False)
@click.option("--epoch", type=float, metavar="EPOCH", help="Default: the recommended one.")
@out_option("Default: calibration.json")
@json_option
def calibrate(run: Path | None, epoch: float | None, out: Path | None, as_json: bool) -> None:
    """Choose the recalibration of a checkpoint, and write it to a file for other programs.

    One temperature, a bias for each class beside it, a scale for each class beside these, a matrix instead
    of the scales, or nothing: the richest that lowers the loss of samples it was not fitted to by more than
    two standard errors, beside each simpler one.
    """
    import confshift
    from confshift.findings.wording import vocabulary_of
    from confshift.reporting.output import calibration_text, document
    from confshift.storage.saving import is_stdout

    saved_run, path = open_run(run), out or Path("calibration.json")
    history = confshift.summarize(saved_run)
    chosen_epoch = history.recommendation.epoch if epoch is None else epoch
    checkpoint = saved_run.checkpoint(chosen_epoch, split=history.split)
    weights = history.main.objective.class_weights
    calibration = confshift.calibrate(
        checkpoint, wrong_labels=history.labels_look_wrong, class_weight=weights
    )
    calibration.save(path)
    aside = is_stdout(path)
    if as_json:
        about = {"run": str(saved_run.path), "file": str(path), "split": calibration.split}
        names = ("epoch", "method", "temperature", "biases", "scales", "matrix", "table")
        answer(document(**about, **{name: getattr(calibration, name) for name in names}), aside=aside)
    else:
        where = f"{calibration.split}, epoch {calibration.epoch:g}"
        text = calibration_text(calibration.table, where=where, path=str(path))
        answer_text(vocabulary_of(history.main, str(path)).say(text), aside=aside)
    remark(f"wrote {path}")
