"""The demo: a real training in which the loss rises while the accuracy stays flat."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from confshift import ConfshiftError, Predictions, Run, diagnose, summarize
from confshift import demo as module
from confshift.demo import EPOCHS, train
from confshift.reporting.subject import tell_run
from confshift.reporting.summary import summary_of


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return train(tmp_path_factory.mktemp("demo") / "full")


def test_the_validation_loss_rises_while_the_accuracy_stays_flat(full):
    history = summarize(full)
    table = history.table[history.table["split"] == "val"].set_index("epoch")
    best, last = table.loc[table["loss"].idxmin()], table.loc[EPOCHS]
    assert 0 < best.name < EPOCHS / 2
    assert last["loss"] > 1.2 * best["loss"]  # with ten other seeds at least 1.29 times
    assert abs(last["accuracy"] - best["accuracy"]) < 0.045  # and at most 0.037
    verdicts = {finding.code: finding.verdict for finding in diagnose(history)}
    assert verdicts["rise"] == "yes"
    assert verdicts["dearer_mistakes"] == "yes"


def test_it_starts_at_a_guess_and_learns_every_training_label_by_heart(full):
    table = summarize(full).table.set_index(["split", "epoch"])
    assert table.loc[("val", 0), "loss"] == pytest.approx(np.log(10), abs=0.02)
    assert table.loc[("train", EPOCHS), "accuracy"] == 1
    assert table.loc[("train", EPOCHS), "loss"] < 0.01


def test_every_epoch_is_inspected_and_the_training_images_at_some(full):
    assert full.epochs == tuple(range(EPOCHS + 1))
    assert full.epochs_of("train") == tuple(range(0, EPOCHS + 1, 5))
    assert full.problems.empty


def test_the_validation_labels_are_the_true_ones_and_some_training_labels_are_not():
    digits = load_digits()
    true = {image.tobytes(): target for image, target in zip(digits.data, digits.target, strict=True)}
    assert len(true) == len(digits.target)  # an image says which it is

    def wrong(dataset):
        images, labels = dataset.tensors
        pixels = (images.numpy() * 16).astype(np.float64)
        return sum(true[one.tobytes()] != label for one, label in zip(pixels, labels.tolist(), strict=True))

    training, validation = module._halves(0)
    assert (len(training), wrong(training)) == (100, 4)
    assert (len(validation), wrong(validation)) == (899, 0)


def test_the_images_are_those_of_the_samples(full):
    shown, samples = module.validation_images(), full[0].predictions
    assert shown.shape == (899, 8, 8)
    digits = load_digits()
    targets = {
        (255 * (1 - one / 16)).astype(np.uint8).tobytes(): kind
        for one, kind in zip(digits.images, digits.target, strict=True)
    }
    by_id = [targets[shown[sample].tobytes()] for sample in samples.sample_ids]
    np.testing.assert_array_equal(by_id, samples.targets)


def test_the_two_halves_share_no_image():
    sides = [{one.tobytes() for one in half.tensors[0].numpy()} for half in module._halves(3)]
    assert not sides[0] & sides[1]


def test_the_same_seed_gives_the_same_demo_whatever_ran_before_and_another_seed_another(tmp_path):
    torch.rand(3)
    first = train(tmp_path / "a", epochs=2)[2].predictions.logits
    torch.rand(5)
    np.random.default_rng().random()
    again = train(tmp_path / "b", epochs=2)[2].predictions.logits
    other = train(tmp_path / "c", epochs=2, seed=1)[2].predictions.logits
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_states_and_the_number_of_threads_are_left_as_they_were(tmp_path):
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(tmp_path / "run", epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_demo_replaces_an_earlier_one(tmp_path):
    train(tmp_path / "run", epochs=3)
    train(tmp_path / "run", epochs=1)
    assert Run(tmp_path / "run").epochs == (0, 1)


def test_a_demo_deletes_no_run_that_is_not_its_own(tmp_path):
    logits, targets = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([0, 1])
    Run(tmp_path / "mine").append(Predictions(logits, targets), epoch=1)
    with pytest.raises(ConfshiftError, match=r"mine.* is not a demo run; give the demo another folder"):
        train(tmp_path / "mine", epochs=1)
    assert Run(tmp_path / "mine").epochs == (1,)


def test_the_readme_quotes_what_the_demo_says(full):
    # The last digits depend on the processor; the words must not.
    def words(text):
        return re.sub(r"[\d.,]+", "#", " ".join(text.split()))

    readme = words((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"))
    story = tell_run(full, summarize(full), before=None, after=None, title=None, thumbnail=None)
    for line in summary_of(story).lines:
        assert words(line) in readme
    assert words(story.answer.steps[0].text) in readme
