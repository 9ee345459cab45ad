"""What the tests of all trainers share."""

from __future__ import annotations

import os
import threading

import pytest
from toy_task import Task, make_network

collect_ignore = ["trainer_scenarios.py"]  # a script, whose imports warn

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def task():
    return Task()


@pytest.fixture(name="make_network")
def make_network_fixture():
    return make_network


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def page(tmp_path):
    """Return a path whose `exists` waits for the thread that writes the page."""

    class Page(type(tmp_path)):
        def exists(self, **options):
            for thread in threading.enumerate():
                if thread.name == "confshift-page":
                    thread.join()
            return super().exists(**options)

    return Page(tmp_path / "page.html")


class Calls:
    """Counts how often a module is called in eval mode."""

    def __init__(self, module):
        self.number = 0
        module.register_forward_hook(self._count)

    def _count(self, module, *_):
        self.number += not module.training


@pytest.fixture
def count_calls():
    return Calls


@pytest.fixture
def assert_undisturbed():
    """Return a check of a function `train`, which trains with or without an adapter.

    It returns the weights and the number of forward passes in eval mode.
    """

    def check(train):
        (weights, passes), (others, bare) = train(True), train(False)
        assert passes <= bare + 6
        assert all((one == other).all() for one, other in zip(weights, others, strict=True))

    return check
