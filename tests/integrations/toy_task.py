"""The same data, network and truth for every trainer."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TRAIN, SAMPLES = 96, 103  # a prime: the last of the batches of 17 is one sample


class Task:
    """Three classes of eight numbers: 96 samples to train on, 103 to validate."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(TRAIN + SAMPLES, 8, generator=generator)
        targets = (inputs[:, :3] + 0.5 * torch.randn(len(inputs), 3, generator=generator)).argmax(1)
        self.train = TensorDataset(inputs[:TRAIN], targets[:TRAIN])
        self.val = TensorDataset(inputs[TRAIN:], targets[TRAIN:])
        self.inputs, self.targets = self.val.tensors

    def loaders(self, **options):
        return DataLoader(self.train, 16, shuffle=True), DataLoader(self.val, 17, **options)

    def assert_true(self, checkpoint, model, subset=slice(None)):
        """Compare each row with the model called on one sample after the other."""
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(row[None]) for row in self.inputs[subset]]).log_softmax(1).numpy()
        rows = checkpoint.predictions
        saved = rows.logits - np.log(np.exp(rows.logits.astype(float)).sum(1, keepdims=True))
        np.testing.assert_allclose(saved, logits, atol=1e-5)
        np.testing.assert_array_equal(rows.targets, self.targets[subset].numpy())
        np.testing.assert_array_equal(rows.sample_ids, np.arange(len(logits)))


def make_network(norm=nn.BatchNorm1d):
    """Return a small network with Dropout, the same each time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), norm(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
