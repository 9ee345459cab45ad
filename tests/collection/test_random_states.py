"""Generators are found where the objects that a pass uses keep them."""

from __future__ import annotations

import random

import numpy as np
from torch import nn

from confshift.collection.random_states import generators_in, saved_random_states


class Hostile:
    """Any code of its own that is run is a fault."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")

    def __bool__(self):
        raise AssertionError("its truth was asked for")

    def __len__(self):
        raise AssertionError("its length was asked for")

    @property
    def generator(self):
        raise AssertionError("a property was called")


def test_a_search_for_generators_ends_and_calls_nothing():
    circle = [Hostile(), random.SystemRandom(), None]
    circle += [circle, [random.Random(0)] * 3, [[0]] * 10**6]
    assert [type(one) for one in generators_in(circle)] == [random.SystemRandom, random.Random]


def test_a_generator_without_a_state_is_passed_over():
    kept = random.Random(0)
    put_back = list(saved_random_states(nn.Identity(), [random.SystemRandom(), kept]))
    expected = kept.random()
    for function in put_back:
        function()
    assert kept.random() == expected


def test_two_generators_that_share_their_bits_have_one_state():
    bits = np.random.PCG64(0)
    first, second = np.random.Generator(bits), np.random.Generator(bits)
    generators = generators_in({"a": first, "b": (second,)})
    assert generators == [first, second]
    put_back = list(saved_random_states(nn.Identity(), generators))
    expected = first.random()
    second.random()
    for function in put_back:
        function()
    assert second.random() == expected
