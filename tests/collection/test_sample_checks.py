"""Random transforms in a validation set are noticed, and noticing them disturbs nothing."""

from __future__ import annotations

import dataclasses
import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset, WeightedRandomSampler
from torch.utils.data import default_collate as collate
from toy_training import CLASSES, FEATURES, INPUTS, TARGETS, make_loader

from confshift import inspect
from confshift.collection.sample_checks import check_samples

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Made(Dataset):
    """Makes its samples by a function of the index; counts and opens as careless datasets do."""

    def __init__(self, make, size=40):
        self.make, self.size = make, size
        self.calls, self.file = 0, None

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.calls += 1
        self.file = self.file or object()
        return self.make(index)


@dataclasses.dataclass
class Sample:
    image: object
    label: int


def noise(index):
    return torch.full((4,), float(index)) + torch.randn(4)


def seeded(index):
    return torch.randn(4, generator=torch.Generator().manual_seed(index))


def graph(value):
    """As torch_geometric's Data: keys and items, and attributes that say less."""

    class Graph(SimpleNamespace):
        def keys(self):
            return ["x"]

        def __getitem__(self, name):
            return value

    return Graph(unrelated=0)


WHOLE = torch.zeros(40, 4)


def noise_in_place(index):
    return WHOLE[index].add_(torch.randn(4)), index % 3


def as_it_is(samples):
    return samples


CHANGING = {
    "noise": lambda index: (noise(index), index % 3),
    "noise in place": noise_in_place,
    "targets": lambda index: (seeded(index), random.random()),
    "numpy": lambda index: (np.random.rand(3), index),
    "dict": lambda index: {"image": {"left": noise(index)}, "label": 0},
    "image": lambda index: (Image.fromarray(np.random.randint(0, 255, (8, 8, 3), np.uint8)), 0),
    "dataclass": lambda index: Sample(noise(index), 0),
    "object": lambda index: SimpleNamespace(image=noise(index)),
    "graph": lambda index: graph(noise(index)),
    "text": lambda index: (random.choice("abcdefgh") * random.randrange(9), index),
    "sparse": lambda index: (noise(index).to_sparse(), index),
    "half precision": lambda index: (noise(index).bfloat16(), index),
    "not a number": lambda index: (np.array([np.nan, random.random()]), index),
}
STEADY = {
    "seeded by the index": lambda index: (seeded(index), index % 3),
    "new objects": lambda index: SimpleNamespace(image=seeded(index), name=f"{index}", box=[1.5, None]),
    "not a number": lambda index: (torch.full((2,), float("nan")), float("nan")),
    "image": lambda index: (Image.new("L", (4, 4), index), 0),
    "objects without attributes": lambda index: (seeded(index), object(), {1: object()}),
    "graph": lambda index: graph(seeded(index)),
    "an array of objects": lambda index: np.array([seeded(index).numpy(), object()], dtype=object),
}


@pytest.mark.parametrize("name", CHANGING)
def test_samples_that_change_are_counted(name, caplog):
    with caplog.at_level(logging.WARNING, logger="confshift"):
        found = check_samples(DataLoader(Made(CHANGING[name]), 8, collate_fn=as_it_is))
    assert found["status"] == "failed"
    assert found["where"] == "dataset"
    assert found["samples"] == 4
    assert found["count"] >= 3  # a text may come out the same
    assert (
        f"{found['count']} of 4 samples changed when they were fetched again (in the dataset)" in caplog.text
    )


@pytest.mark.parametrize("name", STEADY)
def test_samples_that_stay_pass(name, caplog):
    found = check_samples(DataLoader(Made(STEADY[name]), 8, shuffle=True, collate_fn=as_it_is))
    assert found == {"status": "passed", "samples": 4, "count": 0, "where": "dataset"}
    assert not caplog.records


def test_a_few_of_the_samples_may_change():
    loader = DataLoader(Made(lambda index: noise(index) if index in (1, 3) else seeded(index)), 8)
    assert check_samples(loader)["count"] == 2
    assert check_samples(DataLoader(Subset(loader.dataset, [0, 2, 3]), 8)) == {
        "status": "failed",
        "samples": 3,
        "count": 1,
        "where": "dataset",
    }


def test_a_random_collate_fn_is_found():
    def mixed(samples):
        inputs, targets = collate(samples)
        return inputs * torch.rand(()), targets

    found = check_samples(DataLoader(Made(lambda index: (seeded(index), 0)), 8, collate_fn=mixed))
    assert found == {"status": "failed", "samples": 4, "count": 4, "where": "collate_fn"}


def test_a_collate_fn_that_wants_a_whole_batch_is_left_out():
    def strict(samples):
        assert len(samples) == 8
        return collate(samples)

    found = check_samples(DataLoader(Made(lambda index: (seeded(index), 0)), 8, collate_fn=strict))
    assert found["status"] == "passed"


def test_a_dataset_that_fetches_several_at_once_is_asked_so():
    class Several(Made):
        def __getitems__(self, indices):
            return [noise(index) for index in indices]

        def __getitem__(self, index):
            raise AssertionError

    assert check_samples(DataLoader(Several(None), 8))["count"] == 4


def test_the_samplers_own_keys_are_fetched():
    class Named(Dataset):
        def __getitem__(self, name):
            return {"a": noise(0), "b": seeded(1)}[name]

    assert check_samples(DataLoader(Named(), 2, sampler=["b", "a", "b"]))["count"] == 1
    weighted = WeightedRandomSampler([0.0, 1.0], 5)
    valid = Made(lambda index: seeded(index) if index else {}[index], 2)
    assert check_samples(DataLoader(valid, batch_sampler=BatchSampler(weighted, 3, False)))["samples"] == 3


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(INPUTS, TARGETS, strict=True)


def broken(index):
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        ([(INPUTS, TARGETS)], "a list has no dataset"),
        (DataLoader(Stream(), 8), "a stream can't fetch a sample again"),
        (DataLoader(Made(seeded), batch_size=None), "whole batches"),
        (DataLoader(Made(broken), 8), "OSError: the disk is gone"),
        (DataLoader(Made(seeded), batch_sampler=[]), "StopIteration"),
    ],
)
def test_where_no_sample_can_be_fetched_again_the_reason_is_given(loader, reason):
    found = check_samples(loader)
    assert found["status"] == "not made"
    assert reason in found["reason"]


@pytest.mark.parametrize("workers", [0, 2])
def test_looking_at_samples_leaves_random_states_and_with_workers_the_dataset(tmp_path, workers):
    def drawn():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    dataset = Made(lambda index: (INPUTS[index] + noise(0)[0] + random.random() + np.random.rand(), 0))
    loader = DataLoader(dataset, 8, shuffle=True, num_workers=workers)
    model = nn.Linear(FEATURES, CLASSES)
    before, sampler = drawn(), loader.batch_sampler
    checkpoint = inspect(model, loader, run=tmp_path)
    assert checkpoint.provenance.checks["samples"]["count"] == 4
    assert drawn() == before
    assert loader.batch_sampler is sampler
    assert checkpoint.provenance.id_source == "sampler"
    if workers:
        assert (dataset.calls, dataset.file) == (0, None)
    else:
        assert dataset.calls == 40 + 8


def test_only_the_first_checkpoint_of_a_split_looks(tmp_path):
    model, loader = nn.Linear(FEATURES, CLASSES), make_loader()
    found = [inspect(model, loader, run=tmp_path).provenance.checks for _ in range(2)]
    assert [one.get("samples", {}).get("status") for one in found] == ["passed", None]
