"""A small training: 103 validation samples, a prime, so that last batches and shards are ragged."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

FEATURES, CLASSES, SAMPLES = 6, 3, 103


def make_data(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    centers = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(7))
    return centers[targets] + 1.3 * torch.randn(samples, FEATURES, generator=generator), targets


TRAIN_INPUTS, TRAIN_TARGETS = make_data(200, 1)
INPUTS, TARGETS = make_data(SAMPLES, 2)


def make_model(seed=0):
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    layers = nn.Linear(FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, CLASSES)
    torch.set_rng_state(generator_state)
    return nn.Sequential(*layers)


def make_loader(batch_size=16, **options):
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size, **options)


def make_batches(batch_size=16):
    return list(zip(INPUTS.split(batch_size), TARGETS.split(batch_size), strict=True))


def true_logits(model, inputs=INPUTS):
    """Evaluate one sample after the other, on a copy of the model's modes."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(row[None]) for row in inputs])
    for module, training in modes:
        module.training = training
    return logits.double().numpy()


def assert_same_logits(predictions, model, ids=None):
    """Check each row against the sample that its id says it is."""
    ids = predictions.sample_ids if ids is None else ids
    np.testing.assert_allclose(predictions.logits, true_logits(model)[ids], atol=1e-5)
    np.testing.assert_array_equal(predictions.targets, TARGETS.numpy()[ids])


def snapshot(model):
    """Return everything of a model that training depends on."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
