"""Threads that inspect one model take turns, a child process doesn't wait for its parent's threads."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest
import torch
from torch import nn
from toy_training import CLASSES, FEATURES, INPUTS, SAMPLES, make_batches, make_loader, make_model

from confshift import Run, inspect
from confshift.collection import buffers, guards, inspection
from confshift.collection.guards import one_at_a_time
from confshift.collection.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

PATIENCE = 20


class Meeting:
    """A forward function that waits until two threads are in it, or gives up."""

    def __init__(self, patience):
        self.barrier = threading.Barrier(2, timeout=patience)
        self.met = None

    def __call__(self, model, batch):
        if self.met is None:
            try:
                self.barrier.wait()
                self.met = True
            except threading.BrokenBarrierError:
                self.met = False
        return model(batch[0]), batch[1]


def in_threads(*actions):
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def shared_submodule():
    body = nn.Linear(FEATURES, 8)
    return nn.Sequential(body, nn.Linear(8, CLASSES)), nn.Sequential(
        body, nn.Dropout(), nn.Linear(8, CLASSES)
    )


def shared_weight():
    models = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)
    models[1].weight = models[0].weight
    return models


@pytest.mark.parametrize(
    ("make_models", "loaders", "meet"),
    [
        (lambda: [make_model()] * 2, 2, False),
        (shared_submodule, 2, False),
        (shared_weight, 2, False),
        (lambda: (make_model(), make_model()), 1, False),
        (lambda: (make_model(), make_model()), 2, True),
    ],
    ids=["one model", "a shared submodule", "a shared weight", "one loader", "nothing shared"],
)
def test_two_threads_take_turns_where_they_share_something(tmp_path, make_models, loaders, meet):
    models, meeting = make_models(), Meeting(PATIENCE if meet else 0.05)
    loaders = [make_loader(shuffle=True) for _ in range(loaders)] * 2
    batch_samplers = [loader.batch_sampler for loader in loaders]
    for model in models:
        model(INPUTS).sum().backward()

    def look(number):
        inspect(models[number], loaders[number], run=tmp_path / str(number), forward=meeting, check=False)

    in_threads(lambda: look(0), lambda: look(1))
    assert meeting.met == meet
    assert all(module.training for model in models for module in model.modules())
    assert all(parameter.grad is not None for model in models for parameter in model.parameters())
    assert [loader.batch_sampler for loader in loaders] == batch_samplers
    assert not guards._threads


def test_an_inspection_within_an_inspection_does_not_wait(tmp_path):
    model, inner = make_model(), []

    def forward(model, batch):
        if not inner:
            inner.append(None)
            inner.append(inspect(model, [batch], run=tmp_path / "inner"))
        assert not model.training
        return model(batch[0]), batch[1]

    in_threads(lambda: inspect(model, make_batches(), run=tmp_path / "outer", forward=forward))
    assert len(inner[1]) == 16
    assert all(module.training for module in model.modules())
    assert not guards._threads


def test_ctrl_c_ends_the_waiting_for_another_thread():
    thing, begun, over = object(), threading.Event(), threading.Event()

    def hold():
        with Interrupts() as interrupts, one_at_a_time([thing], interrupts):
            begun.set()
            over.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(PATIENCE)
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        sender.start()
        with one_at_a_time([thing], interrupts):
            raise AssertionError("the other thread still has it")
    over.set()
    holder.join(PATIENCE)
    sender.join()
    assert not guards._threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("lock", [lambda: guards._changed, lambda: buffers._lock, inspection.Bar.get_lock])
def test_a_child_that_is_forked_while_a_thread_holds_a_lock_inspects(tmp_path, lock):
    model, begun, over = make_model(), threading.Event(), threading.Event()
    buffers.give_back(buffers.take(SAMPLES, CLASSES, torch.float32))

    def hold():
        with Interrupts() as interrupts, one_at_a_time([model], interrupts), lock():
            begun.set()
            over.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(PATIENCE)
    child = os.fork()
    if not child:  # no exception may reach the tests' own code here
        signal.alarm(PATIENCE)
        torch.set_num_threads(1)  # the threads of its own that torch started are not in the child
        with contextlib.suppress(BaseException):
            fine = not buffers._free and len(inspect(model, make_batches(), run=tmp_path)) == SAMPLES
            Run(tmp_path).flush()
            os._exit(0 if fine else 1)
        os._exit(2)
    over.set()
    holder.join(PATIENCE)
    assert os.waitpid(child, 0)[1] == 0
