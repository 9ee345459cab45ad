"""The loss that was logged, against torch's own ways of averaging it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
)
from torch.nn.functional import one_hot as one_hot_of

from confshift.analysis.causes.logged_loss import logged_accuracies, logged_losses, possible_causes
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint, Provenance
from confshift.predictions import Predictions

SAMPLES, CLASSES = 533, 5


def data(seed):
    rng = np.random.default_rng(100)
    targets = rng.choice(CLASSES, SAMPLES, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    logits = np.random.default_rng(seed).normal(size=(SAMPLES, CLASSES)) * 2
    return torch.from_numpy(logits), torch.from_numpy(targets)


def panel_with(log, *, epochs=(1, 2, 3), metadata=None, **provenance):
    """A run whose user logged `log(logits, targets)` at each epoch."""
    checkpoints = []
    for epoch in epochs:
        logits, targets = data(epoch)
        plain = Checkpoint.from_predictions(
            Predictions(logits.numpy(), targets.numpy()), epoch=epoch, metadata=metadata
        )
        logged = {"loss": float(log(logits, targets))}
        checkpoints.append(replace(plain, provenance=Provenance(logged=logged, **provenance)))
    return stack(checkpoints)


def batch_means(size):
    def log(logits, targets):
        pairs = zip(logits.split(size), targets.split(size), strict=True)
        return np.mean([cross_entropy(z, y).item() for z, y in pairs])

    return log


WEIGHTS = [0.5, 1.0, 2.0, 1.5, 3.0]
COUNTS = np.bincount(data(0)[1].numpy(), minlength=CLASSES)


@pytest.mark.parametrize("digits", [None, 4, 6])
def test_the_mean_over_the_samples_is_equal_to_the_precision_it_was_logged_with(digits):
    def log(logits, targets):
        loss = cross_entropy(logits, targets).item()
        return loss if digits is None else round(loss, digits)

    table = logged_losses(panel_with(log))
    assert table["equal"].all()
    assert table.index.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("cause", "detail", "log", "settings"),
    [
        *(
            ("label smoothing", f"{eps:g}", lambda z, y, e=eps: cross_entropy(z, y, label_smoothing=e), {})
            for eps in (0.05, 0.1, 0.2)
        ),
        *(("mean of batch means", f"batches of {size}", batch_means(size), {}) for size in (32, 50, 256)),
        (
            "class weights",
            'metadata["class_weights"]',
            lambda z, y: cross_entropy(z, y, weight=torch.tensor(WEIGHTS).double()),
            {"metadata": {"class_weights": WEIGHTS}},
        ),
        (
            "class weights",
            "inverse to the class's samples",
            lambda z, y: cross_entropy(z, y, weight=torch.from_numpy(1 / COUNTS)),
            {},
        ),
        (
            "ignored samples counted",
            "30",
            lambda z, y: cross_entropy(z, y, reduction="sum") / (SAMPLES + 30),
            {"ignored_samples": 30},
        ),
        (
            "padded samples counted",
            "3",
            lambda z, y: cross_entropy(torch.cat([z, z[:3]]), torch.cat([y, y[:3]])),
            {"duplicate_samples": 3, "id_source": "sampler"},
        ),
    ],
)
def test_the_way_it_was_averaged_is_found(cause, detail, log, settings):
    panel = panel_with(log, **settings)
    table = logged_losses(panel)
    assert not table["equal"].any()
    causes = possible_causes(panel, table)
    fitting = causes[causes["fits"]]
    assert fitting[["cause", "detail"]].to_numpy().tolist() == [[cause, detail]]
    assert causes.iloc[0]["cause"] == cause


def test_a_difference_without_a_known_cause_fits_nothing():
    panel = panel_with(lambda z, y: 1.07 * cross_entropy(z, y))
    table = logged_losses(panel)
    np.testing.assert_allclose(table["relative_difference"], 0.07, rtol=1e-6)
    assert not possible_causes(panel, table)["fits"].any()


def test_a_cause_has_to_fit_at_every_epoch_probed():
    def log(logits, targets):
        first = torch.equal(logits, data(1)[0])
        return cross_entropy(logits, targets, label_smoothing=0.1 if first else 0.17)

    panel = panel_with(log)
    assert not possible_causes(panel, logged_losses(panel))["fits"].any()


def test_batches_are_not_guessed_where_the_rows_are_not_in_the_order_of_the_loader():
    panel = panel_with(batch_means(32), id_source="content")
    causes = possible_causes(panel, logged_losses(panel))
    assert "mean of batch means" not in set(causes["cause"])


def test_samples_that_can_not_be_scored_are_left_out_of_the_mean():
    logits, targets = data(1)
    expected = cross_entropy(logits[1:], targets[1:]).item()
    logits[0] = torch.nan
    plain = Checkpoint.from_predictions(Predictions(logits.numpy(), targets.numpy()), epoch=1)
    panel = stack([replace(plain, provenance=Provenance(logged={"loss": expected * 1.01}))])
    table = logged_losses(panel)
    assert table["sample_mean"].iloc[0] == pytest.approx(expected)
    assert possible_causes(panel, table)["error"].notna().all()


def test_masked_classes_make_no_cause_fit_by_accident():
    logits, targets = data(1)
    logits[:, 4] = -torch.inf
    targets[targets == 4] = 0
    plain = Checkpoint.from_predictions(Predictions(logits.numpy(), targets.numpy()), epoch=1)
    panel = stack([replace(plain, provenance=Provenance(logged={"loss": 3.0}))])
    causes = possible_causes(panel, logged_losses(panel))
    assert not causes[causes["cause"] == "label smoothing"]["fits"].any()


@pytest.mark.parametrize("logged", [{}, {"loss": float("nan")}, {"loss": float("inf")}, {"accuracy": 0.9}])
def test_without_a_finite_logged_loss_there_is_nothing_to_compare(logged):
    logits, targets = data(1)
    plain = Checkpoint.from_predictions(Predictions(logits.numpy(), targets.numpy()), epoch=1)
    assert logged_losses(stack([replace(plain, provenance=Provenance(logged=logged))])).empty


@pytest.mark.parametrize(
    "weights",
    [
        "balanced",
        ["a", "b", "c"],
        [1, 2, None],
        [1, 2, 10**400],
        [[1, 2], [3, 4], [5, 6]],
        [[1, 2, 3], [1, 2, 3]],
        {"0": 1, "1": 2},
        {"a": 1, "b": 2, "c": 3},
        [math.nan, 1, 1],
        [0, 0, 0],
        [-1, -1, -1],
        [True, {}, 2],
    ],
)
def test_equal_classes_have_no_weights_to_try_and_odd_ones_are_none(weights):
    targets = np.arange(60) % 3
    logits = np.random.default_rng(0).normal(size=(60, 3))
    plain = Checkpoint.from_predictions(
        Predictions(logits, targets), epoch=1, metadata={"class_weights": weights}
    )
    panel = stack([replace(plain, provenance=Provenance(logged={"loss": 1.0}))])
    causes = possible_causes(panel, logged_losses(panel))
    assert not causes["cause"].str.startswith("class weights").any()


def test_the_error_of_a_cause_is_its_largest_relative_difference():
    panel = panel_with(lambda z, y: cross_entropy(z, y, label_smoothing=0.12))
    causes = possible_causes(panel, logged_losses(panel)).set_index(["cause", "detail"])
    errors = []
    for epoch in (1, 2, 3):
        logits, targets = data(epoch)
        logged, tried = (cross_entropy(logits, targets, label_smoothing=e).item() for e in (0.12, 0.1))
        errors.append(abs(tried / logged - 1))
    assert max(errors) >= causes.loc[("label smoothing", "0.1"), "error"] >= min(errors)
    assert causes["error"].is_monotonic_increasing


# Each way as a loop would compute it, by torch


def batched(size, reduction="mean", **settings):
    def losses(z, y):
        parts = zip(z.split(size), y.split(size), strict=True)
        return [cross_entropy(a, b, reduction=reduction, **settings).item() for a, b in parts]

    return losses


def focal(gamma):
    def log(z, y):
        each = cross_entropy(z, y, reduction="none")
        return ((1 - (-each).exp()) ** gamma * each).mean()

    return log


def moving_average(values, decay):
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    return average


def one_hot(z):
    return lambda y: one_hot_of(y, z.shape[1]).to(z.dtype)


WAYS = {
    "a softmax applied twice": lambda z, y: cross_entropy(z.softmax(1), y),
    "a sum in place of a mean": lambda z, y: cross_entropy(z, y, reduction="sum"),
    "another logarithm": lambda z, y: cross_entropy(z, y) / math.log(2),
    "nll_loss on logits": lambda z, y: nll_loss(z, y),
    "the mean of -p, the true class's probability": lambda z, y: nll_loss(z.softmax(1), y),
    "focal loss": focal(2),
    "a binary cross-entropy against one-hot labels": lambda z, y: binary_cross_entropy_with_logits(
        z, one_hot(z)(y)
    ),
    "a sum over ranks": lambda z, y: 4 * cross_entropy(z, y),
    "the sum of a batch, averaged over batches": lambda z, y: np.mean(batched(32, "sum")(z, y)),
    "batch means added up": lambda z, y: sum(batched(32)(z, y)),
    "batch means divided by the number of samples": lambda z, y: sum(batched(50)(z, y)) / len(y),
    "the last batch only": lambda z, y: batched(64)(z, y)[-1],
    "drop_last": lambda z, y: np.mean(batched(64)(z, y)[: len(y) // 64]),
    "sums divided by full batches": lambda z, y: sum(batched(64, "sum")(z, y)) / (64 * -(-len(y) // 64)),
    "a division by ranks or steps too many": lambda z, y: cross_entropy(z, y) / 16,
    "another measure": lambda z, y: ((z.softmax(1) - one_hot(z)(y)) ** 2).sum(1).mean(),
    "batch means divided by a wrong number of batches": lambda z, y: (
        sum(batched(32)(z, y)) / (len(batched(32)(z, y)) - 1)
    ),
    "a moving average over batches": lambda z, y: moving_average(batched(32)(z, y), 0.9),
    "mean of batch means of a smoothed loss": lambda z, y: np.mean(batched(32, label_smoothing=0.1)(z, y)),
    "mean of weighted batch means": lambda z, y: np.mean(
        batched(32, weight=torch.arange(1.0, 1 + z.shape[1]).double())(z, y)
    ),
    "class weights, divided by the samples": lambda z, y: (
        cross_entropy(z, y, weight=torch.arange(1.0, 1 + z.shape[1]).double(), reduction="sum") / len(y)
    ),
}


def run_of(classes, log, *, epochs=3, names=("loss",), digits=None):
    rng = np.random.default_rng(classes)
    targets = rng.integers(0, classes, 301)
    checkpoints = []
    for epoch in range(1, epochs + 1):
        logits = rng.normal(size=(301, classes)) * 2 + epoch * np.eye(classes)[targets]
        value = float(log(torch.from_numpy(logits), torch.from_numpy(targets)))
        plain = Checkpoint.from_predictions(
            Predictions(logits, targets),
            epoch=epoch,
            metadata={"class_weights": list(np.arange(1.0, 1 + classes))},
        )
        logged = {name: value if digits is None else round(value, digits) for name in names}
        checkpoints.append(replace(plain, provenance=Provenance(logged=logged)))
    return stack(checkpoints)


@pytest.mark.parametrize(("classes", "digits"), [(2, 4), (2, None), (3, None), (10, 4)])
@pytest.mark.parametrize("name", WAYS)
def test_each_way_is_named_where_a_loop_went_it_and_no_other_unless_it_gives_the_same(name, classes, digits):
    panel = run_of(classes, WAYS[name], digits=digits)
    table = logged_losses(panel)
    assert not table["equal"].any()
    causes = possible_causes(panel, table)
    fitting = set(causes["cause"][causes["fits"]])
    assert name in fitting
    same = {"a binary cross-entropy against one-hot labels", "focal loss"}  # for two classes, now and then
    assert fitting - {name} <= same


def test_the_binary_cross_entropy_of_probabilities_is_named_too():
    def log(z, y):
        return binary_cross_entropy(z.softmax(1), one_hot(z)(y))

    panel = run_of(4, log)
    first = possible_causes(panel, logged_losses(panel)).iloc[0]
    assert (first["cause"], first["fits"]) == ("a binary cross-entropy against one-hot labels", True)


def test_numbers_that_have_nothing_to_do_with_a_run_are_hardly_ever_explained():
    named, random = [], np.random.default_rng(0)
    for digits, epochs in 12 * list(product([3, 4, None], [1, 2, 3])):
        panel = run_of(
            3, lambda z, y: cross_entropy(z, y) * random.uniform(0.7, 1.3), epochs=epochs, digits=digits
        )
        table = logged_losses(panel)
        if possible_causes(panel, table)["fits"].any() and not table["equal"].all():
            named.append((digits, epochs))
    assert len(named) <= 4  # of 108
    assert max(Counter(named).values(), default=0) <= 2  # of 12


@pytest.mark.parametrize(
    "name",
    ["loss", "val_loss", "val/loss", "valid_loss", "validation_loss", "eval_loss", "test_loss", "Val Loss"],
)
def test_a_loss_has_many_names(name):
    table = logged_losses(run_of(3, cross_entropy, names=(name, "accuracy")))
    assert table["equal"].tolist() == [True] * 3


def test_the_loss_of_another_split_is_not_the_loss():
    assert logged_losses(run_of(3, cross_entropy, names=("train_loss",))).empty


@pytest.mark.parametrize("seed", range(6))
def test_a_sum_in_single_precision_is_named(seed):
    """Its rounding is that of a number some hundred times the mean."""
    random, targets = np.random.default_rng(seed), np.arange(300) % 4
    checkpoints = []
    for epoch in (1, 2, 3):
        logits = (3 * random.normal(size=(300, 4))).astype(np.float32)
        total = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), reduction="sum").item()
        plain = Checkpoint.from_predictions(Predictions(logits, targets), epoch=epoch)
        checkpoints.append(replace(plain, provenance=Provenance(logged={"loss": total})))
    causes = possible_causes(panel := stack(checkpoints), logged_losses(panel))
    assert causes["cause"][causes["fits"]].tolist() == ["a sum in place of a mean"]


def logged_one_behind(first):
    """A run whose loop logged the loss of the epoch before; `first` at the first one."""
    panel = run_of(3, cross_entropy, epochs=4)
    means = panel.loss.mean(axis=1)
    logged = [first, *means[:-1]]
    return stack(
        [
            replace(one, provenance=Provenance(logged={"loss": float(value)}))
            for one, value in zip(panel.checkpoints, logged, strict=True)
        ]
    )


def test_a_loss_of_the_checkpoint_before_is_named_where_the_first_one_has_a_logged_loss_too():
    panel = logged_one_behind(first=3.7)
    causes = possible_causes(panel, logged_losses(panel))
    assert causes["cause"][causes["fits"]].unique().tolist() == ["the checkpoint before"]


@pytest.mark.parametrize("digits", [1, 2])
def test_a_mean_that_was_logged_with_few_decimals_is_equal_to_their_precision(digits):
    table = logged_losses(run_of(3, cross_entropy, digits=digits))
    assert table["equal"].all()
    assert table["tolerance"].tolist() == [0.5 * 10.0**-digits] * 3


def test_a_way_fits_two_decimals_where_the_epochs_rule_out_chance():
    panel = run_of(3, lambda z, y: cross_entropy(z, y, label_smoothing=0.2), epochs=12, digits=2)
    causes = possible_causes(panel, logged_losses(panel)).set_index(["cause", "detail"])
    assert causes.loc[("label smoothing", "0.2"), ["epochs", "agreeing", "fits"]].tolist() == [12, 12, True]


def test_ways_that_agree_at_one_rounded_number_are_not_told_from_chance():
    panel = panel_with(lambda z, y: round(1.02 * cross_entropy(z, y).item(), 2), epochs=(1,))
    causes = possible_causes(panel, logged_losses(panel))
    assert causes["chance"].iloc[0] > 0.05
    assert not causes["fits"].any()


def test_what_is_not_the_same_at_every_epoch_fits_at_none_however_many_agree():
    panel = run_of(3, lambda z, y: cross_entropy(z, y, label_smoothing=0.1), epochs=5)
    odd = replace(panel.checkpoints[3], provenance=Provenance(logged={"loss": 9.0}))
    panel = stack([*panel.checkpoints[:3], odd, panel.checkpoints[4]])
    causes = possible_causes(panel, logged_losses(panel)).set_index(["cause", "detail"])
    assert causes.loc[("label smoothing", "0.1"), ["epochs", "agreeing", "fits"]].tolist() == [5, 4, False]


def logged_as(values, mean=1.2345678):
    """A table of logged losses beside means of about `mean`."""
    panel = panel_with(lambda z, y: 0.0, epochs=tuple(range(1, len(values) + 1)))
    checkpoints = [
        replace(one, provenance=Provenance(logged={"loss": value}))
        for one, value in zip(panel.checkpoints, values, strict=True)
    ]
    return logged_losses(stack(checkpoints))["tolerance"].tolist()


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        ([1.5], 0.005),
        ([1.5, 1.5, 1.5], 0.005),
        ([3.0], 0.005),
        ([1.5, 1.6, 1.7], 0.05),
        ([1.25], 0.005),
        ([1.5, 1.25, 1.125], 0.0005),
        ([float(np.float32(1.07))], 0.005),
        ([float(np.float32(one)) for one in (1.0712, 1.1313, 1.2517)], 0.00005),
    ],
)
def test_a_round_number_is_rounded_to_two_decimals_unless_other_epochs_confirm_fewer(values, tolerance):
    assert logged_as(values) == pytest.approx([tolerance] * len(values))


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_losses_of_16_bits_are_equal_to_the_step_of_their_kind(dtype, bits):
    table = logged_losses(panel_with(lambda z, y: cross_entropy(z, y).to(dtype)))
    assert table["equal"].all()
    np.testing.assert_allclose(table["tolerance"], table["logged"] * 2.0**-bits)


@pytest.mark.parametrize(
    "weights",
    [
        [WEIGHTS],
        [[one] for one in WEIGHTS],
        {str(index): one for index, one in enumerate(WEIGHTS)},
        dict(zip("edcba", WEIGHTS[::-1], strict=True)),
    ],
    ids=["a row", "a column", "by index", "by name, in another order"],
)
def test_class_weights_are_read_in_any_plain_form(weights):
    checkpoints = []
    for epoch in (1, 2, 3):
        z, y = data(epoch)
        plain = Checkpoint.from_predictions(
            Predictions(z.numpy(), y.numpy(), class_names=list("abcde")),
            epoch=epoch,
            metadata={"class_weights": weights},
        )
        loss = float(cross_entropy(z, y, weight=torch.tensor(WEIGHTS).double()))
        checkpoints.append(replace(plain, provenance=Provenance(logged={"loss": loss})))
    panel = stack(checkpoints)
    first = possible_causes(panel, logged_losses(panel)).iloc[0]
    assert first[["cause", "detail", "fits"]].tolist() == [
        "class weights",
        'metadata["class_weights"]',
        True,
    ]


def only_checkpoint(logged, *, split="val"):
    z, y = data(1)
    plain = Checkpoint.from_predictions(Predictions(z.numpy(), y.numpy()), epoch=1, split=split)
    return replace(plain, provenance=Provenance(logged=logged))


@pytest.mark.parametrize(
    ("split", "logged"),
    [
        ("val", {"loss": 9.0, "eval_loss": 1.25}),
        ("val", {"loss": 9.0, "val_loss": 1.25, "test_loss": 8.0}),
        ("val", {"loss": 1.25, "train_loss": 9.0, "test_loss": 8.0}),
        ("val", {"loss": 9.0, "eval_loss": None, "validation/loss": 1.25}),
        ("test", {"loss": 1.25, "val_loss": 9.0}),
        ("test", {"loss": 9.0, "eval_loss": 1.25}),
        ("train", {"loss": 9.0, "train_loss": 1.25, "val_loss": 8.0}),
        ("Probe", {"loss": 9.0, "probe_loss": 1.25}),
    ],
)
def test_the_clearest_of_several_losses_is_the_one_compared(split, logged):
    table = logged_losses(stack([only_checkpoint(logged, split=split)]))
    assert table["logged"].tolist() == [1.25]


@pytest.mark.parametrize(
    ("name", "of_saved", "equal"),
    [
        ("accuracy", lambda share: share, True),
        ("val_acc", lambda share: round(share, 3), True),
        ("eval_accuracy", lambda share: round(100 * share, 2), True),
        ("top1", lambda share: 100 * share, True),
        ("val/acc@1", lambda share: share, True),
        ("acc", lambda share: share + 2 / SAMPLES, False),
        ("Acc", lambda share: round(100 * share + 0.3, 1), False),
    ],
)
def test_a_logged_accuracy_is_compared_as_a_share_or_in_percent(name, of_saved, equal):
    z, y = data(1)
    share = (z.argmax(1) == y).double().mean().item()
    table = logged_accuracies(stack([only_checkpoint({name: of_saved(share)})]))
    assert table["equal"].tolist() == [equal]
    assert table["saved"].tolist() == [pytest.approx(share)]


def test_a_moving_average_that_is_corrected_for_its_start_is_named():
    def log(z, y):
        average, values = 0.0, batched(20)(z, y)
        for value in values:
            average = 0.98 * average + 0.02 * value
        return average / (1 - 0.98 ** len(values))

    first = possible_causes(panel := run_of(3, log), logged_losses(panel)).iloc[0]
    assert (first["cause"], first["fits"]) == ("a moving average over batches", True)
    assert first["detail"] == "batches of 20, decay 0.98, corrected for its start"


def test_weighted_batch_means_counted_by_size_are_named():
    def log(z, y):
        weight = torch.arange(1.0, 4).double()
        parts = list(zip(z.split(32), y.split(32), strict=True))
        return sum(cross_entropy(a, b, weight=weight).item() * len(b) for a, b in parts) / len(y)

    first = possible_causes(panel := run_of(3, log), logged_losses(panel)).iloc[0]
    assert (first["cause"], first["fits"]) == ("mean of weighted batch means", True)
    assert "batches of 32 by size" in first["detail"]


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_a_meter_that_is_never_reset_between_epochs_is_named(kind):
    panel = run_of(3, cross_entropy, epochs=4)
    means = panel.loss.mean(axis=1)
    logged = np.cumsum(means) / (np.arange(1, 5) if kind == "mean" else 1)
    panel = stack(
        [
            replace(one, provenance=Provenance(logged={"loss": float(value)}))
            for one, value in zip(panel.checkpoints, logged, strict=True)
        ]
    )
    causes = possible_causes(panel, logged_losses(panel))
    fitting = causes[causes["fits"]]
    assert fitting[["cause", "detail"]].to_numpy().tolist() == [
        ["a meter never reset between epochs", f"its {kind}"]
    ]


@pytest.mark.parametrize("way", ["mean of batch means", "drop_last", "the last batch only"])
def test_batches_are_those_of_the_loader_where_some_of_its_rows_have_no_label(way):
    random, checkpoints = np.random.default_rng(3), []
    targets = random.integers(0, 3, 301)
    targets[random.permutation(301)[:40]] = -100
    for epoch in (1, 2, 3):
        logits = random.normal(size=(301, 3)) * 2
        parts = zip(torch.from_numpy(logits).split(64), torch.from_numpy(targets).split(64), strict=True)
        parts = [(cross_entropy(z, y).item(), int((y >= 0).sum())) for z, y in parts]
        full = [mean * count for mean, count in parts[:-1]]
        value = {
            "mean of batch means": np.mean([mean for mean, _ in parts]),
            "drop_last": sum(full) / sum(count for _, count in parts[:-1]),
            "the last batch only": parts[-1][0],
        }[way]
        plain = Checkpoint.from_predictions(Predictions(logits, targets), epoch=epoch)
        provenance = replace(plain.provenance, logged={"loss": float(value)})
        assert provenance.ignored_samples == 40
        checkpoints.append(replace(plain, provenance=provenance))
    causes = possible_causes(panel := stack(checkpoints), logged_losses(panel))
    assert causes.loc[0, ["cause", "detail", "fits"]].tolist() == [way, "batches of 64", True]


@pytest.mark.parametrize(
    ("detail", "log"),
    [
        ("perplexity", lambda z, y: cross_entropy(z, y).exp()),
        ("the loss with its sign turned", lambda z, y: -cross_entropy(z, y)),
        ("the median", lambda z, y: np.median(cross_entropy(z, y, reduction="none").numpy())),
        ("error rate", lambda z, y: (z.argmax(1) != y).double().mean()),
        ("accuracy in percent", lambda z, y: 100 * (z.argmax(1) == y).double().mean()),
        (
            "mean squared error against one-hot labels",
            lambda z, y: ((z.softmax(1) - one_hot(z)(y)) ** 2).mean(),
        ),
    ],
)
def test_another_measure_that_was_logged_as_a_loss_is_named(detail, log):
    causes = possible_causes(panel := run_of(4, log), logged_losses(panel))
    assert causes[causes["fits"]][["cause", "detail"]].to_numpy().tolist() == [["another measure", detail]]
