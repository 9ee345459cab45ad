"""Scenarios of several ranks: `python rank_scenarios.py FOLDER` writes what each rank saw."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Sampler, TensorDataset
from toy_training import INPUTS, TARGETS, make_model

from confshift import Collector, Run, inspect
from confshift.storage.disk import Disk
from forked_ranks import main, refused, scenario, seen

DATA = TensorDataset(INPUTS, TARGETS)


def shard(data=DATA, batch_size=16, **options):
    return DataLoader(data, batch_size, sampler=DistributedSampler(data, shuffle=False, **options))


class Counting(nn.Module):
    """Counts its calls, and fails on request."""

    def __init__(self, fail=False):
        super().__init__()
        self.inner, self.calls, self.fail = make_model(), 0, fail

    def forward(self, inputs):
        self.calls += 1
        if self.fail:
            raise FloatingPointError("a model that fails")
        return self.inner(inputs)


@scenario(2)
def shards(folder, rank):
    model = nn.parallel.DistributedDataParallel(make_model())
    loader = shard()
    return [seen(inspect(model, loader, run=folder / "run")) for _ in range(2)]


@scenario(2)
def shuffled_shards_of_a_training_and_a_validation_set(folder, rank):
    loader = DataLoader(DATA, 10, sampler=DistributedSampler(DATA, shuffle=True, seed=3))
    model, run = make_model(), Run(folder / "run")
    return [seen(inspect(model, loader, run=run, split=split)) for split in ("val", "train")]


@scenario(4)
def more_ranks_than_samples(folder, rank):
    class Few(Sampler):
        """Three of the samples: the last rank has none."""

        num_replicas, rank = 4, dist.get_rank()

        def __iter__(self):
            return iter([self.rank] if self.rank < 3 else [])

        def __len__(self):
            return int(self.rank < 3)

    few = TensorDataset(INPUTS[:5], TARGETS[:5])
    run, model = folder / "run", make_model()
    padded = seen(inspect(model, shard(few), run=run))
    return padded, seen(inspect(model, DataLoader(few, 2, sampler=Few()), run=folder / "few"))


def tagged():
    """Return a tagger, and sentences of five words, some of them padding, with a name for each."""
    torch.manual_seed(0)
    words = torch.randint(0, 9, (23, 5))
    tags = torch.where(torch.rand(23, 5) < 0.2, -100, words % 3)
    return nn.Embedding(9, 3), TensorDataset(words, tags, torch.arange(23))


def names_of(batch):
    return [f"text {number:02}" for number in batch[2].tolist()]


@scenario(2)
def tokens(folder, rank):
    """Text ids: numbers follow from all samples, not from a rank's own."""
    model, data = tagged()
    loader = shard(data, 4)
    found = [
        inspect(model, loader, run=folder / name, sample_ids=names_of, rows=rows).predictions
        for name, rows in (("all", None), ("part", 40))
    ]
    return [
        (seen.sample_ids, seen.logits, seen.groups, seen.total_rows, seen.ignored_samples) for seen in found
    ]


@scenario(2)
def one_folder_without_a_name(folder, rank):
    os.chdir(folder)
    inspect(make_model(), shard())
    return sorted(path.name for path in Path("runs").iterdir())


@scenario(2)
def a_loader_of_all_samples(folder, rank):
    model, loader = make_model(), DataLoader(DATA, 16)
    results = [seen(inspect(model, loader, run=folder / "run")) for _ in range(2)]
    if rank == 0:
        results.append(seen(inspect(model, loader, run=folder / "run", split="alone")))
    return results


@scenario(2)
def refusals(folder, rank):
    model, run = Counting(), Run(folder / "run")
    answers = [refused(inspect, model, shard(), run=run, outputs="logit" if rank else "logits")]
    inspect(model.inner, shard(), run=run, epoch=3)
    answers.append(refused(inspect, model, shard(), run=run, epoch=-1))
    before = model.calls
    answers.append(refused(inspect, Counting(fail=rank == 1), shard(), run=run, epoch=4))
    answers.append(refused(inspect, model.inner, shard(TensorDataset(INPUTS, 2 - TARGETS)), run=run, epoch=5))
    wide = nn.Linear(INPUTS.shape[1], 3 + rank)
    answers.append(refused(inspect, wide, shard(), run=folder / "wide"))
    answers.append(refused(inspect, model.inner, shard(), run=run, epoch=6))
    return answers, before, run.epochs


@scenario(2)
def a_rank_that_does_not_come(folder, rank):
    model, run = make_model(), folder / "run"
    inspect(model, shard(), run=run)
    if rank == 0:
        answer = refused(inspect, model, shard(), run=run, timeout=0.4)
    else:
        time.sleep(0.8)
        answer = refused(inspect, model, shard(), run=run, timeout=0.4)
    return answer, seen(inspect(model, shard(), run=run)), Run(run).epochs


@scenario(3)
def a_rank_that_is_killed(folder, rank):
    class Deadly(Counting):
        def forward(self, inputs):
            if rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(inputs)

    inspect(make_model(), shard(), run=folder / "run", epoch=1)
    return refused(inspect, Deadly(), shard(), run=folder / "run", epoch=2, timeout=1), Run(
        folder / "run"
    ).epochs


@scenario(2)
def buffers_that_differ(folder, rank):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_model()
            self.register_buffer("shift", torch.full((3,), rank * 1.0))

        def forward(self, inputs):
            return self.inner(inputs) + self.shift * torch.arange(3)

    return seen(inspect(Shifted(), shard(), run=folder / "run"))


@scenario(2)
def named_rows(folder, rank):
    class Exact(nn.Module):
        """Its rows are computed one by one."""

        def forward(self, inputs):
            return torch.stack([row[:3] * 2 - row[3:6] for row in inputs])

    logits = seen(inspect(Exact(), shard(), run=folder / "run"))["logits"]
    return {"equal": (logits == Exact()(INPUTS).numpy()).all()}


@scenario(2)
def collected(folder, rank):
    model, results = make_model().eval(), []
    for _ in range(2):
        loader = shard()
        collector = Collector(folder / "run", loader=loader)
        with torch.no_grad():
            for inputs, targets in loader:
                collector.add(model(inputs), targets)
        results.append(seen(collector.save()))
    collector = Collector(folder / "named", sharded=True)
    if rank == 0:
        with torch.no_grad():
            collector.add(model(INPUTS), TARGETS, sample_ids=[f"image {number:03}" for number in range(103)])
    results.append(seen(collector.save()))
    unsaid = refused(Collector, folder / "unsaid")
    by_order = Collector(folder / "order", sharded=True)
    by_order.add(model(INPUTS), TARGETS)
    return results, unsaid, refused(by_order.save)


@scenario(2)
def a_full_disk(folder, rank):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    Disk.create = full
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return seen(inspect(make_model(), shard(), run=folder / "run")), [str(one.message) for one in caught]


if __name__ == "__main__":
    main(sys.argv[1])
