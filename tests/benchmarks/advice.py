"""Is what confshift says of small real trainings right, and does its checkpoint do best on a test half?

    python tests/benchmarks/advice.py [NAME ...] [--full] [--seeds 3]

For each run of trainings.py: what an expert expected, then what the tool says; with --full every finding
that says yes in its own words. Then the loss and accuracy on the test half of the checkpoint that the tool
keeps, as it is and recalibrated as advised, beside those of common rules, as they are and with a temperature
each:

    least loss      the checkpoint of the least validation loss
    best accuracy   the first of the best validation accuracy
    patience 5, 10  the least validation loss before that many epochs without a new one

Expectations are of seed 0. With more seeds each run has as many data and trainings, and the differences are
means over the kinds of runs of their means over the seeds.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pandas as pd
from curve_rules import patience
from trainings import RUNS, Trained, accuracy_of, loss_of, trained

from confshift.analysis.comparison import compare
from confshift.analysis.history import History, summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import diagnose
from confshift.findings.question import Finding
from confshift.findings.run_kind import kind_of
from confshift.predictions import Predictions

#: Findings whose first sentence is shown whatever they answer; of the others that say yes, the code.
SHOWN = ("run_kind", "label_noise", "class_bias", "learning_rate_drop", "too_good")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="some of the runs; without any, all")
    parser.add_argument("--full", action="store_true", help="every finding that says yes, in its own words")
    parser.add_argument("--seeds", type=int, default=1, help="so many data and trainings of each")
    options = parser.parse_args()
    rows = {}
    for name in options.names or RUNS:
        for seed in range(options.seeds):
            run = trained(name, seed)
            history = history_of(run)
            rows[name, seed] = on_the_test_half(run, history)
            if seed == 0:
                sys.stdout.write(f"\n{name}\n  Expected: {' '.join((RUNS[name].__doc__ or '').split())}\n")
                sys.stdout.write(f"{said(history, full=options.full)}\n")
    table = pd.DataFrame(rows).T
    sys.stdout.write(
        f"\nOn the test half: epoch, loss, loss with a temperature, accuracy\n{written(table)}\n"
    )
    sys.stdout.write(
        f"\nThe tool's checkpoint, recalibrated as advised, minus others\n{differences(table)}\n"
    )


def history_of(run: Trained) -> History:
    return summarize(
        Checkpoint.from_predictions(
            Predictions(logits, run.targets), epoch=epoch, metadata={"lr": float(rate)}
        )
        for epoch, (rate, logits) in enumerate(zip(run.rates, run.logits, strict=True))
    )


def said(history: History, *, full: bool) -> str:
    rise = ", ".join(f"{name} {status}" for name, status in history.rise["status"].items())
    best = ", ".join(f"{name} {epoch:g}" for name, epoch in history.best["epoch"].items())
    findings = diagnose(history)
    lines = [
        f"  Said: {answer_run(history, compare(*history.pair), findings).text}",
        f"  Kind {kind_of(history)}; rise: {rise}; best: {best}",
    ]
    if full:
        return "\n".join([*lines, *(_in_full(one) for one in findings if one.verdict == "yes")])
    lines += [
        f"  [{one.verdict}] {one.code}: {one.sentence.split('. ')[0]}"
        for one in findings
        if one.code in SHOWN
    ]
    choice = history.recommendation
    biases = " ".join(f"{bias:+.2f}" for bias in choice.biases) if choice.with_biases else "none"
    lines += [f"  Keep {choice.epoch:g}, T = {choice.temperature:.3g}, biases {biases}: {choice.reason}"]
    others = [one.code for one in findings if one.verdict == "yes" and one.code not in SHOWN]
    return "\n".join([*lines, f"  Yes too: {', '.join(others)}"])


def _in_full(finding: Finding) -> str:
    return f"  [{finding.verdict}] {finding.code}: {finding.sentence} {finding.next_step}"


def on_the_test_half(run: Trained, history: History) -> dict[str, float]:
    losses = [loss_of(logits, run.targets) for logits in run.logits]
    accuracies = [accuracy_of(logits, run.targets) for logits in run.logits]
    choice = history.recommendation
    rules = {
        "kept": int(np.flatnonzero(history.main.epochs == choice.epoch)[0]),
        "least loss": int(np.nanargmin(losses)),
        "best accuracy": int(np.argmax(accuracies)),
        "patience 5": patience(losses, 5).keeps,
        "patience 10": patience(losses, 10).keeps,
    }
    row: dict[str, float] = {}
    for rule, position in rules.items():
        logits, temperature = run.test_logits[position], history.main.checkpoints[position].temperature
        row |= {
            f"{rule}: epoch": position,
            f"{rule}: loss": loss_of(logits, run.test_targets),
            f"{rule}: loss with T": loss_of(logits / temperature, run.test_targets),
            f"{rule}: accuracy": accuracy_of(logits, run.test_targets),
        }
    advised = run.test_logits[rules["kept"]] / choice.temperature + np.array(choice.biases)
    row["advised: loss"] = loss_of(advised, run.test_targets)
    row["advised: accuracy"] = accuracy_of(advised, run.test_targets)
    return row


def written(table: pd.DataFrame) -> str:
    """Write one cell a rule."""
    cells = pd.DataFrame(index=table.index)
    for rule in ("kept", "least loss", "best accuracy", "patience 5", "patience 10"):
        values = table[[f"{rule}: {name}" for name in ("epoch", "loss", "loss with T", "accuracy")]]
        cells[rule] = [
            f"{epoch:.0f} {loss:.3f} {scaled:.3f} {share:.3f}"
            for epoch, loss, scaled, share in values.to_numpy()
        ]
    advised = table[["advised: loss", "advised: accuracy"]].to_numpy()
    cells["advised"] = [f"{loss:.3f} {share:.3f}" for loss, share in advised]
    return cells.to_string()


def differences(table: pd.DataFrame) -> str:
    """Mean over the runs of what is advised minus each rule, with its standard error."""
    rows = {}
    for rule in ("kept", "least loss", "best accuracy", "patience 5", "patience 10"):
        for quantity in ("loss", "loss with T", "accuracy"):
            own = table["advised: accuracy" if quantity == "accuracy" else "advised: loss"]
            change = (own - table[f"{rule}: {quantity}"]).groupby(level=0).mean()
            rows[f"{rule}, {quantity}"] = {
                "mean": change.mean(),
                "se": change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan,
                "lower": (change < 0).sum(),
                "higher": (change > 0).sum(),
            }
    return pd.DataFrame(rows).T.round(4).to_string()


if __name__ == "__main__":
    main()
