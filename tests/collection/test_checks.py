"""Does the model evaluate as one would think? Each check finds what it is there for, and disturbs nothing."""

from __future__ import annotations

import json
import logging
import signal

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import CLASSES, FEATURES, INPUTS, TARGETS, make_model

from confshift.collection.batches import Reader
from confshift.collection.model_checks import check_model

BATCH = INPUTS[:16], TARGETS[:16]


def check(model, batch=BATCH, **options):
    with torch.no_grad():
        found = check_model(Reader(model.eval(), **options), batch)
    json.dumps(found, allow_nan=False)
    return found


def test_an_ordinary_model_passes():
    found = check(make_model())
    assert list(found) == ["modes", "repeatable", "alone", "head", "buffers"]
    assert [one["status"] for one in found.values()] == ["passed", "passed", "passed", "measured", "measured"]
    assert found["repeatable"]["difference"] == 0
    assert found["modes"] == {"status": "passed", "count": 0, "modules": []}


class Restless(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


def test_active_dropout_is_found_and_logged(caplog):
    model = nn.Sequential(nn.Linear(FEATURES, 64), Restless(0.5), nn.Linear(64, CLASSES))
    with caplog.at_level(logging.WARNING, logger="confshift"):
        found = check(model)
    assert found["repeatable"]["status"] == "failed"
    assert found["repeatable"]["difference"] > 0.01
    assert found["modes"] == {"status": "failed", "count": 1, "modules": ["1"]}
    assert "check 'repeatable' failed" in caplog.text
    assert "the same batch gives other logits the second time: {'status': 'failed'" in caplog.text
    assert "some modules stay in training mode" in caplog.text


def test_a_model_that_looks_at_the_rest_of_the_batch_is_found():
    model = nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, CLASSES)
    )
    batch = (
        torch.stack([INPUTS[:16], INPUTS[16:32]], 1),
        TARGETS[:16],
    )  # two positions, so that one sample is enough

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, inputs):
            return self.inner(inputs.flatten(0, 1)).view(len(inputs), 2, CLASSES)[:, 0]

    found = check(Positions(), batch)
    assert found["modes"]["status"] == "passed"  # it is in eval mode, and still not itself
    assert found["alone"]["status"] == "failed"
    assert found["alone"]["difference"] > found["alone"]["tolerance"] == 1e-4


@pytest.mark.parametrize("batch", [(INPUTS[:1], TARGETS[:1]), {"input": INPUTS[:1], "y": TARGETS[:1]}])
def test_a_batch_of_one_says_nothing_about_being_alone(batch):
    assert check(make_model(), batch)["alone"] == {
        "status": "not made",
        "reason": "the first batch holds one sample",
    }


def test_a_sample_is_cut_out_of_every_kind_of_batch():
    for batch in (
        {"input": INPUTS[:16], "y": TARGETS[:16]},
        {"input": INPUTS[:16], "y": TARGETS[:16].tolist()},
        [INPUTS[:16], TARGETS[:16]],
        (INPUTS[:16], TARGETS[:16], {"paths": ["a"] * 16}),
    ):
        assert check(make_model(), batch)["alone"]["status"] == "passed"


def test_a_batch_that_cannot_be_cut_is_recorded_with_the_reason():
    found = check(make_model(), forward=lambda model, batch: (model(INPUTS[:16]), TARGETS[:16]))
    assert found["alone"]["status"] == "not made"
    assert "16 rows" in found["alone"]["reason"]


def test_an_error_in_a_check_is_its_reason():
    calls = []

    def forward(model, batch):
        calls.append(1)
        raise RuntimeError("out of memory")

    found = check(make_model(), forward=forward)
    for name in ("repeatable", "alone", "head"):
        assert found[name] == {"status": "not made", "reason": "RuntimeError: out of memory"}


def test_an_interrupt_is_not_swallowed():
    def forward(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(make_model(), forward=forward)


def test_an_interrupt_between_two_hooks_leaves_none_behind(monkeypatch):
    register = nn.Linear.register_forward_pre_hook

    def interrupted(module, hook):
        handle = register(module, hook)
        signal.raise_signal(signal.SIGINT)
        return handle

    model = make_model()
    monkeypatch.setattr(nn.Linear, "register_forward_pre_hook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_head_is_the_last_linear_with_one_output_per_class():
    model = make_model()
    head = check(model)["head"]
    with torch.no_grad():
        features = model[:4](INPUTS[:16]).numpy()
    assert head.pop("mean_squared_norm") == pytest.approx(np.mean(np.sum(features**2, axis=1)), rel=1e-5)
    assert head == {
        "status": "measured",
        "module": "4",
        "in_features": 32,
        "out_features": CLASSES,
        "bias": True,
        "zero_weights": False,
    }
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_of_zeros_is_told(bias):
    model = nn.Sequential(nn.Linear(FEATURES, CLASSES, bias=bias))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    head = check(model)["head"]
    assert (head["zero_weights"], head["bias"]) == (True, bias)


def test_a_head_that_is_no_linear_layer_is_not_made_up():
    class Prototype(nn.Module):
        def forward(self, inputs):
            return inputs[:, :CLASSES]

    assert check(Prototype())["head"] == {
        "status": "not made",
        "reason": "no nn.Linear with 3 outputs was called",
    }


def test_the_layers_of_a_compiled_model_are_seen():
    model = make_model()
    found = check(torch.compile(model, backend="eager"))
    assert found == check(model)
    assert found["head"]["module"] == "4"


def test_the_hash_of_the_buffers_tells_running_statistics_apart():
    first, second = make_model(), make_model()
    assert check(first)["buffers"] == check(second)["buffers"]
    with torch.no_grad():
        second[1].running_mean[3] += 1e-3
    assert check(first)["buffers"]["hash"] != check(second)["buffers"]["hash"]
    assert check(nn.Sequential(nn.Linear(FEATURES, CLASSES)))["buffers"]["count"] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_pass(dtype):
    found = check(make_model().to(dtype), (INPUTS[:16].to(dtype), TARGETS[:16]))
    assert [one["status"] for one in found.values()] == ["passed", "passed", "passed", "measured", "measured"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_do_not_stop_the_checks(value):
    model = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    nn.init.constant_(model[0].bias, value)
    found = check(model)
    assert found["repeatable"] == {"status": "passed", "difference": 0.0}
    assert found["alone"]["status"] == "passed"
