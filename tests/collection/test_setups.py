"""Set-ups in which an inspection might disturb a training: it ends bitwise the same, with and without."""

from __future__ import annotations

import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils import checkpoint as checkpointing
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler, Subset, default_collate
from toy_training import CLASSES, FEATURES, INPUTS, TARGETS, TRAIN_INPUTS, TRAIN_TARGETS

from confshift import inspect

SMALL = 24


# ---------------------------------------------------------------------- what may draw random numbers
GLOBAL_GENERATOR = np.random.default_rng(0)


def draw_globally():
    return GLOBAL_GENERATOR.random()


class Noisy(Dataset):
    """Adds noise that it asks `draw` for."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return SMALL

    def __getitem__(self, index):
        return TRAIN_INPUTS[index] + float(self.draw()), TRAIN_TARGETS[index]


class Slotted:
    __slots__ = ("generator",)

    def __init__(self):
        self.generator = random.Random(0)

    def __call__(self):
        return self.generator.random()


class OfClass:
    def draw(self):
        return self.generator.random()


class Composed:
    """As torchvision's Compose keeps its transforms."""

    def __init__(self):
        self.transforms = [SimpleNamespace(generator=np.random.RandomState(0))]

    def __call__(self):
        return self.transforms[0].generator.rand()


def in_a_closure():
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.rand((), generator=generator)


def of_a_class():
    OfClass.generator = random.Random(0)
    return OfClass().draw


def global_one():
    GLOBAL_GENERATOR.bit_generator.state = np.random.PCG64(0).state
    return lambda: draw_globally()


class Shuffling(Sampler):
    def __init__(self, size):
        self.size, self.generator = size, np.random.default_rng(0)

    def __iter__(self):
        return iter(self.generator.permutation(self.size).tolist())

    def __len__(self):
        return self.size


class NoisyCollation:
    def __init__(self):
        self.bits = np.random.MT19937(0)

    def __call__(self, samples):
        inputs, targets = default_collate(samples)
        return inputs + np.random.Generator(self.bits).random(), targets


def loader_of(dataset, **options):
    return lambda: DataLoader(dataset(), 6, **options)


def loader_with_sampler():
    dataset = Noisy(lambda: 0.0)
    return DataLoader(dataset, 6, sampler=Shuffling(SMALL))


def loader_with_collation():
    return DataLoader(Noisy(lambda: 0.0), 6, shuffle=True, collate_fn=NoisyCollation())


LOADERS = {
    "numpy generator of the dataset": loader_of(lambda: Noisy(np.random.default_rng(0).random)),
    "below a Subset": loader_of(
        lambda: Subset(Noisy(functools.partial(np.random.default_rng(0).normal, scale=0.1)), range(20))
    ),
    "below a ConcatDataset": loader_of(lambda: ConcatDataset([Noisy(Slotted()), Noisy(Composed())])),
    "in a closure": loader_of(lambda: Noisy(in_a_closure())),
    "of a class": loader_of(lambda: Noisy(of_a_class())),
    "global": loader_of(lambda: Noisy(global_one())),
    "of a sampler": loader_with_sampler,
    "of collate_fn": loader_with_collation,
}


# ---------------------------------------------------------------------- what a model may do
class Model(nn.Module):
    """A linear head; what is beside it is told by `step`."""

    step = None

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs):
        return self.head(inputs)


class InPlace(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs):
        self.count += 1
        self.mean.mul_(0.9).add_(0.1 * inputs.mean(0))
        return self.head(inputs - self.mean) / self.count


class Replaced(InPlace):
    def forward(self, inputs):
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
        return self.head(inputs - self.mean)


class BehindItsBack(InPlace):
    def forward(self, inputs):
        self.mean.data = 0.9 * self.mean.data + 0.1 * inputs.mean(0)
        self.count.data.add_(1)
        return self.head(inputs - self.mean) / self.count


class Renormalised(Model):
    def forward(self, inputs):
        self.head.weight.data = torch.renorm(self.head.weight.data, 2, 0, 0.3)
        return self.head(inputs)


class Averaged(Model):
    """Keeps a moving average of its weights, as a frozen parameter that its answers depend on."""

    def __init__(self):
        super().__init__()
        self.average = nn.Parameter(torch.zeros(CLASSES), requires_grad=False)

    def forward(self, inputs):
        with torch.no_grad():
            self.average.lerp_(self.head.bias, 0.1)
        return self.head(inputs) - self.average


class Rotating(Model):
    """Its embedding is renormalised in place wherever it is looked up."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, FEATURES, max_norm=0.5)

    def forward(self, inputs):
        return self.head(inputs + self.table((inputs[:, 0] > 0).long()))


class Adapting(Model):
    """Takes a backward pass of its own in forward, as test-time adaptation does."""

    def forward(self, inputs):
        with torch.enable_grad():
            self.head(inputs).logsumexp(1).mean().backward()
        return self.head(inputs)


class AdaptingByStep(Model):
    """As above, with an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.optimizer = torch.optim.SGD(self.head.parameters(), 0.01)

    def forward(self, inputs):
        if not self.training:
            with torch.enable_grad():
                self.optimizer.zero_grad()
                self.head(inputs).softmax(1).square().mean().backward()
                self.optimizer.step()
        return self.head(inputs)


class BufferWithGradient(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1, requires_grad=True))

    def forward(self, inputs):
        with torch.enable_grad():
            (self.head(inputs) * self.scale).sum().backward()
        return self.head(inputs) + self.scale.grad


class Observing(Model):
    """As quantisation's observers: a buffer grows in place with the first batch, and remembers it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("views", torch.zeros(4))
        self.register_buffer("part", self.views[:2])

    def forward(self, inputs):
        if not self.training:
            self.mean.resize_(FEATURES).copy_(inputs.mean(0))
            self.views += 1
        return self.head(inputs - (self.mean if len(self.mean) else 0)) + self.part.sum()


class Penalised(Model):
    def forward(self, inputs):
        with torch.enable_grad():
            inputs = inputs.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.head(inputs).logsumexp(1).sum(), inputs, create_graph=True)
            penalty = slope.square().sum(1, keepdim=True)
        return self.head(inputs + 0.1 * slope) - penalty


class Functional(Model):
    def forward(self, inputs):
        def energy(row):
            weights = dict(self.head.named_parameters())
            return torch.func.functional_call(self.head, weights, (row,)).logsumexp(0)

        return self.head(inputs + 0.1 * torch.func.vmap(torch.func.grad(energy))(inputs))


class Checkpointed(Model):
    def forward(self, inputs):
        return checkpointing.checkpoint(lambda x: self.head(x).tanh(), inputs, use_reentrant=False)


class Freezing(Model):
    def forward(self, inputs):
        if not self.training:
            self.head.bias.requires_grad_(False)
        return self.head(inputs)


class Merging(Model):
    """As LoRA's layers: merged in eval mode, and not quite the same when they come apart."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.full((CLASSES, FEATURES), 1e-3))

    def train(self, mode=True):
        if mode != self.training:
            self.head.weight.data += -self.extra.data if mode else self.extra.data
        return super().train(mode)

    def forward(self, inputs):
        return self.head(inputs) + (functional.linear(inputs, self.extra) if self.training else 0)


class Drawing(Model):
    """Noise from a generator of its own in eval mode too, and more from a hook's."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        other = np.random.default_rng(0)
        self.head.register_forward_hook(lambda module, inputs, output: output + other.random())

    def forward(self, inputs):
        return self.head(inputs + torch.randn(inputs.shape, generator=self.generator))


MODELS = {
    "buffers in place": InPlace,
    "buffers replaced": Replaced,
    "buffers by .data": BehindItsBack,
    "weight renormalised": Renormalised,
    "moving average": Averaged,
    "embedding with max_norm": Rotating,
    "backward in forward": Adapting,
    "optimizer in forward": AdaptingByStep,
    "buffer with a gradient": BufferWithGradient,
    "buffer resized in place": Observing,
    "gradient penalty": Penalised,
    "torch.func": Functional,
    "checkpointing": Checkpointed,
    "requires_grad": Freezing,
    "merging": Merging,
    "generators": Drawing,
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(FEATURES, CLASSES))),
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(FEATURES, CLASSES))),
    "BatchNorm without its own statistics": lambda: nn.Sequential(
        nn.BatchNorm1d(FEATURES, track_running_stats=False), nn.Linear(FEATURES, CLASSES)
    ),
}


# ---------------------------------------------------------------------- the comparison
def trained(make_model, make_loader, look):
    """Train two epochs, looking in the middle of every gradient that is accumulated; return what came out."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    loader, model = make_loader(), make_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        model.train()
        for number, (inputs, targets) in enumerate(loader):
            functional.cross_entropy(model(inputs.float()), targets).backward()
            if number == 0:
                look(model, loader)
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
    states = torch.rand(1), torch.tensor(np.random.rand()), torch.tensor(random.random())
    return [value.clone() for value in (*model.state_dict().values(), *states)]


def evaluate(model, loader):
    """Evaluate as people write it: the set-up is worth a test only where this does disturb."""
    model.eval()
    with torch.no_grad():
        for inputs, _ in loader:
            model(inputs.float())
    model.train()


@pytest.mark.parametrize("name", LOADERS)
def test_generators_of_a_shared_dataset_or_sampler_are_put_back(tmp_path, name):
    def as_float(model, batch):
        return model(batch[0].float()), batch[1]

    # The pass itself draws: another loader over the same dataset, sampler and collate_fn.
    def look(model, loader):
        other = DataLoader(loader.dataset, 6, sampler=loader.sampler, collate_fn=loader.collate_fn)
        inspect(model, other, run=tmp_path, forward=as_float)

    without = trained(Model, LOADERS[name], lambda *_: None)
    assert all(map(torch.equal, trained(Model, LOADERS[name], look), without))
    assert not all(map(torch.equal, trained(Model, LOADERS[name], evaluate), without))


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_changes_in_eval_mode_is_put_back(tmp_path, name):
    batches = list(zip(INPUTS[:20].split(8), TARGETS[:20].split(8), strict=True))
    dataset = list(zip(TRAIN_INPUTS[:SMALL], TRAIN_TARGETS[:SMALL], strict=True))

    def make_loader():
        return DataLoader(dataset, 6, shuffle=True)

    without = trained(MODELS[name], make_loader, lambda *_: None)
    looked = trained(
        MODELS[name], make_loader, lambda model, _: inspect(model, batches, run=tmp_path, check=True)
    )
    assert all(map(torch.equal, looked, without))
