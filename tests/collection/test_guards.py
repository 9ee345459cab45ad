"""Whatever an inspection does, the training goes on as if it had not happened."""

from __future__ import annotations

import contextlib
import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from toy_training import (
    CLASSES,
    FEATURES,
    INPUTS,
    SAMPLES,
    TARGETS,
    TRAIN_INPUTS,
    TRAIN_TARGETS,
    assert_untouched,
    make_batches,
    make_loader,
    make_model,
    snapshot,
)

from confshift import inspect
from confshift.collection import model_state
from confshift.collection.guards import undisturbed
from confshift.collection.interrupts import Interrupts

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def train(inspect_with=None, generator=None):
    """Train for 3 epochs with everything that draws random numbers; return the weights."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = make_model()
    loader = DataLoader(TensorDataset(TRAIN_INPUTS, TRAIN_TARGETS), 32, shuffle=True, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        if inspect_with is not None:
            inspect_with(model)
        model.train()
        for inputs, targets in loader:
            noisy = inputs + 0.01 * float(np.random.randn()) + 0.01 * random.random()
            optimizer.zero_grad()
            functional.cross_entropy(model(noisy), targets).backward()
            optimizer.step()
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("workers", [0, 2])
def test_training_ends_bitwise_the_same_with_and_without_inspection(tmp_path, workers):
    loader = make_loader(shuffle=True, num_workers=workers)
    assert torch.equal(train(), train(lambda model: inspect(model, loader, run=tmp_path, check=True)))


def test_the_same_loop_without_guards_does_change_the_training():
    loader = make_loader(shuffle=True)

    def evaluate(model):
        with torch.no_grad():
            for inputs, _ in loader:
                model.eval()(inputs)

    assert not torch.equal(train(), train(evaluate))


def test_a_generator_that_both_loaders_draw_from_is_left_as_it_was(tmp_path):
    def trained(inspected):
        shared = torch.Generator().manual_seed(3)
        loader = make_loader(shuffle=True, generator=shared)
        run = tmp_path / str(inspected)
        return train((lambda model: inspect(model, loader, run=run)) if inspected else None, shared)

    assert torch.equal(trained(False), trained(True))


def test_random_states_are_kept_where_the_dataset_and_the_forward_pass_draw(tmp_path):
    class Drawing(torch.utils.data.Dataset):
        def __len__(self):
            return SAMPLES

        def __getitem__(self, index):
            random.random(), np.random.rand(), torch.rand(1)
            return INPUTS[index], TARGETS[index]

    def forward(model, batch):
        torch.rand(1)
        return model(batch[0]), batch[1]

    def state():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = state()
    inspect(make_model(), DataLoader(Drawing(), 16), run=tmp_path, forward=forward)
    assert state() == before


def test_each_submodule_gets_its_own_mode_back(tmp_path):
    model = make_model().train()
    model[1].eval()  # a frozen BatchNorm
    before = snapshot(model)
    inspect(model, make_loader(), run=tmp_path)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training
    assert_untouched(model, before)


def test_a_model_in_eval_mode_stays_in_eval_mode(tmp_path):
    model = make_model().eval()
    inspect(model, make_loader(), run=tmp_path)
    assert not any(module.training for module in model.modules())


class Merging(nn.Linear):
    """As LoRA's layers: train() does more than set the flag."""

    merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_a_layer_that_changes_in_eval_mode_is_changed_back(tmp_path):
    model = nn.Sequential(Merging(FEATURES, CLASSES)).train()
    inspect(model, make_loader(), run=tmp_path)
    assert not model[0].merged
    assert model[0].training


class Stubborn(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(True)


def test_a_batchnorm_that_refuses_eval_mode_learns_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(FEATURES, 8), Stubborn(8), nn.Linear(8, CLASSES))
    before = snapshot(model)
    checkpoint = inspect(model, make_loader(), run=tmp_path)
    assert_untouched(model, before)
    assert checkpoint.provenance.checks["modes"]["modules"] == ["1"]


class BoomError(Exception):
    pass


@pytest.mark.parametrize("error", [BoomError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["model", "dataset", "forward"])
def test_an_error_in_the_middle_comes_through_and_leaves_everything_as_it_was(tmp_path, error, where):
    calls = []

    def maybe_fail(place, turn=3):
        calls.append(place)
        if place == where and calls.count(place) == turn:
            raise error("in the middle")

    class Failing(torch.utils.data.Dataset):
        def __len__(self):
            return SAMPLES

        def __getitem__(self, index):
            if index == 40:
                maybe_fail("dataset", turn=1)
            return INPUTS[index], TARGETS[index]

    def forward(model, batch):
        maybe_fail("forward")
        torch.rand(1)
        return model(batch[0]), batch[1]

    model = make_model().train()
    model[1].eval()
    model[2].register_forward_hook(lambda *_: maybe_fail("model"))
    loader = DataLoader(Failing(), 16, shuffle=True)
    batch_sampler, state, before = loader.batch_sampler, torch.get_rng_state(), snapshot(model)
    hooks = [len(module._forward_pre_hooks) for module in model]

    with pytest.raises(error, match="in the middle"):
        inspect(model, loader, run=tmp_path, forward=forward)

    assert [module.training for module in model] == [True, False, True, True, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert loader.batch_sampler is batch_sampler
    assert [len(module._forward_pre_hooks) for module in model] == hooks
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert_untouched(model, before)
    where = "nowhere"
    assert len(inspect(model, loader, run=tmp_path, forward=forward)) == SAMPLES


def test_an_interrupt_between_worker_batches_leaves_a_persistent_loader_usable(tmp_path):
    loader = make_loader(shuffle=True, num_workers=1, persistent_workers=True)
    model, calls = make_model(), []

    def forward(model, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return model(batch[0]), batch[1]

    with pytest.raises(KeyboardInterrupt):
        inspect(model, loader, run=tmp_path, forward=forward)
    assert sum(len(targets) for _, targets in loader) == SAMPLES
    assert inspect(model, loader, run=tmp_path).provenance.id_source == "sampler"


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_taken_in_forward_work_under_autocast(tmp_path, inside):
    class Net(nn.Linear):
        def forward(self, inputs):
            with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                inputs = inputs.detach().requires_grad_()
                (slope,) = torch.autograd.grad(super().forward(inputs).float().logsumexp(1).sum(), inputs)
                return super().forward(inputs + 0.1 * slope)  # with its graph

    model = Net(FEATURES, CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
        assert inspect(model, make_batches(), run=tmp_path).provenance.source_dtype == "bfloat16"
        functional.cross_entropy(model(INPUTS).float(), TARGETS).backward()
    assert model.weight.grad.abs().sum() > 0


def test_autocast_stays_as_the_caller_set_it_and_is_seen_by_the_pass(tmp_path):
    model = make_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        checkpoint = inspect(model, make_loader(), run=tmp_path)
        assert torch.is_autocast_enabled("cpu")
        # Casted weights are cached in this context: made without a gradient, they would stop the training.
        functional.cross_entropy(model(INPUTS), TARGETS).backward()
    assert checkpoint.provenance.source_dtype == "bfloat16"
    assert all(parameter.grad is not None for parameter in model.parameters())


def table():
    return torch.linspace(0.5, 1.5, CLASSES)


@functools.lru_cache
def cached_table(classes):
    return torch.linspace(0.5, 1.5, classes)


KEPT_GLOBALLY = {}


class Caching(nn.Module):
    """Multiplies its logits by a table that the first forward pass makes and a later one finds."""

    of_the_class = None

    def __init__(self, find):
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("buffer", None)
        self.kept = None
        self.find = find
        self.in_closure = functools.lru_cache(table)

    def forward(self, inputs):
        return self.layer(inputs) * self.find(self)


def keep(value):
    """Return how to find a table inside what `value()` makes, kept as an attribute of the model."""

    def find(model):
        if model.kept is None:
            model.kept = value()
        kept = model.kept
        while not isinstance(kept, torch.Tensor):
            kept = kept.inner if isinstance(kept, SimpleNamespace) else next(iter(kept))
        return kept

    return find


def in_the_class(model):
    if Caching.of_the_class is None:
        Caching.of_the_class = table()
    return Caching.of_the_class


def in_a_hook(model):
    if not model.layer._forward_hooks:
        model.kept = []
        model.layer.register_forward_hook(lambda *_: model.kept.append(table()))
        model.layer(INPUTS)
    return model.kept[0]


def in_a_buffer(model):
    if model.buffer is None:
        model.buffer = table()
    return model.buffer


PLACES = {
    "attribute": keep(table),
    "tuple": keep(lambda: (table(), table())),
    "list": keep(lambda: [table()]),
    "set in a tuple in a list": keep(lambda: [({table()},)]),
    "object": keep(lambda: SimpleNamespace(inner=SimpleNamespace(inner=table()))),
    "buffer": in_a_buffer,
    "dict of the module": lambda model: KEPT_GLOBALLY.setdefault("table", table()),
    "lru_cache": lambda model: cached_table(CLASSES),
    "closure": lambda model: model.in_closure(),
    "class": in_the_class,
    "hook": in_a_hook,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("context", [contextlib.nullcontext, torch.inference_mode])
def test_tensors_a_model_keeps_from_the_inspection_can_be_trained_with(tmp_path, place, context):
    KEPT_GLOBALLY.clear(), cached_table.cache_clear()
    Caching.of_the_class = None
    model = Caching(PLACES[place])
    with context():
        inspect(model, make_batches(), run=tmp_path, epoch=0)
    functional.cross_entropy(model(INPUTS), TARGETS).backward()
    assert model.layer.weight.grad.abs().sum() > 0


def test_a_table_that_has_grown_stays():
    """Its size is kept beside it: putting the old one back would leave the two in contradiction."""

    class Growing(Caching):
        size = 0

        def forward(self, inputs):
            if len(inputs) > self.size:
                self.size, self.buffer = len(inputs), torch.arange(float(len(inputs)))
            return self.layer(inputs) + self.buffer[: len(inputs), None]

    model = Growing(None)
    model(INPUTS[:2])
    with Interrupts() as interrupts, undisturbed(model, [], interrupts=interrupts):
        model(INPUTS)
    assert len(model.buffer) == model.size == SAMPLES
    model(INPUTS[:10])


def test_a_model_made_in_inference_mode_may_change_its_buffers_there(tmp_path):
    with torch.inference_mode():
        model = nn.Sequential(Stubborn(FEATURES), nn.Linear(FEATURES, CLASSES))
        before = snapshot(model)
        inspect(model, make_batches(), run=tmp_path, check=True)
        assert_untouched(model, before)


def test_a_compiled_model_trains_on(tmp_path):
    model = make_model()
    compiled = torch.compile(model, backend="eager")
    before = snapshot(model)
    inspect(compiled, make_batches(), run=tmp_path, epoch=0)
    assert_untouched(model, before)
    functional.cross_entropy(compiled(INPUTS), TARGETS).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_between_forward_and_backward_nothing_is_written(tmp_path):
    """Not even the same value: autograd counts writes, and refuses a backward pass after them."""
    model, inputs = make_model(), INPUTS.clone().requires_grad_()
    loss = functional.cross_entropy(model(inputs), TARGETS)
    versions = [tensor._version for tensor in model.state_dict(keep_vars=True).values()]
    inspect(model, make_batches(), run=tmp_path)
    assert [tensor._version for tensor in model.state_dict(keep_vars=True).values()] == versions
    loss.backward()
    assert inputs.grad.abs().sum() > 0


def test_gradients_are_the_same_objects_afterwards(tmp_path):
    model = make_model()
    functional.cross_entropy(model(INPUTS), TARGETS).backward()
    model[0].bias.grad = None
    before = [parameter.grad for parameter in model.parameters()]
    inspect(model, make_batches(), run=tmp_path)
    after = [parameter.grad for parameter in model.parameters()]
    assert [id(gradient) for gradient in after] == [id(gradient) for gradient in before]


def test_memory_that_does_not_change_is_not_written(tmp_path):
    """It may be a file's, or as here one number for all: writing to that is an error."""
    model = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    model.register_buffer("scale", torch.ones(1).expand(1000))
    inspect(model, make_batches(), run=tmp_path)


def test_a_weight_stays_in_the_memory_that_it_shares(tmp_path):
    """Optimizers and wrappers keep all weights in one block, and write to that."""

    class Renormalising(nn.Linear):
        def forward(self, inputs):
            self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.1)
            return super().forward(inputs)

    model, block = Renormalising(FEATURES, CLASSES), torch.ones(CLASSES, FEATURES)
    model.weight.data = block
    inspect(model, make_batches(), run=tmp_path)
    assert torch.equal(model.weight, torch.ones(CLASSES, FEATURES))
    block.zero_()
    assert not model.weight.any()


def test_what_is_too_large_to_be_copied_is_named_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(model_state, "_MAX_COPIED", 600)  # the buffers, not the first weight

    class Writing(nn.Linear):
        def forward(self, inputs):
            with torch.no_grad():
                self.weight.add_(0.1)
            return super().forward(inputs)

    model = nn.Sequential(Writing(FEATURES, 30), nn.BatchNorm1d(30), nn.Linear(30, CLASSES))
    for epoch in (1, 2):
        inspect(model, make_batches(), run=tmp_path, epoch=epoch, check=False)
    assert [record.message for record in caplog.records] == [
        "in eval mode the model changes 0.weight, which inspect did not copy (it copies 0 MiB at most), so "
        "the training goes on from other values than without the inspection; if that matters, save and "
        "restore them around inspect"
    ]


def test_memory_that_another_process_may_be_training_is_not_written(tmp_path):
    model = make_model().share_memory()

    def forward(model, batch):
        model[4].bias.data.add_(1)  # as if the other process did
        return model(batch[0]), batch[1]

    before = model[4].bias.clone()
    inspect(model, [(INPUTS, TARGETS)], run=tmp_path, forward=forward, check=False)
    assert torch.equal(model[4].bias, before + 1)


def test_one_failure_to_put_back_does_not_stop_the_others(tmp_path):
    class Failing(nn.Linear):
        def train(self, mode=True):
            if mode:
                raise BoomError("in train()")
            return super().train(mode)

    model = nn.Sequential(nn.Linear(FEATURES, 8), Failing(8, CLASSES), nn.Dropout())
    state = torch.get_rng_state()
    with pytest.raises(BoomError):
        inspect(model, make_loader(shuffle=True), run=tmp_path)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("context", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_is_kept(tmp_path, context):
    with context():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        inspect(make_model(), make_batches(), run=tmp_path)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_no_gradient_graph_is_kept(tmp_path):
    model = make_model()
    seen = []

    def forward(model, batch):
        seen.append(model(batch[0]))
        return seen[-1], batch[1]

    inspect(model, make_batches(), run=tmp_path, forward=forward)
    assert not any(one.requires_grad for one in seen)
    assert all(parameter.grad is None for parameter in model.parameters())
