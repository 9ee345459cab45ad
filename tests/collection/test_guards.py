"""Whatever an inspection does, the training goes on as if it had not happened."""

from __future__ import annotations

import contextlib
import random

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


def test_autocast_stays_as_the_caller_set_it_and_is_seen_by_the_pass(tmp_path):
    model = make_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        checkpoint = inspect(model, make_loader(), run=tmp_path)
        assert torch.is_autocast_enabled("cpu")
        # Casted weights are cached in this context: made without a gradient, they would stop the training.
        functional.cross_entropy(model(INPUTS), TARGETS).backward()
    assert checkpoint.provenance.source_dtype == "bfloat16"
    assert all(parameter.grad is not None for parameter in model.parameters())


class Caching(nn.Module):
    """Keeps tensors that its first forward pass made, as position tables and masks are kept."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.scale = None
        self.tables = {}
        self.register_buffer("table", None)

    def forward(self, inputs):
        if self.scale is None:
            self.scale = torch.full((FEATURES,), 2.0)
            self.tables["shift"] = torch.zeros(FEATURES)
            self.table = torch.ones(CLASSES)
        return self.layer(inputs * self.scale * (1 + self.tables["shift"])) * self.table


def test_tensors_a_model_keeps_from_the_inspection_can_be_trained_with(tmp_path):
    model = Caching()
    inspect(model, make_batches(), run=tmp_path, epoch=0)
    inputs = INPUTS.clone().requires_grad_()
    functional.cross_entropy(model(inputs), TARGETS).backward()
    assert model.layer.weight.grad.abs().sum() > 0
    assert inputs.grad.abs().sum() > 0


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
