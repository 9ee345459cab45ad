"""Inputs, targets and logits out of whatever a loader and a model give."""

from __future__ import annotations

import dataclasses
import sys
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import CLASSES, FEATURES

from confshift import ConfshiftError
from confshift.collection.batches import Reader, to_device, unwrapped
from confshift.collection.row_checks import checked_batch

X = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 0])


class Named(nn.Module):
    """Takes its input by name, as models of text do; `mask` is optional."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs, mask=None):
        return self.layer(inputs if mask is None else inputs * mask)


class Encoding(UserDict):
    """As transformers' BatchEncoding: moves itself, and gives itself back."""

    def to(self, device):
        self.data = {name: value.to(device) for name, value in self.data.items()}
        return self


class Keyed:
    """Only looks like a mapping; iterating over it is not what one would think."""

    def __init__(self, **fields):
        self._fields_by_name = fields

    def keys(self):
        return list(self._fields_by_name)

    def __getitem__(self, name):
        return self._fields_by_name[name]


NESTED = (
    f"model(dict {{inputs: float32 tensor {tuple(X.shape)}, "
    f"mask: list of float32 tensor {tuple(X.shape)}, int}})"
)
BY_NAME = f"model(inputs=float32 tensor {tuple(X.shape)}, mask=float32 tensor (4, 2))"

Pair = namedtuple("Pair", "x y")
Reversed = namedtuple("Reversed", "label image")
Extra = namedtuple("Extra", "image target path")


@dataclasses.dataclass(frozen=True)
class Record:
    inputs: torch.Tensor
    labels: torch.Tensor
    note: str = "any"


BATCHES = {
    "tuple": (X, Y),
    "list": [X, Y],
    "with more": (X, Y, ["a", "b", "c", "d"]),
    "namedtuple": Pair(X, Y),
    "namedtuple, label first": Reversed(Y, X),
    "namedtuple with more": Extra(X, Y, "path"),
    "dict": {"inputs": X, "labels": Y},
    "dict with more": {"inputs": X, "labels": Y, "index": torch.arange(4)},
    "dict of one input, by any name": {"image": X, "label": Y},
    "UserDict": UserDict(inputs=X, target=Y),
    "BatchEncoding": Encoding(inputs=X, targets=Y),
    "only like a mapping": Keyed(inputs=X, y=Y),
    "dataclass": Record(X, Y),
    "column of labels": (X, Y[:, None]),
    "labels of numpy": (X, Y.numpy()),
    "labels of python": (X, Y.tolist()),
    "small labels": (X, Y.to(torch.uint8)),
}


def rows_of(reader, batch):
    logits, targets, _ = checked_batch(*reader.read(batch)[:3])
    return logits, targets


@pytest.mark.parametrize("name", BATCHES)
def test_logits_and_targets_come_out_of(name):
    model = Named()
    logits, targets = rows_of(Reader(model), BATCHES[name])
    assert torch.equal(logits, model(X))
    assert targets.tolist() == Y.tolist()


def test_every_field_that_the_model_knows_is_passed_by_name():
    model, mask = Named(), torch.tensor([1.0, 0, 0, 0, 0, 0])
    logits = Reader(model).read({"mask": mask, "inputs": X, "labels": Y}).logits
    assert torch.equal(logits, model(X * mask))


def test_a_model_that_takes_any_field_gets_all_but_the_labels_and_the_ids():
    class Any(nn.Module):
        def forward(self, **fields):
            self.seen = sorted(fields)
            return torch.ones(4, 3)

    model = Any()
    Reader(model, None, ("name",)).read({"a": X, "b": X, "labels": Y, "name": [1, 2, 3, 4]})
    assert model.seen == ["a", "b"]


Output = namedtuple("Output", "loss logits hidden")


@dataclasses.dataclass
class ModelOutput:
    logits: torch.Tensor
    loss: None = None


OUTPUTS = {
    "tensor": lambda logits: logits,
    "attribute": ModelOutput,
    "dict": lambda logits: {"loss": 1, "logits": logits},
    "namedtuple": lambda logits: Output(torch.tensor(1.0), logits, torch.ones(4, 9)),
    "tuple": lambda logits: (logits,),
    "loss first": lambda logits: (torch.tensor(1.0), logits, torch.ones(4, 2, 9), "more"),
    "list": lambda logits: [logits, torch.arange(4)],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_logits_are_found_in_an_output_that_is(name):
    class Wrapped(Named):
        def forward(self, inputs):
            return OUTPUTS[name](super().forward(inputs))

    model = Wrapped()
    assert torch.equal(Reader(model).read((X, Y))[0], model.layer(X))


def forward_error(batch=(X, Y), output=None, model=None, forward=None):
    class Fixed(nn.Module):
        def forward(self, inputs):
            return output

    with pytest.raises(ConfshiftError) as caught:
        rows_of(Reader(model or Fixed(), forward), batch)
    return str(caught.value)


class Two(nn.Module):
    def forward(self, first, second):
        return first


@pytest.mark.parametrize(
    ("batch", "model", "says"),
    [
        (X, None, "no targets in a batch that is a Tensor"),
        ((X,), None, "no targets in a batch that is a tuple of 1"),
        ("text", None, "no targets in a batch that is a str"),
        ({"inputs": X, "lab": Y}, None, r"no targets among the fields ['inputs', 'lab']"),
        ({"labels": Y}, None, "the model takes inputs"),
        ({"a": X, "b": X, "labels": Y}, None, "the model takes inputs, and the batch has the fields"),
        ({"first": X, "labels": Y}, Two(), "the model takes second"),
        ((X, X, Y), Two(), "the model takes first, second: which parts are inputs"),
        ((X, ["cat", "dog", "cat", "cat"]), Named(), "can't be made a tensor"),
    ],
)
def test_a_batch_that_is_not_understood_is_refused_and_forward_is_named(batch, model, says):
    message = forward_error(batch, model=model)
    assert says in message
    assert "pass forward=, a function (model, batch) -> (logits, targets)" in message


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("text", "no logits in what the model returned, a str"),
        ({"scores": X}, "no logits in what the model returned, a dict"),
        ((), "no logits"),
        ((torch.ones(4, 9), torch.ones(4, 3)), "parts of shapes (4, 9), (4, 3): which are the logits?"),
        (torch.ones(4, 7, 5), "do not say which axis holds the classes"),
        (torch.ones(4, 7, 1, 1), "return logits.flatten(1), targets"),
        (torch.ones(4, 3, dtype=torch.int64), "the logits are torch.int64"),
        (torch.ones(4, 3, dtype=torch.complex64), "the logits are torch.complex64"),
        (torch.ones(5, 3), "logits of shape (5, 3) for targets of shape (4,)"),
    ],
)
def test_an_output_that_is_not_one_row_of_logits_for_each_sample_is_refused(output, says):
    message = forward_error(output=output)
    assert says in message
    assert "forward=" in message


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.ones(4, 3), "rows sum to 3..3: multi-label targets"),
        (torch.eye(3)[[0, 1, 2, 0]], "(one-hot labels), pass class indices"),
        (torch.ones(4, 7, dtype=torch.int64), "targets of shape (4, 7)"),
        (torch.ones(4), "the targets are torch.float32"),
        (torch.ones(4, dtype=torch.bool), "return logits, targets.long()"),
    ],
)
def test_targets_that_are_not_one_class_index_for_each_sample_are_refused(targets, says):
    assert says in forward_error((X, targets), output=torch.ones(4, 3))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize(
    ("model", "batch", "error", "call"),
    [
        (Named(), ({"inputs": X, "mask": [X, 3]}, Y), TypeError, NESTED),
        (Named(), {"inputs": X, "mask": X[:, :2], "labels": Y}, RuntimeError, BY_NAME),
        (nn.Linear(FEATURES + 1, CLASSES), (X, Y), RuntimeError, f"model(float32 tensor {tuple(X.shape)})"),
        (nn.Linear(FEATURES, CLASSES), ([0] * 20, Y), TypeError, f"model(list of {'int, ' * 8}...)"),
    ],
    ids=["a dict given whole", "by name", "another shape", "a long list"],
)
def test_an_error_of_the_model_keeps_its_type_and_says_what_was_called(model, batch, error, call):
    with pytest.raises(error) as caught:
        Reader(model).read(batch)
    (note,) = caught.value.__notes__
    assert note.startswith(f"confshift called {call}. ")
    assert "pass forward=, a function (model, batch) -> (logits, targets)" in note


def test_an_error_of_the_users_own_forward_is_theirs():
    with pytest.raises(ZeroDivisionError) as caught:
        Reader(Named(), lambda model, batch: 1 / 0).read((X, Y))
    assert not hasattr(caught.value, "__notes__")


def test_a_batch_of_one_keeps_its_row():
    logits, targets = rows_of(Reader(Named()), (X[:1], Y[:1]))
    assert logits.shape == (1, CLASSES)
    assert targets.shape == (1,)


def test_forward_replaces_everything():
    model = Named()

    def forward(model, batch):
        inputs, labels = batch["odd"]
        return model(inputs).numpy(), labels

    with torch.no_grad():
        logits, targets = rows_of(Reader(model, forward), {"odd": (X, Y.tolist())})
        np.testing.assert_array_equal(logits, model(X))
    assert targets.tolist() == Y.tolist()


@pytest.mark.parametrize("given", [X, (X,), (X, Y, X), None])
def test_a_forward_that_returns_no_pair_is_refused(given):
    assert "return the pair (logits, targets)" in forward_error(forward=lambda model, batch: given)


@pytest.mark.parametrize("name", BATCHES)
def test_moving_a_batch_keeps_its_form_and_leaves_the_original_alone(name):
    batch = BATCHES[name]
    moved = to_device(batch, torch.device("meta"))
    assert type(moved) is type(batch) or isinstance(batch, UserDict | Keyed)
    kept = _tensors(batch)
    assert all(one.device.type == "cpu" for one in kept)
    if not isinstance(batch, Keyed):
        assert [one.device.type for one in _tensors(moved)] == ["meta"] * len(kept)
        assert [one.shape for one in _tensors(moved)] == [one.shape for one in kept]


def _tensors(batch):
    if isinstance(batch, torch.Tensor):
        return [batch]
    if dataclasses.is_dataclass(batch):
        return _tensors(list(vars(batch).values()))
    if isinstance(batch, dict | UserDict):
        return _tensors(list(batch.values()))
    return [tensor for one in batch for tensor in _tensors(one)] if isinstance(batch, list | tuple) else []


def test_a_module_without_parameters_leaves_batches_where_they_are():
    class Plain(nn.Module):
        def forward(self, inputs):
            return inputs

    assert torch.equal(Reader(Plain()).read((X, Y))[0], X)


def test_a_wrapped_model_is_unwrapped():
    model = Named()
    assert unwrapped(nn.DataParallel(torch.compile(model, backend="eager"))) is model
