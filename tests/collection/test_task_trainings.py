"""Small real trainings of each kind of task: every checkpoint has the training loop's own loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from confshift import Run, compare, inspect


class Reader(nn.Module):
    """Reads words in order."""

    def __init__(self, outputs):
        super().__init__()
        self.words, self.state = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, words):
        return self.head(self.state(self.words(words))[0])


def shapes(count):
    """Draw squares of two kinds on noise."""
    images, masks = 0.5 * torch.randn(count, 1, 8, 8), torch.zeros(count, 8, 8, dtype=torch.long)
    for image, mask in zip(images, masks, strict=True):
        (top, left), kind = torch.randint(0, 5, (2,)), int(torch.randint(1, 3, ()))
        mask[top : top + 3, left : left + 3] = kind
        image[0, top : top + 3, left : left + 3] += kind
    return images, masks


def sentences(count):
    """Draw texts in which a word follows from the one before, but for chance."""
    words = torch.randint(0, 20, (count, 1))
    for _ in range(7):
        words = torch.cat([words, (3 * words[:, -1:] + torch.randint(0, 3, (count, 1))) % 20], 1)
    return words, words


def tags(count):
    words, _ = sentences(count)
    found = (words + words.roll(1, 1)) % 3
    found[torch.rand(found.shape) < 0.2] = -100
    return words, found


def several(count):
    inputs = torch.randn(count, 6)
    return inputs, (inputs[:, :4] + torch.randn(count, 4) > 0.8) * 1.0


def rare(count):
    inputs = torch.randn(count, 6)
    return inputs, (inputs[:, 0] + torch.randn(count) > 1.8) * 1.0


def network(outputs):
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, outputs))


def of_words(z, y):
    return functional.cross_entropy(z.movedim(-1, 1), y)


def of_next_words(z, y):
    return of_words(z[:, :-1], y[:, 1:])


def of_one_logit(z, y):
    return functional.binary_cross_entropy_with_logits(z.squeeze(1), y)


#: Model, data, loss, and what inspect is told.
TRAININGS = {
    "pixels": (lambda: nn.Conv2d(1, 3, 3, padding=1), shapes, functional.cross_entropy, {}),
    "tokens": (lambda: Reader(3), tags, of_words, {}),
    "causal_lm": (lambda: Reader(20), sentences, of_next_words, {"task": "causal_lm"}),
    "multilabel": (
        lambda: network(4),
        several,
        functional.binary_cross_entropy_with_logits,
        {"task": "multilabel", "class_names": ["a", "b", "c", "d"]},
    ),
    "binary": (lambda: network(1), rare, of_one_logit, {"class_names": ["fine", "defect"]}),
}


@pytest.mark.parametrize("task", TRAININGS)
def test_each_checkpoint_of_a_training_has_its_own_loss_and_their_change_adds_up(tmp_path, task):
    torch.manual_seed(0)
    make, draw, loss, said = TRAININGS[task]
    model, (inputs, targets), held_out = make(), draw(32), draw(40)
    loader = DataLoader(TensorDataset(*held_out), 16, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    own = []
    for _ in range(2):
        for batch in torch.randperm(32).split(8):
            optimizer.zero_grad()
            loss(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        found = inspect(model, loader, run=tmp_path, **said)
        with torch.no_grad():
            own.append(loss(model(held_out[0]), held_out[1]).item())
        assert found.loss == pytest.approx(own[-1], abs=1e-5)
        assert found.provenance.task == task
    change = compare(*Run(tmp_path))
    assert change.change.loc["loss", "change"] == pytest.approx(own[1] - own[0], abs=2e-5)
