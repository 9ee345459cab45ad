import numpy as np
import pytest
import torch
from PIL import Image

import confshift
import t4_shallow_cnn as t4

EPOCHS = 6


@pytest.fixture(scope="module")
def example(run_example):
    return run_example(t4, "--quick", "--epochs", EPOCHS, "--out", "pages/t4.html")


@pytest.fixture(scope="module")
def printed(example):
    return example[0]


@pytest.fixture(scope="module")
def run(example):
    return confshift.Run(example[1] / t4.RUN)


@pytest.fixture(scope="module")
def pair(run):
    """Return the samples of the two epochs that the answer is about: the lowest loss, and the last."""
    columns = [run[epoch].columns for epoch in run.epochs]
    lowest = int(np.argmin([one["loss"].mean() for one in columns]))
    assert lowest != EPOCHS, "choose another number of epochs: the loss has to rise somewhere"
    return lowest, columns[lowest], columns[-1]


def predictions_with(losses, correct):
    """Return predictions of two classes, all of class 0, with these losses."""
    odds = np.log(np.expm1(np.asarray(losses)))  # of the wrong class
    assert np.array_equal(odds < 0, correct)
    return confshift.Predictions(np.stack([np.zeros_like(odds), odds], axis=1), np.zeros(len(odds), np.int64))


def test_the_network_is_that_of_the_thread():
    network = t4.ShallowNet(32, 3, 3)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes == {
        "conv1.weight": (32, 3, 3, 3),
        "conv1.bias": (32,),
        "fc1.weight": (3, 32 * 32 * 32),
        "fc1.bias": (3,),
    }
    image = torch.randn(1, 3, 32, 32)
    features = torch.nn.functional.conv2d(image, network.conv1.weight, network.conv1.bias, padding=1)
    expected = features.clamp(min=0).reshape(1, -1) @ network.fc1.weight.T + network.fc1.bias
    torch.testing.assert_close(network(image), expected)


def test_every_epoch_is_inspected_and_the_start_too(run):
    assert run.epochs == tuple(range(EPOCHS + 1))
    assert len(run[0]) == 150
    assert run.class_names == ("3", "5", "8")


def test_the_question_comes_first_and_what_was_scaled_after_it(printed):
    assert printed.splitlines()[0] == t4.QUESTION
    assert printed.splitlines()[1].startswith(
        "Not as in the thread: 150 digits (3, 5, 8) to train on and 150 to"
    )


def test_the_answer_gives_the_losses_and_accuracies_of_the_run(printed, pair):
    lowest, before, after = pair
    expected = (
        f"{before['loss'].mean():.3f} at epoch {lowest}, {after['loss'].mean():.3f} at epoch {EPOCHS}; "
        f"accuracy {before['correct'].mean():.1%} and {after['correct'].mean():.1%}."
    )
    assert expected in printed


def test_the_answer_shares_the_change_out_among_the_images(printed, pair):
    _, before, after = pair
    change = (after["loss"] - before["loss"]) / len(before)
    was, remains = before["correct"], after["correct"]
    groups = {
        "right at both epochs carry": was & remains,
        "wrong at both": ~was & ~remains,
        "learned": ~was & remains,
        "forgotten": was & ~remains,
    }
    for words, chosen in groups.items():
        assert f"{words} {change[chosen].sum():+.3f} ({chosen.sum()})" in printed
    assert f"Of the change of {change.sum():+.3f} nats" in printed


def test_the_answer_gives_the_share_and_the_cost_of_mistakes(printed, pair):
    wrong = [~side["correct"] for side in pair[1:]]
    costs = [side["mistake"][errors].mean() for side, errors in zip(pair[1:], wrong, strict=True)]
    assert f"from {wrong[0].mean():.1%} to {wrong[1].mean():.1%}" in printed
    assert f"from {costs[0]:.2f} to {costs[1]:.2f} nats" in printed


def test_a_run_that_is_not_systematic_is_not_called_so(printed, run):
    status = confshift.summarize(run).rise.loc["loss", "status"]
    assert status != "systematic"  # six epochs are too few or too noisy
    assert "This run does not show the phenomenon" in printed
    assert f"({status.replace('_', ' ')}): " in printed


def test_the_page_is_written_and_small(example):
    page = example[1] / "pages" / "t4.html"
    text = page.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>")
    assert f"<title>{t4.RUN.name}" in text
    assert page.stat().st_size < 3e6


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        ((0.5, 0.1), (1.0, 2.0), "The wrong ones got worse; the right ones, on the whole, became surer"),
        ((0.1, 0.5), (2.0, 1.0), "The right ones became less sure; the wrong ones, on the whole, less"),
        ((0.1, 0.2), (1.0, 2.0), "Both, the wrong ones more"),
        ((0.1, 0.5), (1.0, 1.1), "Both, the right ones more"),
        ((0.5, 0.1), (2.0, 1.0), "Neither: both groups improved"),
    ],
)
def test_the_verdict_follows_the_run(right, wrong, verdict):
    correct = np.array([True] * 5 + [False] * 5)
    before, after = (predictions_with([right[side]] * 5 + [wrong[side]] * 5, correct) for side in range(2))
    assert f"So, less sure or worse? {verdict}" in t4.who(confshift.compare(before, after))


def test_a_systematic_rise_at_a_steady_accuracy_is_called_so(make_logits, tmp_path):
    logits, targets = make_logits(2000, 3, 30)
    run = confshift.Run(tmp_path / "run")
    for one in logits:
        run.append(confshift.Predictions(one, targets))
    assert t4.answer(run)[0].startswith(
        "The validation loss rises systematically and the accuracy does not fall with it:"
    )


def test_stored_runs_are_answered_without_training_and_then_together(
    make_logits, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(t4, "train", None)
    wrong, right, late = [], [], []
    for seed in (1, 2):
        logits, targets = make_logits(800, 3, 30, seed=seed)
        run = confshift.Run(tmp_path / f"{seed}")
        for one in logits:
            run.append(confshift.Predictions(one, targets))
        parts = confshift.compare(*confshift.summarize(run).pair).by_transition
        wrong.append(parts["stayed_wrong"])
        right.append(parts["stayed_right"])
        losses = [one.metrics()["loss"] for one in run.checkpoints()]
        late.append(np.mean(losses[24:]) - np.mean(losses[12:18]))
    run.flush()
    t4.main(["--answer", str(tmp_path / "1"), str(tmp_path / "2")])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("The validation loss rises systematically") for line in lines) == 2
    assert lines[-1].startswith("Judged one by one, 2 of 2 runs rise systematically. In 2 the wrong ones")
    reach = 12.7062 * np.std(late, ddof=1) / np.sqrt(2)  # Student's t with 1 degree of freedom
    low, high = np.mean(late) - reach, np.mean(late) + reach
    assert f"loss {np.mean(late):+.3f} ({low:+.3f} to {high:+.3f})" in lines[-1]
    assert f"carry {min(wrong):+.3f} to {max(wrong):+.3f}, those right" in lines[-1]
    assert f"both {min(right):+.3f} to {max(right):+.3f}. From" in lines[-1]


def test_photos_are_taken_as_they_are(run_example, tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cats", "dogs", "pandas")):
        (tmp_path / name).mkdir()
        for one in range(8):
            pixels = rng.integers(0, 80, (20, 20, 3)) + 80 * number
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{one}.jpg")
    printed, folder = run_example(t4, "--data", tmp_path, "--epochs", 2)
    run = confshift.Run(folder / t4.RUN)
    assert "Not as in the thread" not in printed
    assert run.class_names == ("cats", "dogs", "pandas")
    assert len(run[2]) == 6
    assert (folder / t4.PAGE).is_file()
