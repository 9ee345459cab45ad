"""What do others say of a training, when, which checkpoint do they keep, and what was true on a test half?

    python tests/benchmarks/rules.py [NAME=FOLDER ...] [--trainings [NAME ...]] [--totals] [--write]

asks four rules: patience 10, a fixed gap, the two curves (all three in curve_rules.py) and confshift. It
judges by a test half that none of them sees, as truth.py defines. NAME=FOLDER is a run of one of THREADS,
written by its example; a half of its validation samples, drawn by their ids, is the test half. --write puts
the results into docs/what_others_say.json, the page beside it and the README.

What is judged was chosen before any result was there: every thread's run with its own data, seed 0, and of
the trainings in trainings.py the first of each kind of expectation (by their docstrings, written before any
tool was asked) that has two trainings or more, seed 0. --totals counts over all trainings, with FRESH seeds:
confshift's limits were set with others in view.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from curve_rules import Said, fixed_gap, patience, two_curves
from numpy.typing import NDArray
from pages import put
from rules_page import PAGE, README, RESULTS, ROOT, page, readme, section, summary
from trainings import RUNS, accuracy_of, trained
from truth import best_map, change_of, finite, losses_of, repaired

import confshift
from confshift.analysis.history import History, summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.kinds import KINDS
from confshift.findings.run_kind import kind_of
from confshift.predictions import Predictions

#: What an expert expected of each training.
EXPECTATIONS = {
    "confidence alone": [
        *("restarts", "one_cosine", "fine_tuning", "few_texts", "order_of_words", "dropped_rate"),
        *("small_table", "confidence_alone"),
    ],
    "divergence": ["rate_rises_until_it_collapses", "rate_rises_until_nothing_is_finite"],
    "overfitting that the loss hides": ["wrong_training_labels", "biased_start"],
    "class balance": ["class_drift", "shifted_prior"],
    "no rise": ["sixty", "smoothed_labels", "healthy"],
    "overfitting": ["twenty_thousand", "learned_by_heart", "high_rate"],
    "wrong validation labels": ["wrong_validation_labels"],
    "an accident": ["accident"],
}
CHOSEN = {names[0]: kind for kind, names in EXPECTATIONS.items() if len(names) > 1}

#: The runs of the threads: what they are, and the command that writes each.
THREADS = {
    "T0": ("A new head on a pretrained backbone, digits", "python examples/t0_fishy_start.py"),
    "T1": ("A ResNet18 whose learning rate drops three times, digits", "python examples/t1_lr_drops.py"),
    "T1 CIFAR-10": (
        "A narrow ResNet18 whose learning rate drops three times, 10,000 images of CIFAR-10",
        "python examples/t1_lr_drops.py --data DIR --epochs 60 --width 16",
    ),
    "T2": ("A head on frozen features, 128 classes", "python examples/t2_frozen_features.py"),
    "T3 overfits": ("A small network, digits", "python examples/t3_fluctuation_or_rise.py"),
    "T3 fluctuates": (
        "The same with a strong weight decay",
        "python examples/t3_fluctuation_or_rise.py",
    ),
    "T4": (
        "A shallow CNN, digits 3, 5 and 8",
        "python tests/benchmarks/rules.py --shallow-cnn FOLDER",
    ),
    "T4 photographs": (
        "A shallow CNN, photographs of cats, dogs and pandas",
        "python tests/benchmarks/rules.py --shallow-cnn FOLDER --data DIR",
    ),
}

#: Seeds of data and trainings that were not looked at when the limits of confshift were set.
FRESH = (100, 101)

#: Kinds of run that say nothing got worse, or nothing yet.
SILENT = {"improving", "no_rise", "undecidable", "loss_undecided", "too_early", "unscored"}


class Judged(NamedTuple):
    """Checkpoints of the half that the rules see; logits (T, N, K) of the test half."""

    checkpoints: list[Checkpoint]
    train: Mapping[str, list[float]]  # loss, and accuracy where it was recorded, by epoch
    test_logits: NDArray
    test_targets: NDArray


def training(name: str, seed: int = 0) -> Judged:
    run = trained(name, seed)
    checkpoints = [
        Checkpoint.from_predictions(
            Predictions(logits, run.targets), epoch=epoch, metadata={"lr": float(rate)}
        )
        for epoch, (rate, logits) in enumerate(zip(run.rates, run.logits, strict=True))
    ]
    train = {
        "loss": [float(losses_of(one, run.train_targets).mean()) for one in run.train_logits],
        "accuracy": [accuracy_of(one, run.train_targets) for one in run.train_logits],
    }
    return Judged(checkpoints, train, finite(run.test_logits), run.test_targets)


def thread(folder: Path) -> Judged:
    """Halve the validation samples of a run: one for the rules, one to test them."""
    run = confshift.Run(folder)
    both = [run.checkpoint(epoch) for epoch in run.epochs_of("val")]
    count = len(both[0])
    rows = np.random.default_rng(0).permutation(count)  # of the ids in ascending order
    seen, unseen = np.sort(rows[: count // 2]), np.sort(rows[count // 2 :])
    checkpoints, test_logits = [], []
    for one in both:
        whole = one.predictions
        half = Predictions(
            whole.logits[seen],
            whole.targets[seen],
            sample_ids=whole.sample_ids[seen],
            class_names=whole.class_names,
        )
        checkpoints.append(Checkpoint.from_predictions(half, epoch=one.epoch, metadata=one.metadata))
        test_logits.append(whole.logits[unseen])
    return Judged(
        checkpoints, training_curve(run, both), finite(np.array(test_logits)), whole.targets[unseen]
    )


def training_curve(run: confshift.Run, checkpoints: list[Checkpoint]) -> dict[str, list[float]]:
    """Return the training loss and accuracy: of the split "train", else the loss that the loop reported."""
    if "train" in run.splits:
        parts = [run.checkpoint(one.epoch, split="train") for one in checkpoints]
        return {"loss": [part.loss for part in parts], "accuracy": [part.accuracy for part in parts]}
    if any("trn_loss" in one.metadata for one in checkpoints):
        return {"loss": [float(one.metadata.get("trn_loss", np.nan)) for one in checkpoints]}
    return {}


def shallow_cnn(folder: Path, data: Path | None) -> None:
    """Train the shallow CNN of its example, and record the training images too, which changes nothing."""
    sys.path.insert(0, str(ROOT / "examples"))
    import torch
    from torch.utils.data import DataLoader

    import t4_shallow_cnn as example

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, validation = example.load(data, quick=False)
    inspect, probe = confshift.inspect, DataLoader(images, batch_size=250)

    def inspect_both(model: Any, loader: Any, **given: Any) -> Checkpoint:
        checkpoint = inspect(model, loader, **given)
        inspect(model, probe, **{**given, "split": "train", "epoch": checkpoint.epoch})
        return checkpoint

    with mock.patch.object(confshift, "inspect", inspect_both):
        example.train(images, validation, confshift.Run(folder), epochs=example.EPOCHS)


# ------------------------------------------------------------------------------------------ what each says
def by_rule(judged: Judged) -> Iterator[tuple[str, Said]]:
    """Ask the three rules that read curves; those that need a training curve where there is one."""
    val = {
        "loss": [one.loss for one in judged.checkpoints],
        "accuracy": [one.accuracy for one in judged.checkpoints],
    }
    yield "patience 10", patience(val["loss"])
    if judged.train:
        yield "a fixed gap", fixed_gap(judged.train, val)
        yield "the two curves", two_curves(judged.train["loss"], val["loss"])


def by_confshift(history: History) -> Said:
    """Ask once, at the end, as `confshift report` does."""
    kind = kind_of(history)
    keeps = history.main.epochs.tolist().index(history.recommendation.epoch)
    verdict = KINDS[kind].verdict
    worse = True if verdict == "yes" or kind == "diverged" else False if verdict == "no" else None
    return Said(KINDS[kind].answer, None, keeps, worse)


def since_when(checkpoints: list[Checkpoint]) -> tuple[int | None, str, int | None]:
    """Ask confshift after every epoch: when it first names a kind, which, and when it says to stop."""
    first, kind, stop = None, "", None
    for count in range(2, len(checkpoints) + 1):
        history = summarize(checkpoints[:count], looks="every epoch")
        now = kind_of(history)
        if first is None and now not in SILENT:
            first, kind = count - 1, KINDS[now].answer
        if stop is None and history.should_stop:
            stop = count - 1
        if first is not None and stop is not None:
            break
    return first, kind, stop


# ------------------------------------------------------------------------------------------- what was true
def judge(judged: Judged, *, when: bool = True) -> dict[str, Any]:
    """Return what was true, and what each rule says with the outcome of the checkpoint that it keeps."""
    history = summarize(judged.checkpoints)
    choice, epochs = history.recommendation, [one.epoch for one in judged.checkpoints]
    losses = np.array([losses_of(one, judged.test_targets) for one in judged.test_logits])
    repairs = [repaired(one, judged.test_targets) for one in judged.test_logits]
    left = np.array([losses_of(one, judged.test_targets) for one in repairs])
    best, lowest = int(np.argmin(left.mean(axis=1))), int(np.argmin(losses.mean(axis=1)))
    knows, loss = change_of(left), change_of(losses)
    rows = []
    for name, said in (*by_rule(judged), ("confshift", by_confshift(history))):
        rows.append(
            {
                "rule": name,
                "says": said.text,
                "at": None if said.at is None else epochs[said.at],
                "keeps": epochs[said.keeps],
                "worse": said.worse,
                **_outcome(judged, said.keeps),
            }
        )
    advised = judged.test_logits[epochs.index(choice.epoch)] / choice.temperature + np.array(choice.biases)
    rows[-1] |= {
        "silent": kind_of(history) in SILENT,
        "temperature": choice.temperature,
        "biases": choice.with_biases,
        "advised_loss": float(losses_of(advised, judged.test_targets).mean()),
        "advised_accuracy": accuracy_of(advised, judged.test_targets),
    }
    if when:
        first, text, stop = since_when(judged.checkpoints)
        rows[-1] |= {
            "at": None if first is None else epochs[first],
            "first_says": text,
            "stop": None if stop is None else epochs[stop],
        }
    return {
        "epochs": epochs[-1],
        "seen": len(judged.checkpoints[0]),
        "test": len(judged.test_targets),
        "knows": {**knows._asdict(), "answer": knows.answer},
        "loss": {**loss._asdict(), "answer": loss.answer},
        "best": {
            "epoch": epochs[best],
            "loss": float(left[best].mean()),
            "accuracy": accuracy_of(repairs[best], judged.test_targets),
        },
        "lowest": {"epoch": epochs[lowest], "loss": float(losses[lowest].mean())},
        "rules": rows,
    }


def _outcome(judged: Judged, position: int) -> dict[str, float]:
    """Return what a checkpoint is worth on the test half, as it is and with one temperature.

    The temperature is fitted to the half that the rules see, by scipy.
    """
    logits, targets = judged.test_logits[position], judged.test_targets
    seen = judged.checkpoints[position].predictions
    beta, _ = best_map(finite(seen.logits), seen.targets, biases=False)
    return {
        "loss": float(losses_of(logits, targets).mean()),
        "tempered_loss": float(losses_of(beta * logits, targets).mean()),
        "accuracy": accuracy_of(logits, targets),
    }


def rounded(value: Any) -> Any:
    """Return the same with four decimals."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=FOLDER", help=f"of {', '.join(THREADS)}")
    parser.add_argument("--trainings", nargs="*", default=list(CHOSEN), choices=list(RUNS))
    parser.add_argument("--totals", action="store_true", help="count over all trainings, with fresh seeds")
    parser.add_argument("--write", action="store_true", help="update the documents")
    parser.add_argument("--shallow-cnn", type=Path, metavar="FOLDER", help="train T4 into this folder, only")
    parser.add_argument("--data", type=Path, help="images for it; see examples/images.py")
    options = parser.parse_args()
    if options.shallow_cnn:
        shallow_cnn(options.shallow_cnn, options.data)
        return
    found: dict[str, Any] = {}
    every: list[Any] = []
    for pair in options.runs:
        name, _, folder = pair.partition("=")
        title, command = THREADS[name]
        found[name] = {"title": title, "command": command, **judge(thread(Path(folder)))}
    for name in options.trainings:
        found[name] = {"expected": CHOSEN.get(name, ""), **judge(training(name))}
    sys.stdout.write("\n".join(section(name, run) for name, run in found.items()))
    if options.totals:
        every = [
            {"training": name, "seed": seed, **judge(training(name, seed), when=False)}
            for seed in FRESH
            for name in RUNS
        ]
        sys.stdout.write(f"\n{summary(every)}\n")
    if options.write:
        write(rounded(found), rounded(every))


def write(found: dict[str, Any], every: list[Any]) -> None:
    """Put results into the documents, beside those of other runs that are there."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    known, old = results["runs"] | found, results.get("all", [])
    results = {"runs": {name: known[name] for name in (*THREADS, *RUNS) if name in known}}
    results["all"] = every or old
    RESULTS.write_text(one_run_a_line(results), encoding="utf-8")
    put(PAGE, "rules", page(results))
    put(README, "rules", readme(results))


def one_run_a_line(results: Mapping[str, Any]) -> str:
    """Write JSON whose differences can be read."""
    runs = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in results["runs"].items())
    every = ",\n".join(map(json.dumps, results.get("all", [])))
    return f'{{"runs": {{\n{runs}\n}},\n"all": [\n{every}\n]}}\n'


if __name__ == "__main__":
    main()
