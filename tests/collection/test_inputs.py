"""Inputs as people have them: the right number, or a message whose code, followed, gives the right number."""

from __future__ import annotations

import logging
import re
import textwrap
from collections import OrderedDict, namedtuple
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)
from toy_training import CLASSES, FEATURES, INPUTS, SAMPLES, TARGETS, make_batches, make_loader, make_model

from confshift import ConfshiftError, Predictions, Run, inspect
from confshift.collection import batches, loaders
from confshift.collection.outputs import Source
from confshift.collection.row_checks import checked_batch

RANDOM = np.random.default_rng(0)
BINARY = RANDOM.integers(0, 2, 60)
LOGIT = RANDOM.normal(size=60) + 2 * BINARY - 1
PROBABILITY = 1 / (1 + np.exp(-LOGIT))
TRUE_BINARY = float(-np.log(np.where(BINARY, PROBABILITY, 1 - PROBABILITY)).mean())


def loss(predictions):
    z = predictions.logits.astype(np.float64)
    picked = z[np.arange(len(z)), predictions.targets]
    return float((np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - picked).mean())


def code_in(message, start):
    """Return the first expression of a message that begins so, to its closing bracket."""
    depth, at = 0, message.index(start)
    for end in range(at, len(message)):
        depth += (message[end] == "(") - (message[end] == ")")
        if message[end] == ")" and not depth and message[end + 1 : end + 2] not in (".", "("):
            return message[at : end + 1]
    raise AssertionError(message)


def refused(action, *arguments, **more):
    with pytest.raises(ConfshiftError) as error:
        action(*arguments, **more)
    return str(error.value)


# Messages of Predictions, followed


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_the_code_for_one_logit_gives_the_binary_cross_entropy(shape):
    logits = LOGIT.reshape(shape)
    message = refused(Predictions, logits, BINARY)
    z = np.ravel(logits)
    assert "from_probabilities" not in message
    found = Predictions(eval(code_in(message, "np.column_stack"), {"np": np, "z": z}), BINARY)
    assert loss(found) == pytest.approx(TRUE_BINARY)


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_the_code_for_one_probability_gives_the_binary_cross_entropy(shape):
    given = PROBABILITY.reshape(shape)
    message = refused(Predictions, given, BINARY)
    assert "all in 0..1. If they are probabilities" in message
    known = {"np": np, "p": np.ravel(given), "Predictions": Predictions, "targets": BINARY}
    assert loss(eval(code_in(message, "Predictions.from"), known)) == pytest.approx(TRUE_BINARY)


def test_probabilities_taken_for_logits_are_refused_with_the_code_that_is_right():
    pairs = np.column_stack([np.zeros(60), PROBABILITY])
    message = refused(Predictions, pairs, BINARY)
    p = pairs[:, 1]
    found = Predictions.from_probabilities(
        eval(code_in(message, "np.column_stack"), {"np": np, "p": p}), BINARY
    )
    assert loss(found) == pytest.approx(TRUE_BINARY)
    shifted = pairs - pairs.mean(axis=1, keepdims=True)  # "subtract a constant from each row"
    assert len(Predictions(shifted, BINARY)) == 60


def test_percentages_are_no_logits():
    shares = RANDOM.dirichlet(np.ones(3), 20)
    targets = np.arange(20) % 3
    right = loss(Predictions.from_probabilities(shares, targets))
    message = refused(Predictions, 100 * shares, targets)
    logits = 100 * shares
    assert "logits / 100" in message
    assert loss(Predictions.from_probabilities(logits / 100, targets)) == pytest.approx(right)
    assert "percentages" in refused(Predictions.from_probabilities, 100 * shares, targets)


@pytest.mark.parametrize(
    ("targets", "says", "argmax"),
    [
        (np.eye(3)[np.arange(20) % 3], "one-hot", True),
        ((RANDOM.random((20, 3)) > 0.5).astype(float), "multi-label", False),
        (np.zeros((20, 3), int), "multi-label", False),
        (RANDOM.dirichlet(np.ones(3), 20), "soft labels", False),
        (RANDOM.normal(size=(20, 3)), "not labels of classes", False),
    ],
)
def test_only_one_hot_targets_are_advised_to_take_the_argmax(targets, says, argmax):
    logits = RANDOM.normal(size=(20, 3))
    messages = [
        refused(Predictions, logits, targets),
        refused(checked_batch, torch.from_numpy(logits), torch.from_numpy(np.asarray(targets)), Source()),
    ]
    for message in messages:
        assert says in message
        assert ("argmax" in message) == argmax


def test_labels_that_count_from_1_are_told_so_and_others_are_not():
    logits = RANDOM.normal(size=(6, 3))
    assert "targets - 1" in refused(Predictions, logits, [1, 2, 3, 1, 2, 3])
    assert "targets - 1" not in refused(Predictions, logits, [0, 2, 3, 1, 2, 3])
    assert "targets - 1" not in refused(Predictions, logits, [1, 2, 4, 1, 2, 3])


@pytest.mark.parametrize(
    ("classes", "targets", "code", "right"),
    [
        (2, [-1, 1, 1], "(targets + 1) // 2", [0, 1, 1]),
        (2, [0, 255, 0], "targets // 255", [0, 1, 0]),
        (3, [-1, 1, 0], "targets + 1", [0, 2, 1]),
        (3, [1, 3, 2], "targets - 1", [0, 2, 1]),
    ],
)
def test_the_code_for_targets_out_of_range_gives_the_class_indices(classes, targets, code, right):
    logits = RANDOM.normal(size=(3, classes))
    assert f"pass {code}" in refused(Predictions, logits, targets)
    assert Predictions(logits, eval(code, {"targets": np.array(targets)})).targets.tolist() == right


@pytest.mark.parametrize(
    ("classes", "targets", "ignored", "right"),
    [
        (2, [-1, 0, 1, 1], 0, [0, 1, 1]),
        (3, [3, 0, 1, 2], 0, [2, 0, 1]),
        (2, [-1, -100, 1, 1], -100, [0, 1, 1]),
    ],
)
def test_what_is_left_out_stays_out_when_the_classes_are_renumbered(classes, targets, ignored, right):
    logits, targets = RANDOM.normal(size=(4, classes)), np.array(targets)
    message = refused(Predictions, logits, targets, ignore_index=ignored)
    renumbered = eval(code_in(message, "np.where"), {"np": np, "targets": targets})
    assert Predictions(logits, renumbered, ignore_index=-100).targets.tolist() == right


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (np.array([0.05, 0.95, 0.95, 0.05]), "soft targets"),
        (np.array([0.0, 1.0, np.nan, 1.0]), "NaN among whole numbers"),
        (np.array([0.0, 1.0, np.inf, 1.0]), "not whole numbers"),
    ],
)
def test_targets_that_are_not_whole_are_never_cut_to_class_indices(tmp_path, shape, targets, says):
    output = torch.from_numpy(LOGIT[:4]).reshape(shape)
    message, _ = asked(tmp_path, output, torch.from_numpy(targets))
    assert says in message
    assert "long()" not in message
    assert says in refused(Predictions, RANDOM.normal(size=(4, 2)), targets)


def test_a_label_is_left_out_by_the_code_for_it():
    logits = RANDOM.normal(size=(4, 3))
    assert "pass ignore_index=255" in refused(Predictions, logits, [0, 2, 255, 1])
    assert Predictions(logits, [0, 2, 255, 1], ignore_index=255).ignored_samples == 1
    targets = np.array([0, -100, 255, 1])
    message = refused(Predictions, logits, targets)
    exec(re.search(r"targets\[.*?= -100", message)[0])
    assert Predictions(logits, targets).ignored_samples == 2
    assert "ignore_index=-1" not in refused(Predictions, logits[:, :2], [-1, 1, 1, -1])


@pytest.mark.parametrize("targets", [[["a", "b"]] * 4, np.zeros((4, 2), complex), np.zeros((4, 2), object)])
def test_columns_of_no_numbers_are_refused(targets):
    assert "not numbers" in refused(Predictions, RANDOM.normal(size=(4, 2)), targets)


@pytest.mark.parametrize("axis", [1, 2])
def test_the_code_for_arrays_of_tokens_gives_torchs_loss(axis):
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20).reshape(4, 5) % 3
    right = functional.cross_entropy(logits, targets).item()
    logits = logits.movedim(1, axis).numpy()
    message = refused(Predictions, logits, targets)
    known = {"np": np, "logits": logits, "targets": targets}
    code = eval(code_in(message, "np.moveaxis"), known)
    groups = eval(re.search(r"groups=(np\.repeat\(.*\.size\))", message)[1], known)
    found = Predictions(code, np.ravel(targets), groups=groups)
    assert loss(found) == pytest.approx(right, rel=1e-5)
    assert found.groups.tolist() == np.repeat(range(4), 5).tolist()


def test_the_word_for_several_labels_is_heard_where_each_sample_has_one():
    hot = np.eye(3)[np.arange(20) % 3]
    message = refused(Predictions, RANDOM.normal(size=(20, 3)), hot, task="multilabel")
    assert "each label of each sample is a row" in message
    assert "argmax" not in message


@pytest.mark.parametrize("share", [False, True])
def test_the_code_for_arrays_of_several_labels_gives_the_binary_cross_entropy(share):
    targets, z = RANDOM.random((20, 3)) > 0.5, RANDOM.normal(size=(20, 3))
    logits = 1 / (1 + np.exp(-z)) if share else z
    message = refused(Predictions, logits, targets)
    made = "Predictions.from_probabilities(" if share else "Predictions("
    arguments = re.search(r"and (np\.ravel\(targets\).*\))", message)[1]
    code = code_in(message, made).replace("...", arguments)
    known = {"np": np, "targets": targets, "z": np.ravel(logits), "p": np.ravel(logits)}
    found = eval(code, known | {"Predictions": Predictions})
    right = functional.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(targets * 1.0))
    assert loss(found) == pytest.approx(right.item())
    assert (found.task, found.groups[[0, 2, 3, 59]].tolist()) == ("multilabel", [0, 0, 1, 19])


def test_a_tensor_of_one_logit_gets_code_for_tensors():
    logits = torch.tensor(LOGIT, dtype=torch.bfloat16, requires_grad=True)
    message = refused(Predictions, logits, BINARY)
    z = eval(re.search(r"logits\.detach.*ravel\(\)", message)[0])
    assert len(Predictions(eval(code_in(message, "np.column_stack"), {"np": np, "z": z}), BINARY)) == 60
    flat = RANDOM.normal(size=12)
    rows = eval(code_in(refused(Predictions, flat, [0, 1, 2, 0]), "np.ravel"), {"np": np, "logits": flat})
    assert np.array_equal(rows, flat.reshape(4, 3))


@pytest.mark.parametrize("ids", [[None, "a"], ["a", None], [None, None]])
def test_none_is_no_sample_id(ids):
    assert "None" in refused(Predictions, np.eye(2), [0, 1], sample_ids=ids)


def test_masked_entries_are_not_taken_for_numbers():
    logits = np.ma.masked_array(RANDOM.normal(size=(4, 3)), mask=False)
    assert len(Predictions(logits, [0, 1, 2, 0])) == 4
    logits[1, 2] = np.ma.masked
    message = refused(Predictions, logits, [0, 1, 2, 0])
    filled = eval(code_in(message, "logits.filled"), {"np": np, "logits": logits})
    assert np.isnan(Predictions(filled, [0, 1, 2, 0]).logits[1, 2])
    assert "filled" not in refused(Predictions, np.eye(2), np.ma.masked_array([0, 1], mask=[0, 1]))


def test_tensors_without_values_or_with_their_sign_apart():
    assert "logits can't be made an array" in refused(Predictions, torch.zeros(2, 3, device="meta"), [0, 1])
    negative = torch.complex(torch.zeros(2, 3), torch.arange(6.0).reshape(2, 3)).conj().imag
    assert negative.is_neg()
    assert Predictions(negative, [0, 1]).logits.tolist() == (-np.arange(6.0).reshape(2, 3)).tolist()


# Messages of inspect, followed


def forwards_in(message):
    """Return each forward= that a message prints."""
    found = []
    for block in re.findall(r"(?m)^    def forward\(model, batch\):(?:\n {8}.*)+", message):
        exec(textwrap.dedent(block), known := {"torch": torch})
        found.append(known["forward"])
    return found


class Holder:
    """Calls a net of its own, as the trainers that people write do."""

    def __init__(self, net):
        self.net = net

    def predict(self, inputs):
        return self.net(inputs)


def functions_of(net):
    """Return functions of the inputs that call a net, by how they hold it."""
    return {
        "closure": lambda inputs: net(inputs),
        "bound method of the net": net.forward,
        "bound method of its holder": Holder(net).predict,
        "partial": partial(nn.Module.__call__, net),
        "default": lambda inputs, net=net: net(inputs),
    }


def train_mode_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def loss_in_eval_mode(net):
    return functional.cross_entropy(deepcopy(net).eval()(INPUTS), TARGETS).item()


@pytest.mark.parametrize("how", functions_of(nn.Identity()))
def test_the_code_for_a_function_evaluates_the_net_in_it(tmp_path, how):
    net = train_mode_net()
    f = functions_of(net)[how]
    message = refused(inspect, f, make_batches(), run=tmp_path)
    assert "it uses a Sequential: pass that as the model" in message
    forward = eval(code_in(message, "lambda model").rstrip(";"), {"f": f})
    found = inspect(net, make_batches(), run=tmp_path, forward=forward)
    assert found.loss == pytest.approx(loss_in_eval_mode(net), rel=1e-5)


@pytest.mark.parametrize("how", functions_of(nn.Identity()))
def test_a_net_that_only_forward_knows_is_evaluated_too_and_left_as_it_was(tmp_path, how):
    net = train_mode_net()
    net[1].eval()
    f, before = functions_of(net)[how], deepcopy(net)
    found = inspect(
        nn.Identity(), make_batches(), run=tmp_path, forward=lambda model, batch: (f(batch[0]), batch[1])
    )
    assert found.loss == pytest.approx(loss_in_eval_mode(net), rel=1e-5)
    assert [one.training for one in net.modules()] == [one.training for one in before.modules()]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])


def test_a_function_of_several_nets_names_them(tmp_path):
    first, second = nn.Linear(FEATURES, 8), nn.GELU()
    message = refused(inspect, lambda inputs: second(first(inputs)), make_batches(), run=tmp_path)
    assert "it uses modules (Linear, GELU): pass torch.nn.ModuleList([...]) of them" in message


def test_a_function_in_which_no_net_is_found_asks_for_it(tmp_path):
    assert "pass the module that it uses" in refused(inspect, torch.relu, make_batches(), run=tmp_path)


@pytest.mark.parametrize("several", [[make_loader(), make_loader()], {"a": make_loader()}])
def test_several_loaders_are_inspected_one_by_one(tmp_path, several):
    assert "split= of its own" in refused(inspect, make_model(), several, run=tmp_path)


# Which tensor


class Returning(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.head, self.make = nn.Linear(FEATURES, CLASSES), make

    def forward(self, inputs):
        return self.make(self.head(inputs))


Outputs = namedtuple("Outputs", ["logits", "aux_logits"])
TAKEN = {
    "a loss, the logits": lambda z: (z.sum(), z),
    "the logits, attention maps": lambda z: (z, torch.zeros(len(z), 2, 5, 5)),
    "two heads alike": lambda z: [z, z + 1],
    "Inception's": lambda z: Outputs(z, z[:, :2]),
    "a dict with logits": lambda z: OrderedDict(features=torch.zeros(len(z), 9), logits=z),
    "a tuple of one": lambda z: (z,),
    "no loss, the logits, no states": lambda z: (None, z, None),
    "the logits, their softmax": lambda z: (z, z.softmax(1)),
    "the logits, the answers": lambda z: (z, z.argmax(1)),
}
LEFT = {
    "the logits or features, one value or logit each": lambda z: (z, z[:, 0]),
    "features, one logit in a column": lambda z: (torch.zeros(len(z), 32), z[:, :1]),
    "features, one logit within": lambda z: (torch.zeros(len(z), 32), (z[:, 0],)),
    "one value each, features": lambda z: (z[:, 0], torch.zeros(len(z), 32)),
    "features, the logits": lambda z: (torch.zeros(len(z), 9), z),
    "the logits, features": lambda z: (z, torch.zeros(len(z), 9)),
    "features, the logits as maps": lambda z: (torch.zeros(len(z), 9), z[:, :, None, None]),
    "features as maps, the logits": lambda z: (torch.zeros(len(z), 9, 1, 1), z),
    "a code, its mean, its variance": lambda z: (torch.zeros(len(z), 9), z, z),
    "heads of two tasks": lambda z: [z[:, :2], z],
    "hidden states, the logits": lambda z: (torch.zeros(len(z), 4, 9), z),
    "features, a pair with the logits": lambda z: (torch.zeros(len(z), 9), (z, z)),
    "features, a dict with the logits": lambda z: (torch.zeros(len(z), 9), {"logits": z}),
    "a pair within, the logits": lambda z: ((z, z), z),
    "segmentation's dict": lambda z: {"out": z, "aux": z},
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_first_part_after_a_scalar_loss_is_taken(tmp_path, name):
    model = Returning(TAKEN[name])
    found = inspect(model, make_batches(), run=tmp_path, check=False)
    right = functional.cross_entropy(model.head(INPUTS), TARGETS).item()
    assert found.loss == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("name", LEFT)
def test_what_could_be_either_is_refused_with_every_shape(tmp_path, name):
    message = refused(inspect, Returning(LEFT[name]), make_batches(SAMPLES), run=tmp_path)
    assert "forward=" in message
    output = LEFT[name](torch.zeros(SAMPLES, CLASSES))
    for part in output.values() if isinstance(output, dict) else output:
        assert isinstance(part, tuple | dict) or str(tuple(part.shape)) in message


NAMED = {
    "features, the logits": lambda z: (torch.zeros(len(z), 9), z),
    "the logits, features": lambda z: (z, torch.zeros(len(z), 9)),
    "one loss each, the logits": lambda z: (z.logsumexp(1), z),
    "the logits, one value each": lambda z: (z, z[:, 0]),
    "features, a pair with features, the logits": lambda z: (z[:, :2], (z[:, :2], z[:, 1:]), z),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("given", ["class_names", "dataset.classes"])
def test_as_many_columns_as_class_names_tell_the_logits(tmp_path, name, given):
    model = Returning(NAMED[name])
    data = TensorDataset(INPUTS, TARGETS)
    names = ["a", "b", "c"]
    if given == "dataset.classes":
        data.classes = names
    found = inspect(
        model, DataLoader(data, 50), run=tmp_path, class_names=names if given == "class_names" else None
    )
    right = functional.cross_entropy(model.head(INPUTS), TARGETS).item()
    assert (found.loss, found.class_names) == (pytest.approx(right, rel=1e-5), tuple(names))


@pytest.mark.parametrize(
    "make",
    [
        lambda z: (torch.zeros(len(z), 32), z[:, 0]),
        lambda z: (torch.zeros(len(z), 32), z[:, :1]),
        lambda z: (torch.zeros(len(z), 32), (z, z)),
    ],
)
def test_features_are_not_the_logits_of_as_many_classes_as_have_names(tmp_path, make):
    message = refused(inspect, Returning(make), make_batches(), run=tmp_path, class_names=["a", "b", "c"])
    assert "which are the logits?" in message
    assert "3 class names" in message


def test_the_code_that_chooses_a_part_or_a_field_takes_it(tmp_path):
    makes = {
        1: LEFT["features, the logits"],
        "out": LEFT["segmentation's dict"],
        "scores": lambda z: SimpleNamespace(scores=z),
    }
    for place, make in makes.items():
        model = Returning(make)
        message = refused(inspect, model, make_batches(SAMPLES), run=tmp_path)
        code = re.search(r"lambda model, batch: \(.*?\b(i|name)\b.*?, batch\[1\]\)", message)
        forward = eval(code[0], {code[1]: place})
        found = inspect(model, make_batches(SAMPLES), run=tmp_path / str(place), forward=forward)
        right = functional.cross_entropy(model.head(INPUTS), TARGETS).item()
        assert found.loss == pytest.approx(right, rel=1e-5)


# One output, signs, several labels, tokens: in whatever a model returns

SIGNS = 2 * BINARY - 1
WRAPPED = {
    "object": lambda z: SimpleNamespace(logits=z),
    "dict": lambda z: {"logits": z},
    "tuple": lambda z: (z.sum(), z),
}


def asked(tmp_path, output, targets, inputs=None):
    """Return the message about a model that returns this, and what inspect makes of each forward= in it."""
    inputs = torch.zeros(len(targets), 1) if inputs is None else inputs

    class Constant(nn.Module):
        def forward(self, x):
            return output

    def followed(number, **more):
        forward = forwards_in(message)[number]
        _, rows = forward(Constant(), (inputs, targets))
        ids = np.arange(len(rows))
        where = tmp_path / f"followed{number}"
        data = [(inputs, targets)]
        return inspect(Constant(), data, run=where, forward=forward, sample_ids=ids, check=False, **more).loss

    message = refused(inspect, Constant(), [(inputs, targets)], run=tmp_path / "refused")
    return message, followed


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("labels", [SIGNS, SIGNS * 1.0])
def test_the_code_for_labels_of_minus_one_and_one_gives_the_binary_cross_entropy(tmp_path, kind, labels):
    _, followed = asked(tmp_path, WRAPPED[kind](torch.from_numpy(LOGIT)), torch.from_numpy(labels))
    assert followed(0) == pytest.approx(TRUE_BINARY)


@pytest.mark.parametrize("axis", [1, -1])
def test_the_code_for_one_hot_masks_gives_torchs_loss(tmp_path, axis):
    logits = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(5 * 4 * 6).reshape(5, 4, 6) % 3
    hot = functional.one_hot(classes).movedim(-1, axis)
    right = pytest.approx(functional.cross_entropy(logits, classes).item(), rel=1e-5)
    assert asked(tmp_path, logits.movedim(1, axis), hot)[1](0) == right


def test_one_label_in_each_of_few_rows_may_be_one_hot(tmp_path):
    logits, hot = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)[[0, 1, 2, 0]]
    message, followed = asked(tmp_path, logits, hot)
    assert "(one-hot labels)" in message
    assert "task='multilabel'" in message
    assert followed(0) == pytest.approx(functional.cross_entropy(logits, hot).item(), rel=1e-5)


def test_flattened_rows_and_a_loss_are_named_as_such(tmp_path):
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(12) % 3
    _, followed = asked(tmp_path, logits.flatten(), targets)
    assert followed(0) == pytest.approx(functional.cross_entropy(logits, targets).item(), rel=1e-5)
    message, _ = asked(tmp_path / "loss", logits.sum(), targets)
    assert "as a loss is; return the logits" in message


def test_the_printed_call_is_the_one_that_was_made(tmp_path):
    class Named(nn.Module):
        def forward(self, image, mask):
            return image * mask

    z = torch.from_numpy(LOGIT)
    for fields in ({"image": z, "mask": torch.ones(60)}, {"image": z, "mask": torch.ones(60), "id": 1}):
        data = [fields | {"label": torch.from_numpy(SIGNS)}]
        message = refused(inspect, Named(), data, run=tmp_path / "refused")
        (forward,) = forwards_in(message)
        found = inspect(Named(), data, run=tmp_path / str(len(fields)), forward=forward)
        assert found.loss == pytest.approx(TRUE_BINARY)


@pytest.mark.parametrize(
    ("output", "targets", "says"),
    [
        (torch.zeros(9, 3, device="meta"), torch.zeros(9).long(), "to_empty"),
        (torch.zeros(9, device="meta"), torch.zeros(9).long(), "to_empty"),
        (torch.ones(9, 3), torch.zeros(9, device="meta").long(), "to_empty"),
        (torch.ones(9, 3).to_sparse(), torch.zeros(9).long(), "logits.to_dense()"),
        (torch.ones(9, dtype=torch.complex64), torch.zeros(9).long(), "real numbers"),
        (torch.ones(9, 3), torch.zeros(9, dtype=torch.complex64), "complex"),
        (torch.ones(9, 3), torch.zeros(9, 3, dtype=torch.complex64), "one class index"),
        (torch.complex(torch.ones(9), torch.ones(9)).conj().imag, torch.ones(9) / 2, "one output"),
        (torch.ones(9, 1).to(torch.float8_e5m2), torch.zeros(9).long(), "floating point"),
        (torch.ones(0, 3), torch.ones(0, 3), "one class index"),
        (torch.ones(0), torch.ones(0), "no rows"),
    ],
)
def test_tensors_of_odd_kinds_are_refused_with_what_to_do(tmp_path, output, targets, says):
    assert says in asked(tmp_path, output, targets)[0]


@pytest.mark.parametrize("size", [1, 16, 34])
def test_a_last_batch_of_one_may_be_squeezed(tmp_path, size):
    class Squeezing(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs).squeeze()

    model = Squeezing(FEATURES, CLASSES)
    found = inspect(model, make_loader(size), run=tmp_path, check=False)
    right = functional.cross_entropy(model(INPUTS), TARGETS).item()
    assert (len(found), found.loss) == (SAMPLES, pytest.approx(right, rel=1e-5))


def test_a_second_part_that_is_one_of_several_possible_targets_is_said_to_be_taken(tmp_path, caplog):
    batches._warn_of_choice.cache_clear()
    domains = torch.zeros(SAMPLES).long()
    inspect(make_model(), [(INPUTS, TARGETS, INPUTS)], run=tmp_path / "fine")
    assert not caplog.messages
    inspect(make_model(), [(INPUTS, domains, TARGETS)], run=tmp_path / "odd")
    assert "inspect takes the second" in caplog.text


# One sample many times


@pytest.mark.parametrize(
    ("dtype", "change", "agree"),
    [
        ("float32", 2e-6, True),
        ("float32", 1e-3, False),
        ("float16", 2**-10, True),
        ("float16", 2e-2, False),
        ("float64", 1e-6, True),
    ],
)
@pytest.mark.parametrize("size", [1e-6, 1, 20, 1e4])
def test_copies_agree_up_to_the_rounding_of_their_size_and_dtype(dtype, change, agree, size):
    if dtype == "float16" and size < 1e-3:
        pytest.skip("no digits left down there")
    row = size * np.array([1.0, -0.5, 0.25])
    rows = np.array([row, row * (1 + change), row[::-1]]).astype(dtype)
    given = {"targets": [0, 0, 2], "sample_ids": [7, 7, 8]}
    if agree:
        assert Predictions(rows, **given).duplicate_samples == 1
    else:
        assert "repeat an id" in refused(Predictions, rows, **given)


class Stream(IterableDataset):
    def __init__(self, samples=120, sharded=False):
        self.samples, self.sharded = samples, sharded

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        own = slice(worker.id, None, worker.num_workers) if worker and self.sharded else slice(None)
        inputs = torch.randn(self.samples, FEATURES, generator=torch.Generator().manual_seed(0))
        yield from [(row, number % CLASSES) for number, row in enumerate(inputs)][own]


@pytest.mark.parametrize(("workers", "sharded"), [(2, False), (2, True), (0, False)])
def test_a_stream_that_each_worker_yields_whole_counts_once(tmp_path, caplog, workers, sharded):
    model = make_model()
    found = inspect(model, DataLoader(Stream(sharded=sharded), 16, num_workers=workers), run=tmp_path)
    repeated = workers > 1 and not sharded
    assert (len(found), found.provenance.duplicate_samples) == (120, 120 if repeated else 0)
    assert ("each of 120 samples came 2 times" in caplog.text) == repeated
    assert inspect(model, DataLoader(Stream(), 16), run=tmp_path).epoch == 2  # the same samples


class Repeating(IterableDataset):
    """Yields its samples several times, each time in an order of its own."""

    def __init__(self, orders):
        self.orders = orders

    def __iter__(self):
        for order in self.orders:
            yield from ((INPUTS[number], TARGETS[number]) for number in order)


SHUFFLED = np.random.default_rng(0).permutation(SAMPLES)


class Iterable:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.parametrize("kind", [lambda loader: loader, Iterable], ids=["DataLoader", "iterable"])
@pytest.mark.parametrize(
    ("orders", "drop_last", "kept", "said"),
    [
        ([range(SAMPLES)], False, SAMPLES, ""),
        (
            [range(SAMPLES)] * 2,
            False,
            SAMPLES,
            f"each of {SAMPLES} samples came 2 times ({2 * SAMPLES} rows)",
        ),
        ([SHUFFLED, range(SAMPLES), SHUFFLED], False, SAMPLES, f"came 3 times ({3 * SAMPLES} rows)"),
        ([SHUFFLED, range(SAMPLES)], True, 192, f"gave 192 rows, and only {SAMPLES} of them are different"),
        ([SHUFFLED, range(5)], False, SAMPLES + 5, f"gave {SAMPLES + 5} rows, and only {SAMPLES}"),
    ],
    ids=["once", "twice", "three times, shuffled", "twice, drop_last", "cut off"],
)
def test_a_stream_that_repeats_is_warned_of_once_with_both_numbers(
    tmp_path, caplog, kind, orders, drop_last, kept, said
):
    model, loader = make_model(), kind(DataLoader(Repeating(orders), 16, drop_last=drop_last))
    for _ in range(2):
        assert len(inspect(model, loader, run=tmp_path / "run", check=False)) == kept
    assert caplog.text.count(f"{tmp_path / 'run'} (val): ") == bool(said)
    assert said in caplog.text


# One rank of several


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (
            DataLoader(
                (data := TensorDataset(INPUTS, TARGETS)),
                16,
                sampler=DistributedSampler(data, num_replicas=2, rank=0, shuffle=False),
            ),
            "52 samples of 103",
        ),
        (
            DataLoader(
                Subset(data, range(50)),
                16,
                sampler=DistributedSampler(Subset(data, range(50)), num_replicas=4, rank=1),
            ),
            "13 samples of 50",
        ),
    ],
    ids=["the whole set", "a subset"],
)
def test_a_sharded_loader_on_one_rank_is_warned_of_with_both_numbers(tmp_path, caplog, loader, says):
    model = make_model()
    for _ in range(2):
        inspect(model, loader, run=tmp_path)
    (message,) = [one.getMessage() for one in caplog.records if "ranks" in one.getMessage()]
    given, total = says.split(" samples of ")
    assert f"{given} of {total} samples" in message
    assert len(inspect(model, loader, run=tmp_path)) == int(given)


def test_an_ordinary_loader_is_not_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        inspect(make_model(), make_loader(shuffle=True), run=tmp_path)
    assert not caplog.messages


# Names, lengths, Lightning


@pytest.mark.parametrize(
    "names",
    [
        np.array(["a", "b", "c"]),
        np.array(["a", "b", "c"], object),
        pd.Index(["a", "b", "c"]),
        pd.Series(["a", "b", "c"]),
        {0: "a", 1: "b", 2: "c"},
        {"0": "a", "1": "b", "2": "c"},
        {2: "c", 0: "a", 1: "b"},
    ],
    ids=lambda names: type(names).__name__,
)
def test_names_come_in_any_ordered_form(tmp_path, names):
    found = inspect(make_model(), make_batches(), run=tmp_path, class_names=names)
    assert found.class_names == ("a", "b", "c")


def test_a_datasets_classes_may_be_an_array(tmp_path):
    data = TensorDataset(INPUTS, TARGETS)
    data.classes = np.array(["x", "y", "z"])
    assert inspect(make_model(), DataLoader(data, 16), run=tmp_path).class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    "names", [{0: "a", 2: "c", 3: "d"}, {"a": 0, "b": 1, "c": 2}, ["a"], {"a", "b", "c"}, "abc"]
)
def test_names_without_an_order_are_refused_at_the_first_batch(tmp_path, names):
    seen = []

    def forward(model, batch):
        seen.append(len(batch))
        return model(batch[0]), batch[1]

    message = refused(inspect, make_model(), make_batches(), run=tmp_path, class_names=names, forward=forward)
    assert "class_names" in message
    assert len(seen) == 1


class Promising(list):
    """Batches whose number is a lie, or can't be told."""

    def __init__(self, length):
        super().__init__(make_batches())
        self.length = length

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


@pytest.mark.parametrize("length", [10**12, 0, 1, NotImplementedError(), RuntimeError("x"), ValueError("-1")])
def test_a_loaders_length_is_only_a_hint(tmp_path, length):
    class Loader:
        def __iter__(self):
            return iter(make_batches())

        def __len__(self):
            return Promising.__len__(Promising(length))

    assert len(inspect(make_model(), Loader(), run=tmp_path)) == SAMPLES


@pytest.mark.parametrize("length", [ValueError("x"), RuntimeError(), 2.5, -3, "many", 10**30])
def test_a_length_that_a_sampler_or_dataset_gets_wrong_is_not_known(tmp_path, length):
    class Odd(Sampler):
        drop_last, batch_size, num_replicas = True, 16, 2

        def __iter__(self):
            return iter(range(SAMPLES))

        def __len__(self):
            return Promising.__len__(Promising(length))

    class Data(TensorDataset):
        __len__ = Odd.__len__

    loader = DataLoader(Data(INPUTS, TARGETS), 16, sampler=Odd(), drop_last=True)
    loaders.warn_of_dropped(loader, run=str(tmp_path), split="val")
    loaders.warn_of_shard(loader, run=str(tmp_path), split="val")


class Trainer:
    """As a LightningModule sees Lightning's."""

    def __init__(self, model, folder):
        self.model, self.folder, self.sanity_checking = model, folder, False
        self.state, self.global_step = SimpleNamespace(fn="fit"), 0
        model._trainer = self

    def fit(self, epochs=(None, None), sanity=None):
        found = []
        for epoch, self.sanity_checking in [(sanity, True), *((epoch, False) for epoch in epochs)]:
            self.global_step += 5 * (not self.sanity_checking)
            found.append(inspect(self.model, make_batches(), run=self.folder, epoch=epoch).epoch)
        return found

    def evaluate(self, fn="validate", **given):
        self.state.fn, self.sanity_checking = fn, False
        found = inspect(self.model, make_batches(), run=self.folder, **given).epoch
        self.state.fn = "fit"
        return found


def test_lightnings_sanity_check_is_not_an_epoch(tmp_path):
    assert Trainer(make_model(), tmp_path / "run").fit() == [0, 1, 2]


def test_the_sanity_check_of_a_second_fit_stays_in_memory(tmp_path):
    model = make_model()
    assert Trainer(model, tmp_path / "run").fit() == [0, 1, 2]
    assert Trainer(model, tmp_path / "run").fit() == [0, 3, 4]
    assert Run(tmp_path / "run").epochs == (0, 1, 2, 3, 4)


def test_a_sanity_check_with_the_next_epochs_number_leaves_no_checkpoint_in_a_later_fit(tmp_path):
    trainer = Trainer(make_model(), tmp_path / "run")
    trainer.fit((1, 2), sanity=1)
    assert trainer.fit((), sanity=3) == [3]
    assert Run(tmp_path / "run").epochs == (1, 2)


def test_what_would_refuse_the_training_does_so_in_its_sanity_check(tmp_path):
    Trainer(make_model(), tmp_path / "run").fit()
    assert "another model" in refused(Trainer(make_model(), tmp_path / "run").fit)


@pytest.mark.parametrize("fn", ["validate", "test"])
def test_a_validation_after_the_training_is_not_an_epoch_and_says_so(tmp_path, caplog, fn):
    model = make_model()
    trainer = Trainer(model, tmp_path / "run")
    trainer.fit()
    assert trainer.evaluate(fn) == 2
    assert Trainer(model, tmp_path / "run").evaluate(fn) == 2  # one that has trained nothing
    assert caplog.text.count("stays in memory and is not saved; pass epoch=") == 2
    assert Run(tmp_path / "run").epochs == (0, 1, 2)


def test_a_validation_is_an_epoch_where_it_is_the_first_or_follows_training_or_has_a_number(tmp_path, caplog):
    trainer = Trainer(make_model(), tmp_path / "run")
    assert trainer.evaluate() == 1
    for epoch in (2, 3):
        trainer.global_step += 5
        assert trainer.evaluate() == epoch
    assert trainer.evaluate(epoch=7) == 7
    assert trainer.evaluate("test", split="test") == 7
    assert "stays in memory" not in caplog.text
    assert Run(tmp_path / "run").epochs == (1, 2, 3, 7)


def test_the_sanity_check_is_known_through_a_wrapper(tmp_path):
    trainer = Trainer(make_model(), tmp_path / "run")
    trainer.model = nn.DataParallel(trainer.model)
    assert trainer.fit() == [0, 1, 2]


class Dispatched:
    """As accelerate's loader on rank 0 of two: gives the first half of every two batches."""

    def __init__(self, loader):
        self.base_dataloader, self.passes, self.state = loader, 0, None

    def _fetch_batches(self, iterator):
        two = [batch for batch, _ in zip(iterator, range(2), strict=False)]
        return [torch.cat(parts)[: sum(map(len, parts)) // 2] for parts in zip(*two, strict=True)]

    def __iter__(self):
        self.passes += 1
        iterator = iter(self.base_dataloader)
        while batch := self._fetch_batches(iterator):
            yield batch


def test_a_loader_that_other_ranks_wait_for_is_gone_over_once_by_content(tmp_path):
    loader = Dispatched(DataLoader(TensorDataset(INPUTS, TARGETS), 16, shuffle=True))
    found = inspect(make_model(), loader, run=tmp_path, check=False)
    assert (found.provenance.id_source, loader.passes) == ("content", 1)


# Samples that a loader leaves out


class EveryThird(Sampler):
    def __iter__(self):
        return iter(range(0, SAMPLES, 3))

    def __len__(self):
        return len(range(0, SAMPLES, 3))


DATA = TensorDataset(INPUTS, TARGETS)


@pytest.mark.parametrize(
    ("loader", "different"),
    [
        (DataLoader(DATA, 16, sampler=EveryThird()), 35),
        (DataLoader(DATA, 16, sampler=SubsetRandomSampler(range(40))), 40),
        (DataLoader(DATA, 16, sampler=RandomSampler(DATA, num_samples=50)), 50),
        (DataLoader(DATA, batch_sampler=[[1, 2], [2, 3], [4]]), 4),
        (DataLoader(DATA, 16, collate_fn=lambda samples: default_collate(samples[1:])), SAMPLES - 7),
        (DataLoader(DATA, 16, shuffle=True), SAMPLES),
        (DataLoader(Subset(DATA, range(7)), 4), 7),
        (DataLoader(Subset(DATA, [1, 2, 2, 1]), 4), 2),
    ],
)
def test_a_loader_that_leaves_samples_out_is_warned_of_once_with_both_numbers(
    tmp_path, caplog, loader, different
):
    model = make_model()
    for _ in range(2):
        inspect(model, loader, run=tmp_path / "run", check=False)
    found = [one.getMessage() for one in caplog.records if "different samples" in one.getMessage()]
    assert len(found) == (different < len(loader.dataset) and not isinstance(loader.dataset, Subset))
    assert all(f"gave {different} different samples, and its dataset has {SAMPLES}" in one for one in found)


@pytest.mark.parametrize("name", ["num_replicas", "num_processes", "world_size"])
def test_a_sampler_of_a_ranks_share_is_known_by_any_of_its_usual_attributes(tmp_path, caplog, name):
    sampler = EveryThird()
    setattr(sampler, name, 3)
    inspect(make_model(), DataLoader(DATA, 16, sampler=sampler), run=tmp_path / "run", check=False)
    assert f"about 35 of {SAMPLES} samples (val)" in caplog.text
    assert "different samples" not in caplog.text
