"""Which sample is which: user > sampler > content > order."""

from __future__ import annotations

import hashlib
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
)
from toy_training import (
    INPUTS,
    SAMPLES,
    TARGETS,
    assert_same_logits,
    make_batches,
    make_loader,
    make_model,
    true_logits,
)

from confshift import ConfshiftError, inspect
from confshift.collection.sample_ids import identified

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def assert_aligned(checkpoint, model, source="sampler", samples=SAMPLES):
    predictions = checkpoint.predictions
    assert predictions.id_source == checkpoint.provenance.id_source == source
    assert len(predictions) == samples
    assert_same_logits(predictions, model)


# The sampler


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, {}),
        ({"shuffle": True}, {}),
        ({"shuffle": True, "batch_size": 103}, {}),
        ({}, {"num_workers": 2}),
        ({"shuffle": True}, {"num_workers": 2}),
        ({"shuffle": True}, {"num_workers": 2, "persistent_workers": True}),
    ],
)
def test_rows_are_those_of_their_ids_whatever_the_loader_does(run, options, workers):
    model, loader = make_model(), make_loader(**options, **workers)
    sampler = loader.batch_sampler
    for _ in range(2):
        assert_aligned(inspect(model, loader, run=run), model)
    assert loader.batch_sampler is sampler
    assert sum(len(targets) for _, targets in loader) == SAMPLES  # and still works for the caller


def test_spawned_workers_are_no_different(run):
    model = make_model()
    loader = make_loader(64, shuffle=True, num_workers=1, multiprocessing_context="spawn")
    assert_aligned(inspect(model, loader, run=run), model)


def test_a_shuffled_loader_that_drops_the_last_batch_keeps_the_ids_it_has(run):
    model = make_model()
    assert_aligned(inspect(model, make_loader(shuffle=True, drop_last=True), run=run), model, samples=96)


def test_persistent_workers_may_be_running_already(run):
    model, loader = make_model(), make_loader(shuffle=True, num_workers=2, persistent_workers=True)
    list(loader)
    iterator, sampler = loader._iterator, loader.batch_sampler
    assert_aligned(inspect(model, loader, run=run), model)
    assert loader._iterator is iterator
    assert iterator._index_sampler is sampler
    assert sum(len(targets) for _, targets in loader) == SAMPLES


def test_a_pass_that_broke_off_before_leaves_no_trace(run):
    model, loader = make_model(), make_loader(8, shuffle=True, num_workers=1, persistent_workers=True)
    for number, _ in enumerate(loader):
        if number == 2:
            break
    assert_aligned(inspect(model, loader, run=run), model)


def test_a_loader_without_batching_hands_out_lists(run):
    model, dataset = make_model(), TensorDataset(INPUTS, TARGETS)
    sampler = BatchSampler(RandomSampler(dataset), 10, drop_last=False)
    assert_aligned(inspect(model, DataLoader(dataset, sampler=sampler, batch_size=None), run=run), model)


class Buckets(Sampler):
    def __iter__(self):
        return iter([list(range(start, min(start + 7, SAMPLES)))[::-1] for start in range(0, SAMPLES, 7)])

    def __len__(self):
        return 15


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_sampler_of_ones_own_is_followed(run, workers):
    model = make_model()
    loader = DataLoader(TensorDataset(INPUTS, TARGETS), batch_sampler=Buckets(), num_workers=workers)
    assert_aligned(inspect(model, loader, run=run), model)


class Backwards(SequentialSampler):
    def __iter__(self):
        return reversed(range(SAMPLES))


class OddFirst(BatchSampler):
    def __iter__(self):
        batches = list(super().__iter__())
        return iter(batches[1::2] + batches[::2])


@pytest.mark.parametrize("kinds", [(Backwards, BatchSampler), (SequentialSampler, OddFirst)])
def test_samplers_derived_from_those_that_go_in_order_are_followed(run, kinds):
    model, dataset = make_model(), TensorDataset(INPUTS, TARGETS)
    batches = kinds[1](kinds[0](dataset), 16, drop_last=False)
    checkpoint = inspect(model, DataLoader(dataset, batch_sampler=batches), run=run)
    assert_aligned(checkpoint, model)


def test_samples_drawn_twice_count_once(run):
    model = make_model()
    sampler = WeightedRandomSampler(torch.ones(SAMPLES), 300)
    checkpoint = inspect(model, DataLoader(TensorDataset(INPUTS, TARGETS), 16, sampler=sampler), run=run)
    predictions = checkpoint.predictions
    assert predictions.duplicate_samples == 300 - len(predictions) > 0
    assert_same_logits(predictions, model)


def test_the_padding_of_a_distributed_sampler_counts_once(run):
    model, dataset = make_model(), TensorDataset(INPUTS, TARGETS)
    found = []
    for rank in range(4):
        sampler = DistributedSampler(dataset, 4, rank, shuffle=True)
        checkpoint = inspect(model, DataLoader(dataset, 16, sampler=sampler), run=run.with_name(str(rank)))
        assert_same_logits(checkpoint.predictions, model)
        found.extend(checkpoint.predictions.sample_ids)
    assert len(found) == 104  # one more than there are samples
    assert set(found) == set(range(SAMPLES))


def test_one_rank_that_pads_with_its_own_samples_reports_them(run):
    model, dataset = make_model(), TensorDataset(INPUTS[:5], TARGETS[:5])
    sampler = DistributedSampler(dataset, 16, 0, shuffle=False)
    loader = DataLoader(dataset, 2, sampler=sampler)
    assert inspect(model, loader, run=run).predictions.duplicate_samples == 0
    twice = DataLoader(dataset, 2, sampler=[0, 1, 2, 3, 4, 0])
    assert inspect(model, twice, run=run / "twice").predictions.duplicate_samples == 1


def test_a_subset_has_the_ids_of_the_dataset_below(run):
    model = make_model()
    outer = Subset(Subset(TensorDataset(INPUTS, TARGETS), list(range(50, SAMPLES))), torch.arange(0, 53, 2))
    checkpoint = inspect(model, DataLoader(outer, 8, shuffle=True), run=run)
    assert checkpoint.predictions.sample_ids.tolist() == list(range(50, SAMPLES, 2))
    assert_same_logits(checkpoint.predictions, model)


def test_a_random_split_has_the_ids_of_the_whole(run):
    model = make_model()
    part, _ = random_split(TensorDataset(INPUTS, TARGETS), [40, 63], torch.Generator().manual_seed(0))
    assert_aligned(inspect(model, DataLoader(part, 16), run=run), model, samples=40)


def test_concatenated_datasets_have_ids_of_their_own(run):
    model = make_model()
    halves = [TensorDataset(INPUTS[:50], TARGETS[:50]), TensorDataset(INPUTS[50:], TARGETS[50:])]
    assert_aligned(inspect(model, DataLoader(ConcatDataset(halves), 16, shuffle=True), run=run), model)


class Named(Dataset):
    """Samples are looked up by name."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, name):
        return INPUTS[int(name[1:])], TARGETS[int(name[1:])]


def test_a_sampler_may_hand_out_names(run):
    names = [f"s{index:03d}" for index in reversed(range(SAMPLES))]
    model = make_model()
    checkpoint = inspect(model, DataLoader(Named(), 16, sampler=names), run=run)
    assert checkpoint.predictions.sample_ids.tolist() == sorted(names)
    assert_same_logits(checkpoint.predictions, model, ids=np.arange(SAMPLES))


class Adapter(DataLoader):
    """As accelerate's: says DataLoader, iterates the one inside."""

    def __init__(self, inner):
        super().__init__(TensorDataset(INPUTS[:1], TARGETS[:1]))
        self.base_dataloader = inner

    def __iter__(self):
        return iter(self.base_dataloader)

    def __len__(self):
        return len(self.base_dataloader)


def test_a_loader_that_iterates_another_is_followed_there(run):
    model, inner = make_model(), make_loader(shuffle=True)
    sampler = inner.batch_sampler
    assert_aligned(inspect(model, Adapter(inner), run=run), model)
    assert inner.batch_sampler is sampler


def test_where_batches_lose_samples_on_the_way_samples_go_by_their_content(run, caplog):
    corrupt = INPUTS[40, 0].item()

    def drop_corrupt(samples):
        return torch.utils.data.default_collate([one for one in samples if one[0][0].item() != corrupt])

    model, loader = make_model(), make_loader(collate_fn=drop_corrupt, shuffle=True)
    found = [inspect(model, loader, run=run) for _ in range(2)]
    assert [(len(one), one.provenance.id_source) for one in found] == [(SAMPLES - 1, "content")] * 2
    (message,) = [text for text in caplog.messages if "identifies samples by their content" in text]
    assert "holds 15 samples and the sampler gave 16 indices" in message


# Content


class Streamed(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in range(first, SAMPLES, step):
            yield INPUTS[index], TARGETS[index]

    def __len__(self):
        return 2  # torch would warn of a wrong length, if asked for it


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_by_content_in_any_order_and_batch_size(run, workers):
    model = make_model()
    first = inspect(model, DataLoader(Streamed(), 16, num_workers=workers), run=run)
    again = inspect(model, DataLoader(Streamed(), 7), run=run)
    assert first.predictions.id_source == "content"
    assert first.predictions.sample_ids.tolist() == again.predictions.sample_ids.tolist()
    np.testing.assert_allclose(first.predictions.logits, again.predictions.logits, atol=1e-5)
    assert len(first) == SAMPLES


def test_batches_that_overtake_one_another_go_by_content(run):
    model = make_model()
    loader = make_loader(shuffle=True, num_workers=2, in_order=False)
    checkpoint = inspect(model, loader, run=run)
    assert checkpoint.provenance.id_source == "content"
    np.testing.assert_allclose(
        np.sort(checkpoint.predictions.logits, axis=0), np.sort(true_logits(model), axis=0), atol=1e-5
    )


class Endless(DataLoader):
    """As timm's: one iterator for ever, so that a new sampler is never asked."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.kept = super().__iter__()

    def __iter__(self):
        batches, self.kept = self.kept, super().__iter__()
        return batches


def test_a_loader_that_does_not_ask_its_sampler_goes_by_content(run):
    loader = Endless(TensorDataset(INPUTS, TARGETS), 16, shuffle=True)
    assert inspect(make_model(), loader, run=run).provenance.id_source == "content"


class Chunks(Dataset):
    """One index, one batch."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return INPUTS[index * 26 : (index + 1) * 26], TARGETS[index * 26 : (index + 1) * 26]


def test_a_dataset_that_makes_whole_batches_goes_by_content(run):
    model = make_model()
    shuffled = DataLoader(Chunks(), batch_size=None, shuffle=True)
    first = inspect(model, shuffled, run=run)
    again = inspect(model, shuffled, run=run)
    assert first.provenance.id_source == "content"
    assert first.predictions.fingerprint == again.predictions.fingerprint


def test_the_id_of_a_sample_is_the_hash_of_its_row_its_label_and_its_number():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]], np.float32)
    labels = np.array([0, 0, 1])
    with identified(iter([])) as ids:
        ids.add((torch.from_numpy(rows), torch.from_numpy(labels)), 3)
    expected = [
        hashlib.blake2b(
            row.tobytes() + label.tobytes() + bytes([number, 0, 0, 0, 0, 0, 0, 0]), digest_size=16
        )
        for row, label, number in zip(rows, labels, [0, 1, 0], strict=True)
    ]
    assert ids.ids().tolist() == [one.hexdigest() for one in expected]


def test_one_input_with_two_labels_is_two_samples():
    batch = {"x": torch.ones(2, 3, dtype=torch.bfloat16), "y": [0, 1], "text": ["a", "a"], "constant": 3}
    with identified(iter([])) as ids:
        ids.add(batch, 2)
    assert len(set(ids.ids().tolist())) == 2


def test_a_batch_with_nothing_to_hash_is_refused(run):
    class Opaque:
        pass

    def forward(model, batch):
        return model(INPUTS), TARGETS

    with pytest.raises(ConfshiftError, match=r"can't tell which sample is which.*Opaque.*sample_ids="):
        inspect(make_model(), iter([Opaque()]), run=run, forward=forward)


def test_samples_that_change_with_every_pass_are_refused_the_second_time(run):
    class Augmented(IterableDataset):
        seed = 0

        def __iter__(self):
            self.seed += 1
            generator = torch.Generator().manual_seed(self.seed)
            for row, label in zip(INPUTS, TARGETS, strict=True):
                yield row + 0.01 * torch.randn(row.shape, generator=generator), label

    loader = DataLoader(Augmented(), 16)
    model = make_model()
    inspect(model, loader, run=run)
    with pytest.raises(ConfshiftError, match="103 are missing, 103 are new"):
        inspect(model, loader, run=run)


# Order


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_batches_goes_by_its_order(run, kind):
    model = make_model()
    assert_aligned(inspect(model, kind(make_batches()), run=run), model, source="order")


def test_a_list_of_batches_in_another_order_is_refused(run):
    model = make_model()
    inspect(model, make_batches(), run=run)
    with pytest.raises(ConfshiftError, match="sample_ids="):
        inspect(model, make_batches()[::-1], run=run)


# The user


def test_the_users_array_of_ids_comes_first(run):
    model, ids = make_model(), np.arange(SAMPLES)[::-1] + 1000
    checkpoint = inspect(model, make_loader(), run=run, sample_ids=ids)
    assert checkpoint.provenance.id_source == "user"
    assert_same_logits(
        checkpoint.predictions, model, ids=SAMPLES - 1 - (checkpoint.predictions.sample_ids - 1000)
    )


def test_an_array_of_another_length_is_refused(run):
    with pytest.raises(ConfshiftError, match=r"sample_ids has shape \(5,\), expected \(103,\)"):
        inspect(make_model(), make_loader(), run=run, sample_ids=np.arange(5))


Row = namedtuple("Row", "x y name")


class Labelled(Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        if self.kind == "dict":
            return {"input": INPUTS[index], "y": TARGETS[index], "name": f"sample {index:03d}"}
        return Row(INPUTS[index], TARGETS[index], index)


@pytest.mark.parametrize("kind", ["dict", "namedtuple"])
def test_ids_may_be_a_field_of_the_batch(run, kind):
    model = make_model()
    checkpoint = inspect(model, DataLoader(Labelled(kind), 16, shuffle=True), run=run, sample_ids="name")
    assert checkpoint.provenance.id_source == "user"
    numbers = [int(str(one).split()[-1]) for one in checkpoint.predictions.sample_ids]
    assert_same_logits(checkpoint.predictions, model, ids=np.array(numbers))


def test_ids_may_be_worked_out_from_the_batch(run):
    model = make_model()
    checkpoint = inspect(
        model,
        DataLoader(Labelled("namedtuple"), 16, shuffle=True),
        run=run,
        sample_ids=lambda batch: batch.name + 7,
    )
    assert_same_logits(checkpoint.predictions, model, ids=checkpoint.predictions.sample_ids - 7)


@pytest.mark.parametrize(
    ("sample_ids", "message"),
    [
        ("name", r"sample_ids='name': a batch is a list, without named fields; pass a function"),
        (lambda batch: [1, 2], r"sample_ids gave shape \(2,\) for a batch of 16 samples"),
    ],
)
def test_ids_that_a_batch_does_not_have_are_refused(run, sample_ids, message):
    with pytest.raises(ConfshiftError, match=message):
        inspect(make_model(), make_loader(), run=run, sample_ids=sample_ids)


def test_a_field_of_a_dict_that_is_missing_is_refused_with_those_there_are(run):
    with pytest.raises(
        ConfshiftError, match=r"'key': no such field in a batch; pass one of \['input', 'y', 'name'\]"
    ):
        inspect(make_model(), DataLoader(Labelled("dict"), 16), run=run, sample_ids="key")
