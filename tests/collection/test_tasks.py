"""Kinds of classification: each batch in its task's own shape gives torch's own loss, ids and groups."""

from __future__ import annotations

import logging
import math
import re
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from confshift import Checkpoint, Collector, ConfshiftError, Run, inspect
from confshift.collection import intake as intakes
from confshift.collection.batches import Reader
from confshift.collection.draw import keys_of, lowest
from confshift.collection.intake import Intake
from confshift.collection.outputs import Source
from confshift.collection.reading import Reading
from confshift.collection.row_checks import Batch, checked_batch
from confshift.collection.row_ids import row_ids
from confshift.collection.unfolding import unfold

N = 10


def drawn(*shape, seed=0):
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(seed))


def labels(classes, *shape):
    return torch.randint(0, classes, (N, *shape), generator=torch.Generator().manual_seed(1))


class Table(nn.Module):
    """Returns the output of each sample, whose number is its input."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, numbers):
        if isinstance(self.output, dict):
            return {name: part[numbers] for name, part in self.output.items()}
        return self.output[numbers]


def batches_of(targets, size=3):
    numbers = torch.arange(len(targets))
    return list(zip(numbers.split(size), targets.split(size), strict=True))


def looked_at(path, output, targets, size=3, **options):
    options.setdefault("epoch", 1)
    return inspect(Table(output), batches_of(targets, size), run=path, check=False, **options)


def read(output, targets, size=3, model=Table, **options):
    """Return what inspect reads, without a run."""
    ids = options.pop("sample_ids", None)
    reading = Reading(**options)
    reading.check()
    intake, reader = Intake(reading), Reader(model(output))
    for batch in batches_of(targets, size):
        intake.add(intake.read(*reader.read(batch)[:3]), batch[0] if intake.needs_ids else None)
    return Checkpoint.from_predictions(reading.predictions(intake.evaluation(ids, "user"), None))


def refused(action, *arguments, **options):
    with pytest.raises(ConfshiftError) as caught:
        action(*arguments, **options)
    return str(caught.value)


def binary_loss(z, y):
    return functional.binary_cross_entropy_with_logits(z.double(), y.double()).item()


def class_loss(z, y, **options):
    """Return torch's loss of logits (n, K, ...)."""
    return functional.cross_entropy(z.double(), y, **options).item()


Z, Y = drawn(), labels(2)
MANY, SEVERAL = drawn(5), labels(2, 5)
TAGS, WORDS = drawn(3, 7), labels(3, 7)
MAPS, MASKS = drawn(3, 4, 6), labels(3, 4, 6)
MASK = labels(2, 4, 6)
NEXT = class_loss(TAGS[:, :, :-1], WORDS[:, 1:])
PADDED = WORDS.clone()
PADDED[::2, 4:] = -100
VOID = MASKS.clone()
VOID[:, 0] = 255

#: By name: outputs, targets, options, torch's loss, the task.
READ = {
    "one logit": (Z, Y, {}, binary_loss(Z, Y), "binary"),
    "one logit in a column, labels float": (Z[:, None], Y * 1.0, {}, binary_loss(Z, Y), "binary"),
    "labels bool, in a column": (Z[:, None], Y[:, None] > 0, {}, binary_loss(Z, Y), "binary"),
    "one sigmoid": (Z.sigmoid(), Y, {"outputs": "probabilities"}, binary_loss(Z, Y), "binary"),
    "two columns and the word": (drawn(2), Y, {"task": "binary"}, class_loss(drawn(2), Y), "binary"),
    "several labels": (MANY, SEVERAL, {"task": "multilabel"}, binary_loss(MANY, SEVERAL), "multilabel"),
    "several sigmoids": (
        MANY.sigmoid(),
        SEVERAL * 1.0,
        {"task": "multilabel", "outputs": "probabilities"},
        binary_loss(MANY, SEVERAL),
        "multilabel",
    ),
    "two columns for each label": (
        drawn(5, 2),
        SEVERAL,
        {"task": "multilabel"},
        class_loss(drawn(5, 2).movedim(-1, 1), SEVERAL),
        "multilabel",
    ),
    "tokens, classes second": (TAGS, WORDS, {}, class_loss(TAGS, WORDS), "tokens"),
    "tokens, classes last": (TAGS.movedim(1, -1), WORDS, {}, class_loss(TAGS, WORDS), "tokens"),
    "padded tokens": (TAGS, PADDED, {}, class_loss(TAGS, PADDED), "tokens"),
    "shares of tokens": (
        TAGS.softmax(1),
        WORDS,
        {"outputs": "probabilities"},
        class_loss(TAGS, WORDS),
        "tokens",
    ),
    "one logit a token": (drawn(7, 1), labels(2, 7), {}, binary_loss(drawn(7), labels(2, 7)), "tokens"),
    "the next token": (TAGS.movedim(1, -1), WORDS, {"task": "causal_lm"}, NEXT, "causal_lm"),
    "pixels": (MAPS, MASKS, {}, class_loss(MAPS, MASKS), "pixels"),
    "pixels, classes last": (MAPS.movedim(1, -1), MASKS, {}, class_loss(MAPS, MASKS), "pixels"),
    "masks with an axis, last": (MAPS, MASKS[..., None], {}, class_loss(MAPS, MASKS), "pixels"),
    "masks with an axis": (MAPS, MASKS[:, None], {}, class_loss(MAPS, MASKS), "pixels"),
    "torchvision's": ({"out": MAPS, "aux": MAPS + 1}, MASKS, {}, class_loss(MAPS, MASKS), "pixels"),
    "void pixels": (MAPS, VOID, {"ignore_index": 255}, class_loss(MAPS, VOID, ignore_index=255), "pixels"),
    "one logit a pixel": (drawn(1, 4, 6), MASK * 1.0, {}, binary_loss(drawn(4, 6), MASK), "pixels"),
    "one logit a pixel, last": (drawn(4, 6, 1), MASK, {}, binary_loss(drawn(4, 6), MASK), "pixels"),
    "one logit a pixel by the word": (
        drawn(4, 6),
        MASK,
        {"task": "pixels"},
        binary_loss(drawn(4, 6), MASK),
        "pixels",
    ),
    "voxels": (
        drawn(3, 2, 4, 2),
        labels(3, 2, 4, 2),
        {},
        class_loss(drawn(3, 2, 4, 2), labels(3, 2, 4, 2)),
        "pixels",
    ),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("size", [3, N])
def test_each_kind_has_torchs_own_loss(name, size):
    output, targets, options, right, task = READ[name]
    found = read(output, targets, size, **options)
    assert found.loss == pytest.approx(right, abs=1e-5)
    predictions = found.predictions
    assert predictions.task == task
    assert (predictions.groups is None) == (task == "binary")


def test_a_batch_of_one_may_be_squeezed():
    squeezed = {
        "one logit",
        "several labels",
        "tokens, classes second",
        "pixels",
        "one logit a pixel by the word",
    }

    class Squeezing(Table):
        def forward(self, numbers):
            return super().forward(numbers).squeeze(0)

    for name in squeezed:
        output, targets, options, right, _ = READ[name]
        found = read(output, targets, 1, Squeezing, **options)
        assert found.loss == pytest.approx(right, abs=1e-5)


def test_ids_and_groups_are_those_of_a_literal_loop():
    samples = torch.randperm(N, generator=torch.Generator().manual_seed(2)).tolist()
    found = {
        name: read(*READ[name][:2], sample_ids=samples, **READ[name][2]).predictions
        for name in ("several labels", "padded tokens", "the next token", "void pixels")
    }
    wanted = {
        "several labels": {
            (s, 8 * s + k): SEVERAL[row, k] for row, s in enumerate(samples) for k in range(5)
        },
        "padded tokens": {
            (s, 2**24 * s + t): PADDED[row, t]
            for row, s in enumerate(samples)
            for t in range(7)
            if PADDED[row, t] >= 0
        },
        "the next token": {
            (s, 2**24 * s + t): WORDS[row, t] for row, s in enumerate(samples) for t in range(1, 7)
        },
        "void pixels": {
            (s, 2**32 * s + 2**16 * y + x): MASKS[row, y, x]
            for row, s in enumerate(samples)
            for y in range(1, 4)
            for x in range(6)
        },
    }
    for name, predictions in found.items():
        rows = sorted((row_id, sample, int(target)) for (sample, row_id), target in wanted[name].items())
        ids, groups, targets = zip(*rows, strict=True)
        assert predictions.sample_ids.tolist() == list(ids), name
        assert predictions.groups.tolist() == list(groups)
        assert predictions.targets.tolist() == list(targets)
    assert found["padded tokens"].ignored_samples == int((PADDED < 0).sum())


def test_a_token_has_one_id_whatever_its_batch_is_padded_to(tmp_path):
    """Batches of other samples are padded to other lengths: the second epoch pairs all the same."""
    run = Run(tmp_path)
    for epoch, order in enumerate((range(N), reversed(range(N)))):
        numbers = torch.tensor(list(order))
        data = []
        for part in numbers.split(4):
            length = 7 if any(number % 2 for number in part.tolist()) else 4
            data.append((part, PADDED[part, :length]))

        class Cut(Table):
            def forward(self, part):
                length = 7 if any(number % 2 for number in part.tolist()) else 4
                return self.output[part][:, :, :length]

        inspect(Cut(TAGS), data, run=run, sample_ids=numbers.numpy(), check=False, epoch=epoch)
    first, second = (run[epoch].predictions for epoch in run.epochs)
    assert np.array_equal(first.logits, second.logits)


def test_text_ids_are_the_groups_and_a_sample_that_changes_is_refused(tmp_path):
    names = [f"doc{number}" for number in range(N)]
    found = looked_at(tmp_path, TAGS, WORDS, sample_ids=names).predictions
    assert found.groups.tolist() == np.repeat(names, 7).tolist()
    assert found.sample_ids.tolist() == [(s << 24) + t for s in range(N) for t in range(7)]
    message = refused(looked_at, tmp_path, TAGS, WORDS, sample_ids=[*names[:-1], "doc99"], epoch=2)
    assert "doc99 now" in message


@pytest.mark.parametrize("name", ["multiclass", "one logit", "padded tokens", "void pixels"])
@pytest.mark.parametrize("form", ["array", "field", "function", "collector"])
def test_groups_may_be_documents_of_several_samples(tmp_path, name, form):
    multiclass = drawn(3), labels(3), {}, 0, ""
    output, targets, options, *_ = READ.get(name, multiclass)
    documents = np.array([f"document {number % 4}" for number in range(N)])
    data = [
        {"numbers": numbers, "labels": own, "of": documents[numbers.numpy()].tolist()}
        for numbers, own in batches_of(targets)
    ]
    if form == "collector":
        collector = Collector(tmp_path, **options)
        for batch in data:
            collector.add(output[batch["numbers"]], batch["labels"], groups=batch["of"])
        found = collector.save().predictions
    else:
        groups = {"array": documents, "field": "of", "function": lambda batch: batch["of"]}[form]
        model = named("Model", output)
        found = inspect(model, data, run=tmp_path, groups=groups, check=False, **options).predictions
    bits = {"padded tokens": 24, "void pixels": 32}.get(name, 0)
    assert found.groups.tolist() == documents[found.sample_ids >> bits].tolist()


def test_groups_of_another_length_are_refused(tmp_path):
    message = refused(looked_at, tmp_path, TAGS, WORDS, groups=["a", "b"])
    assert "groups has shape (2,), expected (10,): one for each sample" in message
    assert "groups has shape (2,), expected (10,)" in refused(looked_at, tmp_path, Z, Y, groups=["a", "b"])
    collector = Collector(tmp_path)
    collector.add(TAGS, WORDS, groups=range(N))
    assert "groups were passed with some batches only" in refused(collector.add, TAGS, WORDS)


def test_numbers_too_large_for_ids_go_in_as_text():
    large = np.arange(N) + 2**40
    assert "up to 1099511627785" in refused(read, TAGS, WORDS, sample_ids=large)
    found = read(TAGS, WORDS, sample_ids=large.astype(str)).predictions
    assert found.groups[0] == str(2**40)
    assert row_ids(np.array([-3, 2**39 - 1]), np.array([5, 0]), intakes.Layout("tokens", -1, 1)).tolist() == [
        (-3 << 24) + 5,
        (2**39 - 1) << 24,
    ]


# Words


def test_several_labels_have_names_and_two_classes():
    names = ["cat", "dog", "hen", "cow", "pig"]
    found = read(MANY, SEVERAL, task="multilabel", class_names=names)
    assert (found.class_names, found.provenance.label_names) == (("no", "yes"), tuple(names))
    message = refused(read, MANY, SEVERAL, task="multilabel", class_names=names[:2])
    assert "class_names has 2 names; pass 5, one per label" in message
    message = refused(read, Z, Y, class_names=["defect"])
    assert "pass 2, one per answer, those to 0 and to 1" in message
    assert read(Z, Y, class_names=["fine", "defect"]).class_names == ("fine", "defect")


MISSING = SEVERAL * 1.0
MISSING[::3, 1] = math.nan


@pytest.mark.parametrize(
    ("targets", "ignore"),
    [(MISSING, math.nan), (MISSING.nan_to_num(nan=-100), -100), (MISSING.nan_to_num(nan=-1).long(), -1)],
)
def test_missing_labels_are_left_out_and_counted(targets, ignore):
    found = read(MANY, targets, task="multilabel", ignore_index=ignore)
    known = ~MISSING.isnan()
    assert found.loss == pytest.approx(binary_loss(MANY[known], MISSING[known]), abs=1e-5)
    assert found.provenance.ignored_samples == 4


def test_labels_that_are_nan_need_a_word():
    message = refused(read, MANY, MISSING, task="multilabel")
    assert "NaN among whole numbers" in message
    ignore = eval(re.search(r"ignore_index=(float\('nan'\))", message)[1])
    assert len(read(MANY, MISSING, task="multilabel", ignore_index=ignore)) == 46


@pytest.mark.parametrize("name", ["one logit", "several labels", "one logit a pixel"])
def test_outputs_within_the_unit_interval_are_refused_and_both_remedies_are_right(name):
    output, targets, options, right, _ = READ[name]
    share = output.sigmoid()
    message = refused(read, share, targets, **options)
    assert "pass outputs='probabilities'" in message
    found = read(share, targets, outputs="probabilities", **options)
    assert found.loss == pytest.approx(right, abs=1e-5)
    z = share.squeeze(1) if name == "one logit a pixel" else share
    pairs = eval(re.search(r"torch\.stack\(.*?, -1\)", message)[0], {"torch": torch, "z": z})
    found = read(pairs, targets, **options)
    assert found.loss == pytest.approx(binary_loss(z, targets.reshape(z.shape)), abs=1e-5)


@pytest.mark.parametrize(
    ("output", "targets", "options", "says"),
    [
        (MANY, SEVERAL, {}, "pass task='multilabel'"),
        (drawn(4, 6), MASK, {}, "pass task='pixels'"),
        (MANY, SEVERAL / 3, {"task": "multilabel"}, "not whole numbers"),
        (Z, Y / 3, {}, "not whole numbers"),
        (MANY, SEVERAL[:, :4], {"task": "multilabel"}, "targets (n, L) of 0 and 1"),
        (TAGS, WORDS, {"task": "causal_lm"}, "has logits (n, T, K) and targets (n, T), both not shifted"),
        (TAGS, WORDS, {"task": "multiclass"}, "these are of task='tokens'"),
        (MANY, labels(5), {"task": "tokens"}, "these are of task='multiclass'"),
        (TAGS, WORDS * 1.0, {}, "whole numbers: pass them as integers"),
        (TAGS, TAGS.softmax(1), {}, "soft targets are not read"),
        (MAPS, MASKS, {"task": "segmentation"}, "task='segmentation': pass one of 'multiclass', "),
        (MAPS, MASKS, {"task": ["pixels"]}, "task=['pixels']: pass one of"),
        (MAPS, MASKS, {"rows": 0}, "rows=0: pass how many rows to keep"),
        (MAPS, MASKS, {"rows": True}, "rows=True"),
        (Z, Y * 255, {}, "pass targets // 255"),
        (TAGS, WORDS * 0 - 100, {}, "no row is left: all 70 targets equal ignore_index=-100"),
        (MAPS, labels(5, 5), {}, "they do not say which axis"),
        (drawn(2, 1, 1, 1, 1), labels(2, 1, 1, 1, 1), {"task": "pixels"}, "fold the others"),
    ],
)
def test_what_is_not_read_is_refused_with_the_word_to_add(output, targets, options, says):
    assert says in refused(read, output, targets, **options)


def test_maps_smaller_than_the_targets_are_enlarged_by_the_code(tmp_path):
    targets = labels(3, 8, 12)
    message = refused(read, MAPS, targets)
    code = textwrap.dedent(re.search(r"(?m)^    def forward\(model, batch\):(?:\n {8}.*)+", message)[0])
    exec(code, known := {"torch": torch})
    right = class_loss(functional.interpolate(MAPS, (8, 12)), targets)
    found = looked_at(tmp_path, MAPS, targets, forward=known["forward"])
    assert found.loss == pytest.approx(right, abs=1e-5)


def test_the_inputs_as_targets_need_a_word_for_the_shift(tmp_path):
    class Language(nn.Module):
        def forward(self, words):
            return {"logits": TAGS.movedim(1, -1)}

    message = refused(inspect, Language(), [(WORDS, PADDED)], run=tmp_path)
    assert re.findall(r"task='(\w+)'", message) == ["causal_lm", "tokens"]
    found = inspect(Language(), [(WORDS, PADDED)], run=tmp_path / "lm", task="causal_lm", check=False)
    assert found.loss == pytest.approx(class_loss(TAGS[:, :, :-1], PADDED[:, 1:]), abs=1e-5)
    found = inspect(Language(), [(WORDS, PADDED)], run=tmp_path / "tags", task="tokens", check=False)
    assert found.loss == pytest.approx(class_loss(TAGS, PADDED), abs=1e-5)
    first, later = (WORDS, (WORDS + 1) % 3), (WORDS, WORDS)  # by chance: the first batch says what they are
    assert len(inspect(Language(), [first, later], run=tmp_path / "own", check=False)) == 140


def test_targets_that_do_not_count_are_not_the_inputs(tmp_path):
    class Tagger(nn.Module):
        def forward(self, words):
            return TAGS[: len(words)].movedim(1, -1)

    none = torch.full_like(WORDS, -100)
    found = inspect(
        Tagger(), [(none, none), (WORDS[:0], WORDS[:0]), (WORDS, PADDED.clamp(max=1))], run=tmp_path
    )
    assert len(found) == int((PADDED >= 0).sum())


def test_of_two_maps_the_code_takes_one(tmp_path):
    class Two(Table):
        def forward(self, numbers):
            return self.output[numbers], self.output[numbers]

    message = refused(inspect, Two(MAPS), batches_of(MASKS), run=tmp_path)
    assert "class_names" not in message
    code = re.search(r"lambda model, batch: \(.*?, batch\[1\]\)", message)[0]
    found = inspect(Two(MAPS), batches_of(MASKS), run=tmp_path, forward=eval(code, {"i": 0}), check=False)
    assert found.loss == pytest.approx(class_loss(MAPS, MASKS), abs=1e-5)


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([1, -1]),
    st.integers(2, 4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_rows_of_any_shape_are_those_of_a_literal_loop(sizes, axis, classes, samples, random):
    """Logits with the classes second or last, over one to three axes, with targets that are left out."""
    seed = torch.Generator().manual_seed(random.randint(0, 10**6))
    logits = torch.randn(samples, *sizes, classes, generator=seed)
    targets = torch.randint(-1, classes, (samples, *sizes), generator=seed)
    layout = intakes.Layout("tokens" if len(sizes) == 1 else "pixels", axis, len(sizes))
    batch = Batch(logits if axis == -1 else logits.movedim(-1, 1), targets, [layout])
    assert layout in checked_batch(batch.logits, targets, Source()).layouts
    rows = unfold(batch, layout, outputs="logits", ignore_index=-1)
    wanted = [place for place in np.ndindex(*targets.shape) if targets[place] >= 0]
    assert rows.targets.tolist() == [int(targets[place]) for place in wanted]
    assert rows.logits.tolist() == [logits[place].tolist() for place in wanted]
    bits = {1: (24,), 2: (16, 16), 3: (10, 10, 10)}[len(sizes)]
    assert rows.samples.tolist() == [sample for sample, *_ in wanted]
    for (_, *place), number in zip(wanted, rows.places.tolist(), strict=True):
        for part, width in zip(reversed(place), bits, strict=True):
            assert number % 2**width == part
            number //= 2**width
        assert number == 0
    assert rows.ignored == targets.numel() - len(wanted)


# Two axes that can be that of the classes


@pytest.mark.parametrize("axis", [1, -1])
def test_a_batch_in_which_one_axis_fits_tells_for_those_before(tmp_path, axis):
    """Three tokens of three classes, then seven."""
    logits = TAGS.movedim(1, axis)

    class Cut(Table):
        def forward(self, numbers):
            length = 3 if numbers[0] < 6 else 7
            return self.output[numbers].narrow(1 if axis == -1 else 2, 0, length)

    data = [(part, WORDS[part, : 3 if part[0] < 6 else 7]) for part in torch.arange(N).split(3)]
    right = [class_loss(TAGS[part, :, : y.shape[1]], y, reduction="sum") for part, y in data]
    found = inspect(Cut(logits), data, run=tmp_path, check=False)
    assert found.loss == pytest.approx(sum(right) / sum(y.numel() for _, y in data), abs=1e-5)


@pytest.mark.parametrize(("task", "usual"), [("tokens", -1), ("pixels", 1)])
def test_where_no_batch_tells_the_axis_the_word_does_and_that_is_said(tmp_path, caplog, task, usual):
    classes = drawn(3, 3) if task == "tokens" else drawn(3, 3, 3)  # the second axis holds the classes
    targets = labels(3, *classes.shape[2:])
    right = pytest.approx(class_loss(classes, targets), abs=1e-5)
    output = classes.movedim(1, usual)
    message = refused(looked_at, tmp_path / "refused", output, targets)
    assert f"pass task={task!r}" in message
    assert looked_at(tmp_path / "usual", output, targets, task=task).loss == right
    assert f"task={task!r} takes the {'last' if task == 'tokens' else 'second'}" in caplog.text
    code = textwrap.dedent(re.search(r"(?m)^    def forward\(model, batch\):(?:\n {8}.*)+", message)[0])
    exec(code, known := {})
    other = output.movedim(1, -1) if task == "tokens" else output.movedim(-1, 1)
    other = classes if task == "tokens" else classes.movedim(1, -1)
    found = looked_at(tmp_path / "other", other, targets, task=task, forward=known["forward"])
    assert found.loss == right


# A part of the rows


@pytest.mark.parametrize("order", ["as it is", "shuffled", "one at a time"])
@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_the_rows_kept_are_the_same_in_any_order_of_samples(tmp_path, order, kind):
    data = TensorDataset(torch.arange(N), VOID)
    options = {"rows": 50, "ignore_index": 255, "run": tmp_path, "check": False}
    model = Table(MAPS)
    if kind == "text":
        options["sample_ids"] = lambda batch: [f"image {number}" for number in batch[0].tolist()]
    first = inspect(model, DataLoader(data, 4), **options)
    loader = {
        "as it is": DataLoader(data, 10),
        "shuffled": DataLoader(data, 4, shuffle=True),
        "one at a time": DataLoader(data, 1),
    }[order]
    again = inspect(model, loader, **options)
    one, other = first.predictions, again.predictions
    assert np.array_equal(one.logits, other.logits)
    assert (len(one), one.total_rows, again.epoch) == (50, 180, 2)
    assert first.provenance.total_rows == 180
    assert first.provenance.ignored_samples == 60
    if kind == "numbers":
        every = (np.arange(N)[:, None, None] << 32) + (np.arange(1, 4)[:, None] << 16) + np.arange(6)
        keys = keys_of(every.ravel() >> 32, every.ravel() & (2**32 - 1))
        assert one.sample_ids.tolist() == every.ravel()[lowest(keys, 50)].tolist()


def test_more_rows_than_there_are_keep_all_and_samples_are_rows_too(tmp_path):
    found = looked_at(tmp_path / "all", MAPS, MASKS, rows=10**6)
    assert (len(found), found.provenance.total_rows) == (240, 0)  # none was left out
    found = looked_at(tmp_path / "part", drawn(3), labels(3), rows=np.int64(4)).predictions
    assert (len(found), found.total_rows, found.groups) == (4, 10, None)
    assert np.array_equal(found.logits, drawn(3).numpy()[found.sample_ids])


def test_another_number_of_rows_is_another_set(tmp_path):
    looked_at(tmp_path, MAPS, MASKS, rows=50)
    assert "50 samples before and 60 now" in refused(looked_at, tmp_path, MAPS, MASKS, rows=60, epoch=2)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 40))
def test_rows_chosen_batch_by_batch_are_those_chosen_from_all(sizes, wanted):
    rows, first = Intake(Reading(rows=wanted)), 0
    total = sum(sizes)
    logits = torch.arange(3.0 * total).reshape(total, 3)
    for size in sizes:
        part = slice(first, first + size)
        batch = rows.read(logits[part], torch.zeros(size, dtype=torch.int64), Source())
        rows.add(batch, np.arange(first, first + size))
        first += size
    found = rows.evaluation(np.arange(total), "user")
    chosen = lowest(keys_of(np.arange(total), np.zeros(total, np.int64)), wanted)
    assert np.array_equal(np.sort(found.ids), chosen)
    assert np.array_equal(found.logits, logits.numpy()[found.ids])


def test_the_choice_is_uniform_over_places():
    samples, places = np.repeat(np.arange(400), 100), np.tile(np.arange(100), 400)
    chosen = lowest(keys_of(samples, places), 20_000)
    for of in (samples, places):
        counts = np.bincount(of[chosen])
        expected = 20_000 / len(counts)
        spread = ((counts - expected) ** 2 / expected).sum() / (len(counts) * 0.5)
        assert 0.6 < spread < 1.5  # a chi-square over its mean: drawn without replacement


def test_a_large_checkpoint_is_announced_with_its_size_before_the_memory_is_taken(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(intakes, "_LARGE", 240 * 3 * 4 - 1)
    intakes._warned.clear()
    looked_at(tmp_path, MAPS, MASKS, size=5)
    looked_at(tmp_path, MAPS, MASKS, size=5)
    (said,) = [message for message in caplog.messages if "rows=200_000" in message]
    assert "about 240 rows of 3 float32 logits" in said
    assert not [m for m in caplog.messages if "rows of" in m and m != said]


# A loop of one's own


@pytest.mark.parametrize(
    "name", ["one logit", "several labels", "padded tokens", "the next token", "void pixels"]
)
@pytest.mark.parametrize("rows", [None, 20])
def test_a_collector_reads_what_inspect_reads(tmp_path, name, rows):
    output, targets, options, _, _ = READ[name]
    wanted = looked_at(tmp_path / "inspect", output, targets, rows=rows, **options).predictions
    collector = Collector(tmp_path / "collector", rows=rows, **options)
    for numbers, own in batches_of(targets, 4):
        collector.add(output[numbers], own, sample_ids=numbers if rows else None)
    found = collector.save().predictions
    for field in ("logits", "targets", "sample_ids", "groups", "task", "total_rows", "ignored_samples"):
        assert np.array_equal(getattr(found, field), getattr(wanted, field)), field


def test_rows_of_a_collector_need_ids(tmp_path):
    message = refused(Collector(tmp_path, rows=5).add, MAPS, MASKS)
    assert "pass loader=, or sample_ids= with each batch" in message


# What a model declares


def named(name, output, **config):
    """Return a model of a class with this name, as transformers names them."""

    class Model(Table):
        def forward(self, numbers, labels=None):
            logits = self.output[numbers]
            if labels is None:
                return {"logits": logits}
            return {"loss": self.own(logits, labels), "logits": logits}

        def own(self, logits, labels):
            if name.endswith("ForCausalLM"):
                logits, labels = logits[:, :-1], labels[:, 1:]
            return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    Model.__name__ = name
    model = Model(output)
    model.config = type("Config", (), config)()
    return model


class Adapter(nn.Module):
    """Stands around a model as peft's do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_base_model(self):
        return self.inner

    def forward(self, *arguments, **fields):
        return self.inner(*arguments, **fields)


def data_of(targets):
    return [{"numbers": numbers, "labels": own} for numbers, own in batches_of(targets, 5)]


@pytest.mark.parametrize("wrap", [lambda model: model, Adapter])
@pytest.mark.parametrize(
    ("name", "task", "right"),
    [
        ("GPT2LMHeadModel", "causal_lm", NEXT),
        ("LlamaForCausalLM", "causal_lm", NEXT),
        ("BertForTokenClassification", "tokens", class_loss(TAGS, WORDS)),
    ],
)
def test_a_name_of_hugging_face_declares_the_task(tmp_path, name, task, right, wrap):
    model = wrap(named(name, TAGS.movedim(1, -1)))
    found = inspect(model, data_of(WORDS), run=tmp_path, check=False)
    assert (found.loss, found.provenance.task) == (pytest.approx(right, abs=1e-5), task)


def test_a_config_declares_several_labels_and_a_name_the_last_axis(tmp_path):
    model = named("BertForSequenceClassification", MANY, problem_type="multi_label_classification")
    found = inspect(model, data_of(SEVERAL * 1.0), run=tmp_path / "several", check=False)
    assert found.loss == pytest.approx(binary_loss(MANY, SEVERAL), abs=1e-5)
    square, tags = drawn(3, 3), labels(3, 3)
    found = inspect(named("XForTokenClassification", square), data_of(tags), run=tmp_path, check=False)
    assert found.loss == pytest.approx(class_loss(square.movedim(-1, 1), tags), abs=1e-5)


def test_a_forward_of_the_users_own_may_have_shifted_already(tmp_path):
    model = named("LlamaForCausalLM", TAGS.movedim(1, -1))

    def shifted(model, batch):
        return model(batch["numbers"])["logits"][:, :-1], batch["labels"][:, 1:]

    def plain(model, batch):
        return model(batch["numbers"])["logits"], batch["labels"]

    message = refused(inspect, model, data_of(WORDS), run=tmp_path, forward=shifted)
    assert re.findall(r"task='(\w+)'", message) == ["tokens", "causal_lm"]
    for task, forward in (("tokens", shifted), ("causal_lm", plain)):
        found = inspect(model, data_of(WORDS), run=tmp_path / task, forward=forward, task=task, check=False)
        assert found.loss == pytest.approx(NEXT, abs=1e-5)


def test_the_models_own_loss_is_compared_with_the_rows(tmp_path, caplog):
    good = inspect(named("LlamaForCausalLM", TAGS.movedim(1, -1)), data_of(WORDS), run=tmp_path / "good")
    assert good.provenance.checks["own_loss"]["status"] == "passed"
    bad = inspect(
        named("Language", TAGS.movedim(1, -1)), data_of(WORDS), run=tmp_path / "bad", task="causal_lm"
    )
    own = bad.provenance.checks["own_loss"]
    first = slice(0, 5)
    assert own["status"] == "failed"
    assert own["own"] == pytest.approx(class_loss(TAGS[first], WORDS[first]), abs=1e-5)
    assert own["rows"] == pytest.approx(class_loss(TAGS[first, :, :-1], WORDS[first, 1:]), abs=1e-5)
    assert "check 'own_loss' failed" in caplog.text
    plain = inspect(Table(TAGS), batches_of(WORDS), run=tmp_path / "plain")
    assert "own_loss" not in plain.provenance.checks


def test_checks_of_a_sample_and_of_the_head_know_the_task(tmp_path):
    torch.manual_seed(0)
    tagger = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    several = nn.Linear(4, 5)
    single = nn.Linear(4, 1)
    found = [
        inspect(tagger, [(labels(9, 7), WORDS)], run=tmp_path / "tokens"),
        inspect(several, [(drawn(4), SEVERAL)], run=tmp_path / "labels", task="multilabel"),
        inspect(single, [(drawn(4), Y)], run=tmp_path / "binary"),
    ]
    for checkpoint, outputs in zip(found, (3, 5, 1), strict=True):
        checks = checkpoint.provenance.checks
        assert checks["alone"]["status"] == "passed"
        assert (checks["head"]["status"], checks["head"]["out_features"]) == ("measured", outputs)


def test_samples_without_a_row_are_not_missing(tmp_path, caplog):
    """All of their targets are left out, or none of their rows was drawn."""
    empty = WORDS.clone()
    empty[4] = -100
    loader = DataLoader(TensorDataset(torch.arange(N), empty), 5)
    inspect(Table(TAGS), loader, run=tmp_path / "ignored", check=False)
    inspect(Table(TAGS), loader, run=tmp_path / "drawn", rows=5, check=False)
    assert "different samples" not in caplog.text


def test_layouts_are_read_from_shapes_alone():
    """No value of the logits decides what a batch is."""
    for output, targets, options, _, _ in READ.values():
        part = output["out"] if isinstance(output, dict) else output
        task = options.get("task")
        one, other = (
            checked_batch(z, targets, Source(), task).layouts for z in (part, torch.zeros_like(part))
        )
        assert one == other


@pytest.fixture(autouse=True)
def said(caplog):
    caplog.set_level(logging.WARNING, "confshift")
