import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch

import confshift
import t1_lr_drops as t1

EPOCHS = 10
SECOND = 6  # the epoch after which the rate falls the second time


@pytest.fixture(scope="module")
def example(run_example):
    return run_example(t1, "--quick", "--epochs", EPOCHS, "--out", "pages/t1.html")


@pytest.fixture(scope="module")
def printed(example):
    return example[0]


@pytest.fixture(scope="module")
def run(example):
    return confshift.Run(example[1] / t1.RUN)


@pytest.fixture(scope="module")
def means(run):
    """Return a row of means per epoch, from the stored samples."""
    rows = {one.epoch: one.columns.rename(columns={"correct": "accuracy"}) for one in run.checkpoints()}
    return pd.DataFrame({epoch: frame[t1.QUANTITIES].mean() for epoch, frame in rows.items()}).T


def test_the_network_is_a_resnet18_for_small_images():
    network = t1.resnet18(3, 10, width=64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 20
    shapes = []
    for module in network.modules():
        if isinstance(module, t1.Block):
            module.register_forward_hook(lambda _, __, features: shapes.append(tuple(features.shape[1:])))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [
        shape for shape in ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)) for _ in range(2)
    ]


def test_the_drops_are_those_of_the_thread_scaled_to_the_epochs():
    assert t1.drop_epochs(200) == [60, 120, 160]
    assert t1.drop_epochs(EPOCHS) == [3, SECOND, 8]


def test_every_epoch_has_both_splits_and_the_learning_rate_it_was_trained_with(run):
    rates = [0.1] * 3 + [0.02] * 3 + [0.004] * 2 + [0.0008] * 2
    for split, samples in (("val", 250), ("train", 50)):
        checkpoints = run.checkpoints(split)
        assert [one.metadata["lr"] for one in checkpoints] == pytest.approx(rates)
        assert {len(one) for one in checkpoints} == {samples}


def test_the_red_box_is_about_the_epochs_before_the_second_drop(printed, run, means):
    earlier = means["loss"].loc[: SECOND - 1]
    assert f"{earlier.min():.3f} at epoch {earlier.idxmin():g}, " in printed
    change = means.loc[SECOND] - means.loc[earlier.idxmin()]
    assert f"{means.loc[SECOND, 'loss']:.3f} at epoch {SECOND}: {change['loss']:+.3f} nats, scale" in printed
    checkpoints = [one for one in run.checkpoints() if one.epoch <= SECOND]
    status = confshift.summarize(checkpoints).rise.loc["loss", "status"].replace("_", " ")
    opening = "rises" if status == "systematic" else "does not rise"
    assert f"Red box: before the second drop the loss {opening} systematically" in printed
    assert f"({status}, " in printed


def test_the_green_box_gives_what_the_drop_changed_in_each_part(printed, means):
    around = [slice(SECOND - 2, SECOND), slice(SECOND + 1, SECOND + 2)]  # no further than the next drops
    before, after = (means.loc[one].mean() for one in around)
    change = after - before
    told = next(line for line in printed.splitlines() if line.startswith("Green box: "))
    assert f"the loss changes by {change['loss']:+.3f} nats" in told
    assert f"the accuracy by {100 * change['accuracy']:+.2f} points" in told
    shown = [float(one) for one in re.findall(r"(?:scale|class balance|the rest) ([+-][\d.]+) \(", told)]
    assert shown == pytest.approx(list(change[list(t1.PARTS)]), abs=1.6e-3)
    assert sum(shown) == pytest.approx(round(change["loss"], 3), abs=1e-9)
    assert "between so few epochs it can't be told from jitter what it does" in told


def test_the_blue_box_gives_the_change_and_who_carries_it(printed, run, means):
    after_drop = means["loss"].loc[SECOND + 1 :]
    first = after_drop.idxmin() if after_drop.idxmin() != EPOCHS else SECOND + 1
    before, after = run[first].columns, run[EPOCHS].columns
    change = (after["loss"] - before["loss"]) / len(before)
    was, remains = before["correct"], after["correct"]
    assert f"Blue box: from epoch {first:g} to {EPOCHS}" in printed
    assert f"({change.sum():+.3f} nats, {100 * (remains.mean() - was.mean()):+.2f} points)" in printed
    assert f"the {(~was & remains).sum()} learned and {(was & ~remains).sum()} forgotten images" in printed
    assert f"which carry {change[was != remains].sum():+.3f} nats" in printed
    assert (
        f"the {(~was & ~remains).sum()} that stayed wrong ({change[~was & ~remains].sum():+.3f})" in printed
    )
    assert f"the {(was & remains).sum()} that stayed right ({change[was & remains].sum():+.3f})" in printed


def test_the_table_of_each_drop_is_printed(printed):
    for drop in t1.drop_epochs(EPOCHS):
        assert f"The drop after epoch {drop}:" in printed


def test_the_page_is_written_and_small(example):
    page = example[1] / "pages" / "t1.html"
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert page.stat().st_size < 3e6


def moves(error=0.01, **change):
    """Return a table of `moved_by_drop` with these changes, one of the accuracy being their opposite."""
    change = pd.Series(change)
    change["loss"], change["accuracy"] = change.sum(), -change.sum()
    table = {"low": change - error, "high": change + error, "smallest": change, "largest": change}
    return pd.DataFrame({"change": change, **table}).loc[t1.QUANTITIES]


@pytest.mark.parametrize(
    ("scale", "balance", "rest", "verdict"),
    [
        (-0.1, 0.0, -0.2, "it helps, through the rest and scale"),
        (-0.1, 0.005, 0.0, "it helps, through scale"),
        (-0.009, -0.009, -0.009, "it helps, through no part for certain"),
        (0.0, -0.005, 0.0, "it does not help beyond sampling error and jitter"),
        (0.1, 0.0, 0.0, "it harms"),
    ],
)
def test_the_verdict_on_the_drop_follows_its_parts(scale, balance, rest, verdict):
    table = moves(scale_loss=scale, balance_loss=balance, refinement_loss=rest)
    assert f"at the second drop {verdict}: the loss changes by" in t1.green(table, 1)
    assert "by run" in t1.green(table, 3)


def run_with_drops(path, *, scales, strengths, samples=400, seed=0):
    """Store a run whose logits have these scales and strengths; each third has its own learning rate."""
    rng = np.random.default_rng(seed)
    targets = np.random.default_rng(9).integers(0, 4, samples)
    noise = rng.normal(size=(samples, 4))
    run, third = confshift.Run(path), len(scales) // 3
    for at, (scale, strength) in enumerate(zip(scales, strengths, strict=True)):
        jitter = 0.1 * rng.normal(size=(samples, 4)) + 0.05 * rng.normal(size=4)
        logits = scale * (strength * np.eye(4)[targets] + noise + jitter)
        rate = {"lr": 0.2 ** min(at // third, 2)}
        run.append(confshift.Predictions(logits.astype(np.float32), targets), metadata=rate)
    run.flush()
    return run


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """Return two runs whose second drop halves a scale that is too large, and changes nothing else."""
    folder = tmp_path_factory.mktemp("drops")
    scales, strengths = np.repeat([1.0, 4.0, 2.0], 8), np.full(24, 2.0)
    return [
        run_with_drops(folder / f"{seed}", scales=scales, strengths=strengths, seed=seed) for seed in (1, 2)
    ]


def test_the_means_at_a_drop_are_those_of_the_packages_table_of_drops(helped):
    for number in (1, 2):
        moved = t1.moved_by_drop(helped[:1], number)
        drop = confshift.summarize(helped[0]).rate_drops.iloc[number - 1]
        for name in ("loss", *t1.PARTS):
            assert moved.loc[name, "change"] == pytest.approx(drop[f"{name}_change"], abs=1e-6)
        assert moved.loc["accuracy", "change"] == pytest.approx(-drop["error_rate_change"], abs=1e-9)


def test_the_interval_holds_the_error_of_the_images_and_the_jitter_of_the_epochs(helped):
    moved = t1.moved_by_drop(helped[:1])
    sides = [[helped[0][epoch].columns["loss"] for epoch in side] for side in (range(12, 17), range(17, 20))]
    own = np.mean(sides[1], axis=0) - np.mean(sides[0], axis=0)
    jitter = confshift.summarize(helped[0]).rate_drops.iloc[1]["loss_jitter"]
    assert jitter > 0
    error = 2.3646 * np.hypot(own.std(ddof=1) / np.sqrt(len(own)), jitter)  # t with 7 degrees of freedom
    assert moved.loc["loss", "high"] - moved.loc["loss", "change"] == pytest.approx(error, rel=1e-3)


def test_two_runs_are_averaged_and_their_range_is_given(helped):
    each = [t1.moved_by_drop([run])["change"] for run in helped]
    both = t1.moved_by_drop(helped)
    assert both["change"].to_numpy() == pytest.approx(np.mean(each, axis=0))
    assert both["smallest"].to_numpy() == pytest.approx(np.min(each, axis=0))
    assert both["largest"].to_numpy() == pytest.approx(np.max(each, axis=0))


def test_a_drop_that_only_shrinks_logits_helps_through_scale(helped):
    table = t1.moved_by_drop(helped)
    assert "at the second drop it helps, through scale: " in t1.green(table, 2)
    assert table.loc["accuracy", "low"] < 0 < table.loc["accuracy", "high"]


def test_a_drop_that_teaches_helps_through_the_rest(tmp_path):
    run = run_with_drops(tmp_path / "run", scales=np.full(24, 1.5), strengths=np.repeat([1.0, 1.5, 2.5], 8))
    table = t1.moved_by_drop([run])
    assert table.loc["refinement_loss", "high"] < 0 < table.loc["accuracy", "low"]
    assert table.loc["refinement_loss", "change"] < 2 * table.loc["scale_loss", "change"]


def test_the_mean_of_the_logits_before_the_drop_is_held_against_the_mean_of_their_losses(helped):
    before = [helped[0][epoch] for epoch in range(12, 17)]
    logits = torch.tensor(np.mean([one.predictions.logits for one in before], axis=0))
    targets = torch.tensor(np.asarray(before[0].predictions.targets))
    own = np.mean([one.metrics()["loss"] for one in before])
    gain = t1.averaged(helped[:1])
    assert gain["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, targets).item() - own, abs=1e-5
    )
    assert gain["loss"] == pytest.approx(gain[list(t1.PARTS)].sum())
    hits = np.mean([one.metrics()["accuracy"] for one in before])
    assert gain["accuracy"] == pytest.approx((logits.argmax(1) == targets).double().mean().item() - hits)


@pytest.mark.parametrize(
    ("drop", "mean", "verdict"),
    [
        (-0.2, -0.3, "150% of the drop's, which is consistent with a smaller step"),
        (-0.2, -0.05, "so averaging noise does not explain the drop's"),
        (0.1, -0.3, "so averaging noise does not explain the drop's"),
    ],
)
def test_averages_explain_a_drop_that_helps_no_more_than_they_do(drop, mean, verdict):
    tables = [moves(scale_loss=one, balance_loss=0.0, refinement_loss=0.0)["change"] for one in (drop, mean)]
    assert verdict in t1.noise(*tables)


def test_stored_runs_are_answered_without_training(helped, capsys, monkeypatch):
    monkeypatch.setattr(t1, "train", None)
    t1.main(["--answer", *(str(run.path) for run in helped)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines if " box: " in line] == [
        "Red",
        "Red",
        "Green",
        "Blue",
        "Blue",
    ]
    assert "The drop after epoch 16:" in lines


def stored_run(path, logits, targets):
    run = confshift.Run(path)
    for one in logits:
        run.append(confshift.Predictions(one, targets))
    return run.checkpoints()


def test_growing_logits_are_a_systematic_rise(make_logits, tmp_path):
    checkpoints = stored_run(tmp_path / "run", *make_logits(2000, 3, 30))
    told = t1.red(checkpoints)
    since = confshift.summarize(checkpoints).rise.loc["loss", "since"]
    assert f"the loss rises systematically, every epoch after {since:g} being worse than the lowest" in told
    assert "of the error rate flat." in told


def test_a_loss_that_rises_at_a_steady_accuracy_is_the_blue_box(make_logits, tmp_path):
    told = t1.blue(stored_run(tmp_path / "run", *make_logits(2000, 3, 30)))
    assert "the loss rises and the accuracy does not fall beyond sampling error (" in told


def test_a_loss_that_falls_is_not_the_blue_box(make_logits, tmp_path):
    logits, targets = make_logits(2000, 3, 30)
    assert "the loss does not rise, or" in t1.blue(stored_run(tmp_path / "run", logits[::-1], targets))


def test_with_cifar_the_recipe_is_the_one_of_the_thread(tmp_path):
    options = t1.options_from(["--data", str(tmp_path)])
    assert (options.epochs, options.width, options.subset) == (200, 64, None)
    assert t1.options_from(["--data", str(tmp_path), "--epochs", "3", "--width", "4"]).width == 4


def test_cifar_batches_are_trained_on_and_a_subset_of_them(run_example, tmp_path):
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = np.arange(20) % 10
        data = rng.integers(0, 256, (20, 3072)).astype(np.uint8)
        (tmp_path / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels.tolist()}))
    names = [f"class {number}".encode() for number in range(10)]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}))
    printed, folder = run_example(t1, "--data", tmp_path, "--epochs", 5, "--width", 4, "--subset", 50)
    run = confshift.Run(folder / t1.RUN)
    assert "50 images to train on, 20 to validate." in printed
    assert "Not as in the thread: digits" not in printed
    assert run.epochs == (1, 2, 3, 4, 5)
    assert run.class_names[0] == "class 0"


def test_images_are_shifted_by_every_distance_and_zeros_come_in():
    image = torch.arange(1.0, 26.0).reshape(1, 1, 5, 5)
    moved = t1.shifted(image.repeat(200, 1, 1, 1), by=1)
    wide = torch.nn.functional.pad(image, (1, 1, 1, 1))[0, 0]
    possible = [wide[top : top + 5, left : left + 5] for top in range(3) for left in range(3)]
    found = {tuple(one.flatten().tolist()) for one in moved}
    assert found == {tuple(one.flatten().tolist()) for one in possible}
    assert torch.equal(t1.shifted(image, by=0), image)
