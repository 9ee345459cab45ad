import numpy as np
import pandas as pd
import pytest

import confshift
import t3_fluctuation_or_rise as t3

EPOCHS = 6


@pytest.fixture(scope="module")
def example(run_example):
    return run_example(t3, "--quick", "--epochs", EPOCHS, "--out", "pages/t3.html")


@pytest.fixture(scope="module")
def printed(example):
    return example[0]


@pytest.fixture(scope="module")
def runs(example):
    return {name: confshift.Run(example[1] / t3.RUNS / name) for name in t3.TRAININGS}


def batch_losses(run):
    """Return the train split's stored means by epoch, straight from the metadata."""
    return pd.DataFrame([dict(one.metadata) for one in run.checkpoints("train")])


def test_all_trainings_are_inspected_in_both_splits(runs):
    epochs = tuple(range(1, EPOCHS + 1))
    for run in runs.values():
        assert run.epochs == run.epochs_of("train") == epochs
        assert len(run[1]) == len(run.checkpoint(1, split="train")) == 500


def test_the_trainings_start_from_the_same_weights_and_differ_by_their_recipe_only(runs):
    losses = {name: run[1].metrics()["loss"] for name, run in runs.items()}
    assert len(set(losses.values())) == 3
    assert losses["fluctuates"] == pytest.approx(losses["overfits"], rel=0.2)


def test_the_stored_parts_of_an_epoch_are_means_of_its_batches():
    losses = np.arange(17.0)
    assert t3.in_parts(losses) == {"running": 8.0, "first": 1.0, "last": 15.0}
    assert t3.in_parts([3.0, 5.0]) == {"running": 4.0, "first": 3.0, "last": 5.0}


def test_the_answer_says_of_both_runs_whether_the_loss_rises(printed, runs):
    for name in ("fluctuates", "overfits"):
        row = confshift.summarize(runs[name]).rise.loc["loss"]
        means = np.array([one.columns["loss"].mean() for one in runs[name].checkpoints()])
        steps = np.diff(means)
        expected = (
            f"{row['verdict']} ({row['status'].replace('_', ' ')}) for the run that {name}, "
            f"{means[-1]:.3f} at epoch {EPOCHS} after {means[:-1].min():.3f} at epoch "
            f"{means[:-1].argmin() + 1}, "
            f"with {(steps > 0).sum()} of {EPOCHS - 1} steps upwards, the largest {steps.max():+.3f}"
        )
        assert expected.lower() in printed.lower()


def test_the_answer_counts_the_checkpoints_that_may_be_the_best(printed, runs):
    for name in ("fluctuates", "overfits"):
        candidates = confshift.summarize(runs[name]).candidates.loc["loss"]
        epochs = [epoch for epoch, chosen in candidates["in_set"].items() if chosen]
        lowest = min(runs[name].epochs, key=lambda epoch, run=runs[name]: run[epoch].columns["loss"].mean())
        assert lowest in epochs
        assert f"{len(epochs)} of {EPOCHS} (from {epochs[0]:g} to {epochs[-1]:g}) where it {name}" in printed


def test_the_answer_gives_the_training_loss_before_and_after_the_largest_drop(printed, runs):
    table = batch_losses(runs["overfits"])
    before, after = table["last"].to_numpy()[:-1], table["first"].to_numpy()[1:]
    at = int(np.argmax(before - after))
    checkpoint = runs["overfits"].checkpoint(at + 1, split="train")
    expected = (
        f"after epoch {at + 1} from {before[at]:.3f} to {after[at]:.3f}, when all training images in eval "
        f"mode have {checkpoint.columns['loss'].mean():.3f} and the epoch's running mean is "
        f"{table['running'][at]:.3f}"
    )
    assert expected in printed
    assert f"on average {1 - np.exp(np.log(after / before).mean()):.0%} lower" in printed


def test_the_control_without_epochs_is_given_beside_it(printed, runs):
    table = batch_losses(runs["no_epochs"])
    ratio = np.log(table["first"].to_numpy()[1:] / table["last"].to_numpy()[:-1]).mean()
    assert f"drawn with replacement {1 - np.exp(ratio):.0%}" in printed


def test_both_pages_are_written_and_small(example):
    for name in ("t3.html", "t3_fluctuates.html"):
        page = example[1] / "pages" / name
        assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
        assert page.stat().st_size < 3e6


def run_with_drops(path, drops):
    """Return a run whose training loss changes by these factors (in logs) at the ends of its epochs."""
    run = confshift.Run(path)
    predictions = confshift.Predictions([[2.0, 0.0], [0.0, 2.0]], [0, 1])
    first = 1.0
    for epoch, drop in enumerate([*drops, 0.0], start=1):
        run.append(predictions, epoch=epoch)
        stored = {"running": 1.0, "first": first, "last": 1.0}
        run.append(predictions, epoch=epoch, split="train", metadata=stored)
        first = float(np.exp(-drop))
    return run


@pytest.mark.parametrize(
    ("drops", "control", "verdict"),
    [
        (
            (0.5, 0.4, 0.6),
            (0.0, 0.1, -0.1),
            "The training loss drops between epochs, where no weight changes",
        ),
        ((0.5, 0.4, 0.6), (0.5, 0.6, 0.4), "but the repeats of the images do not explain it"),
        ((0.1, -0.1, 0.0), (0.0, 0.1, -0.1), "does not drop between epochs in this run"),
    ],
)
def test_the_verdict_on_the_drops_follows_the_runs(tmp_path, drops, control, verdict):
    runs = {
        "overfits": run_with_drops(tmp_path / "overfits", drops),
        "no_epochs": run_with_drops(tmp_path / "no_epochs", control),
    }
    mean, error = t3.drop_at_boundaries(runs["overfits"])
    assert mean == pytest.approx(np.mean(drops))
    assert error == pytest.approx(np.std(drops, ddof=1) / np.sqrt(3))
    assert verdict in t3.drops(runs)
