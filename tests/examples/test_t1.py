import pickle

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
    assert (
        f"{means.loc[SECOND, 'loss']:.3f} at epoch {SECOND}); the rise of the refinement loss is" in printed
    )
    checkpoints = [one for one in run.checkpoints() if one.epoch <= SECOND]
    status = confshift.summarize(checkpoints).rise.loc["loss", "status"].replace("_", " ")
    opening = "rises" if status == "systematic" else "does not rise"
    assert f"Red box: before the second drop the loss {opening} systematically" in printed
    assert f"({status}, " in printed


def test_the_green_box_gives_the_means_before_and_after_the_drop(printed, means):
    before, after = means.loc[SECOND - 4 : SECOND].mean(), means.loc[SECOND + 1 : SECOND + 3].mean()
    for name in t1.QUANTITIES:
        assert f"{name.replace('_', ' ')} {before[name]:.3f} to {after[name]:.3f}" in printed
    sides = means.loc[:SECOND, "loss"], means.loc[SECOND + 1 :, "loss"]
    jitter = [np.std(np.diff(side), ddof=1) / np.sqrt(2) for side in sides]
    assert f"jitter of the loss goes from {jitter[0]:.4f} to {jitter[1]:.4f}." in printed


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


@pytest.mark.parametrize(
    ("refinement", "calibration", "verdict"),
    [
        (-0.1, -0.1, "both what the model knows (refinement) and its over-confidence (calibration) improve"),
        (-0.1, 0.0, "what the model knows (refinement) improves, its over-confidence (calibration) does not"),
        (
            0.0,
            -0.1,
            "over-confidence (calibration) falls, what the model knows (refinement) does not improve",
        ),
        (0.0, -0.01, "neither refinement nor calibration improves beyond its jitter"),
    ],
)
def test_the_verdict_on_the_drop_follows_the_run(refinement, calibration, verdict):
    change = {
        "loss": refinement + calibration,
        "refinement_loss": refinement,
        "calibration_loss": calibration,
        "accuracy": 0.0,
    }
    table = pd.DataFrame({"before": 0.5, "after": 0.5 + pd.Series(change)})
    table = table.assign(jitter_before=0.02, jitter_after=0.01)
    assert f"at the drop after epoch 9 {verdict}: " in t1.green(table, 9)


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
