import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax

import confshift
import t2_frozen_features as example
from images import Images

EPOCHS = 9


def runs_in(folder):
    names = ("frozen", "unfrozen", "unfrozen early")
    return {name: confshift.Run(folder / example.RUNS / name.replace(" ", "_")) for name in names}


def losses_and_hits(checkpoint):
    """Compute each sample's loss, and whether it is right, from the logits on disk."""
    predictions = checkpoint.predictions
    logits, targets = np.asarray(predictions.logits, np.float64), np.asarray(predictions.targets)
    losses = -log_softmax(logits, axis=1)[np.arange(len(targets)), targets]
    return losses, logits.argmax(axis=1) == targets


@pytest.fixture(scope="module")
def quick(run_example):
    """Return the folder of a short run and the lines that it printed."""
    printed, folder = run_example(example, "--quick", "--epochs", EPOCHS, "--out", "pages/t2.html")
    return folder, printed.splitlines()


def test_the_question_comes_first_and_the_page_is_written(quick):
    folder, lines = quick
    assert lines[0] == example.QUESTION
    page = folder / "pages" / "t2.html"
    assert "<html" in page.read_text(encoding="utf-8")
    assert page.stat().st_size < 3_000_000


def test_the_table_has_the_numbers_on_disk(quick):
    folder, lines = quick
    run = runs_in(folder)["frozen"]
    start = next(at for at, line in enumerate(lines) if line.startswith("epoch  trn_loss")) + 1
    for line, epoch in zip(lines[start : start + 3], (7, 8, 9), strict=True):
        losses, hits = losses_and_hits(run[epoch])
        error = losses.std(ddof=1) / np.sqrt(len(losses))
        shown = line.replace("|", " ").split()
        assert shown[0] == str(epoch)
        written = [run[epoch].metadata["trn_loss"], losses.mean(), hits.mean(), error]
        assert [float(one) for one in shown[1:5]] == pytest.approx(written, abs=6e-5)
        assert float(shown[5]) == pytest.approx(run[epoch].metrics()["refinement_loss"], abs=6e-5)


def test_the_epochs_told_apart_are_those_outside_the_set_of_the_best(quick):
    folder, lines = quick
    shown = [runs_in(folder)["frozen"][epoch] for epoch in (7, 8, 9)]
    losses = [losses_and_hits(one)[0].mean() for one in shown]
    in_set = confshift.summarize(shown).candidates.loc["loss", "in_set"]
    outside = ", ".join(f"{epoch:g}" for epoch in in_set.index[~in_set])
    verdict = f"only {outside}" if outside else "none"
    assert lines[-4].startswith(
        f"Of the epochs 7 to 9 {verdict} can be told from the best by loss, epoch {7 + np.argmin(losses)} ("
    )
    assert f"losses from {min(losses):.4f} to {max(losses):.4f}, and what 200 images" in lines[-4]


def test_the_checkpoint_to_keep_is_the_best_after_temperature_scaling(quick):
    folder, lines = quick
    checkpoints = runs_in(folder)["frozen"].checkpoints()
    best = min(checkpoints, key=lambda one: one.metrics()["refinement_loss"])
    losses = [losses_and_hits(one)[0].mean() for one in checkpoints]
    assert (
        f"keep epoch {best.epoch:g} with its temperature of {best.temperature:.2f}, loss "
        f"{best.metrics()['refinement_loss']:.4f}, where the lowest loss without one is {min(losses):.4f}, "
        f"at epoch {np.argmin(losses)}." in lines[-3]
    )


def test_the_opening_on_overfitting_is_the_verdict_on_the_kind_of_run(quick):
    folder, lines = quick
    findings = {one.code: one for one in confshift.diagnose(runs_in(folder)["frozen"])}
    openings = {
        "yes": "Overfitting has begun (",
        "no": "Overfitting has not begun (",
        "cannot tell": "Whether overfitting has begun can't be told (",
    }
    assert lines[-3].startswith(openings[findings["run_kind"].verdict])


def test_what_unfreezing_changed_is_told_with_the_numbers_on_disk(quick):
    folder, lines = quick
    runs = runs_in(folder)
    (before, right_before), (after, right_after) = (
        losses_and_hits(runs["frozen"][EPOCHS]),
        losses_and_hits(runs["unfrozen"][6]),
    )
    assert f"from {before.mean():.3f} to {after.mean():.3f} and the accuracy" in lines[-2]
    assert (
        f"from {right_before.mean():.1%} to {right_after.mean():.1%} ({(~right_before & right_after).sum()} "
        f"learned, {(right_before & ~right_after).sum()} forgotten)" in lines[-2]
    )
    change = after - before
    scatter = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    if abs(change.mean()) > 1.2 * scatter:
        assert f"the loss {'rises' if change.mean() > 0 else 'falls'} from" in lines[-2]
    shock = (losses_and_hits(runs["unfrozen"][1])[0] - before).mean()
    assert f"the first of them changes the loss by {shock:+.3f}" in lines[-2]
    longer = (after - losses_and_hits(runs["unfrozen early"][6])[0]).mean()
    assert f"({longer:+.3f} nats," in lines[-2]
    assert f"for {EPOCHS} epochs before instead of 2 " in lines[-2]


def test_unfreezing_starts_from_the_model_that_the_head_was_trained_in(quick):
    runs = runs_in(quick[0])
    for name, epoch in (("unfrozen", EPOCHS), ("unfrozen early", example.EARLY)):
        on_features = runs["frozen"][epoch].predictions
        on_images = runs[name][0].predictions
        assert np.array_equal(on_features.targets, on_images.targets)
        assert on_features.logits == pytest.approx(np.asarray(on_images.logits), abs=1e-4)


def test_the_weights_move_and_by_how_much_is_told(quick):
    folder, lines = quick
    metadata = [one.metadata for one in runs_in(folder)["unfrozen"].checkpoints()[1:]]
    for part in ("backbone", "head"):
        assert 0 < metadata[0][part] < metadata[-1][part]
    told = re.search(r"head move by (\d+)% .* those of the network below by (\d+)%", lines[-2])
    assert [int(one) for one in told.groups()] == [
        round(100 * metadata[-1][part]) for part in ("head", "backbone")
    ]


def a_digit_of_each(classes="0123456789", each=3):
    """Return 2 x 2 digits whose corners are class, class, serial number, 0."""
    targets = torch.arange(len(classes)).repeat_interleave(each)
    serial = torch.arange(len(targets))
    corners = torch.stack([targets, targets, serial, torch.zeros_like(serial)], dim=1)
    return Images(corners.reshape(-1, 1, 2, 2).to(torch.uint8), targets, tuple(classes))


def test_numbers_are_two_digits_side_by_side_and_every_other_one_upside_down():
    numbers = example.numbers_of(a_digit_of_each(), 12)
    assert len(numbers.classes) == len(set(numbers.classes)) == 128
    for at, (image, target) in enumerate(zip(numbers.pixels, numbers.targets.tolist(), strict=True)):
        upright = torch.rot90(image, 2, dims=(1, 2)) if at % 2 else image
        left, right = upright[0, 0, 0].item(), upright[0, 0, 2].item()
        assert numbers.classes[target] == f"{left}{right}" + (" turned" if at % 2 else "")


@pytest.mark.parametrize(("count", "uses"), [(12, 1), (36, 3)])
def test_each_digit_is_used_as_often_as_any_other(count, uses):
    numbers = example.numbers_of(a_digit_of_each(), count)
    pixels = torch.stack(
        [torch.rot90(one, 2, dims=(1, 2)) if at % 2 else one for at, one in enumerate(numbers.pixels)]
    )
    serials = torch.cat([pixels[:, 0, 1, 0], pixels[:, 0, 1, 2]])
    assert torch.bincount(serials.long())[:24].tolist() == [uses] * 24


def test_the_smoothed_loss_is_the_weighted_mean_of_the_batches():
    losses = np.random.default_rng(0).exponential(size=50)
    smoothed = example.Smoothed()
    shown = [smoothed.add(loss) for loss in losses]
    for count in (1, 2, 50):
        weights = 0.98 ** np.arange(count)[::-1]
        assert shown[count - 1] == pytest.approx(np.average(losses[:count], weights=weights))


def test_weights_that_all_grow_by_a_tenth_have_moved_by_a_tenth():
    before, after = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    after.load_state_dict({name: 1.1 * one for name, one in before.state_dict().items()})
    assert example.moved_since(before, after) == pytest.approx(0.1, rel=1e-5)


def test_the_classes_of_a_folder_of_images_are_its_own(run_example, tmp_path):
    rng = np.random.default_rng(0)
    for brightness, name in enumerate(["chairs", "lamps", "sofas"]):
        (tmp_path / name).mkdir(parents=True)
        for one in range(40):
            pixels = (80 * brightness + rng.integers(0, 80, (8, 8, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{one}.png")
    printed, folder = run_example(example, "--data", tmp_path, "--epochs", 3, "--out", "t2.html")
    lines = printed.splitlines()
    assert lines[1].startswith("24 images of 3 classes pretrain the network; 66 of 3 train")
    run = runs_in(folder)["frozen"]
    assert run[3].class_names == ("chairs", "lamps", "sofas")
    assert lines[-4].startswith("Of the epochs 3 to 3 none can be told from the best by loss, epoch 3")
