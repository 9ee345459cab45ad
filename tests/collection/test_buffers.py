"""The memory of a pass is used again, and nobody sees another's rows in it."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from confshift import ConfshiftError
from confshift.collection import buffers
from confshift.collection.buffers import Rows, give_back, take


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch):
    monkeypatch.setattr(buffers, "_free", [])


def test_an_array_given_back_is_taken_again():
    first = take(100, 5, torch.float32)
    assert take(100, 5, torch.float32) is not first
    give_back(first)
    assert take(90, 5, torch.float32) is first
    assert take(90, 5, torch.float32) is not first


@pytest.mark.parametrize(
    ("rows", "classes", "dtype"),
    [(101, 5, "float32"), (49, 5, "float32"), (100, 4, "float32"), (100, 5, "float64")],
)
def test_an_array_that_does_not_fit_is_left(rows, classes, dtype):
    first = take(100, 5, torch.float32)
    give_back(first)
    other = take(rows, classes, getattr(torch, dtype))
    assert other is not first
    assert (other.shape, other.dtype) == ((rows, classes), getattr(torch, dtype))


def test_no_more_than_four_free_arrays_are_kept():
    arrays = [take(10, classes, torch.float32) for classes in range(2, 12)]
    for array in arrays:
        give_back(array)
    assert [id(one) for one in buffers._free] == [id(one) for one in arrays[-4:]]


def test_many_threads_never_share_an_array():
    shared = []

    def work(number):
        for _ in range(300):
            array = take(8, 2 + number % 2, torch.float32)
            array.fill_(number)
            if array.shape[1] != 2 + number % 2 or not (array == number).all():
                shared.append(number)
            give_back(array)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not shared


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    expected=st.integers(1, 200),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
)
def test_rows_come_out_as_they_went_in_however_many_were_expected(sizes, expected, dtype):
    generator = torch.Generator().manual_seed(sum(sizes))
    logits = torch.randn(sum(sizes), 3, generator=generator).to(getattr(torch, dtype))
    targets = torch.randint(0, 3, (sum(sizes),), generator=generator)
    rows = Rows(expected, logits)
    for part, labels in zip(logits.split(sizes), targets.split(sizes), strict=True):
        rows.add(part, labels.to(torch.int16))
    assert torch.equal(torch.from_numpy(rows.logits).to(logits.dtype), logits)
    assert rows.targets.tolist() == targets.tolist()
    rows.release()


def test_what_was_seen_before_stays_when_memory_is_used_again():
    first = Rows(2, torch.ones(2, 3))
    first.add(torch.ones(2, 3), torch.tensor([1, 2]))
    targets = first.targets
    first.release()
    second = Rows(2, torch.ones(2, 3))
    second.add(torch.zeros(2, 3), torch.tensor([0, 0]))
    assert first._logits is second._logits
    assert targets.tolist() == [1, 2]


@pytest.mark.parametrize("other", [torch.ones(2, 4), torch.ones(2, 3, dtype=torch.float64)])
def test_a_batch_of_another_width_or_dtype_is_refused(other):
    rows = Rows(4, torch.ones(2, 3))
    rows.add(torch.ones(2, 3), torch.tensor([1, 2]))
    with pytest.raises(ConfshiftError, match="after 2 rows"):
        rows.add(other, torch.tensor([0, 0]))


def test_an_array_made_in_inference_mode_can_be_filled_outside_it():
    with torch.inference_mode():
        array = take(7, 1237, torch.float32)  # of a shape that no other test leaves behind
    array.copy_(torch.zeros(7, 1237))
    assert not array.is_inference()
