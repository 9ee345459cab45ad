"""A head on frozen features was trained for 45 epochs and the table stays flat: has overfitting begun?

The thread trains on features that a pretrained network computed once: 128 classes of furniture, 180,000
images, fast.ai with cycle_len=1 (SGD whose learning rate falls along a cosine in each epoch and starts anew
in the next). Its table of epochs 30 to 44 is flat: which epoch is best, and when does overfitting begin? And
once the network is unfrozen, will a head that was trained for so long on the old features have to change
dramatically?

No package ships 128 classes of images, so they are built: two handwritten digits from 0 to 7 side by side,
upright or upside down, make 8 x 8 x 2 classes. A digit is seen through a window of 16 of its 20 pixels at a
random place. Each validation digit is part of one number only, so that these are independent; a training
digit is part of about nine. The network is pretrained on a quarter of the training digits, one by one and
upright: like the thread's, it has seen neither these classes nor, upside down, such images. With --data the
classes are those of your images, and a quarter of the training images pretrains the network.

    python examples/t2_frozen_features.py [--data DIR] [--epochs N] [--out PAGE] [--quick]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from torch.utils.data import DataLoader, Dataset, TensorDataset

import confshift
from images import Images, load_images

QUESTION = (
    "The table of 45 epochs on frozen features is flat: has overfitting begun, and which epoch to keep?"
)
EPOCHS = 45
#: Lesson 1 of the thread: one or two epochs on precomputed features, then unfreeze.
EARLY = 2
UNFROZEN_EPOCHS = 6
RUNS = Path("runs/t2_frozen_features")


def numbers_of(digits: Images, count: int) -> Images:
    """Join digits 0 to 7 into `count` numbers of two digits, every other one upside down.

    All digits are used equally often: once each, if `count` is half of them.
    """
    digits = digits.of_classes(*"01234567")
    generator = torch.Generator().manual_seed(0)
    rounds = -(-2 * count // len(digits))
    order = torch.cat([torch.randperm(len(digits), generator=generator) for _ in range(rounds)])
    left, right = order[:count], order[count : 2 * count]
    pixels = torch.cat([digits.pixels[left], digits.pixels[right]], dim=3)
    upside_down = torch.arange(count) % 2
    pixels[upside_down == 1] = pixels[upside_down == 1].flip(2, 3)
    targets = (digits.targets[left] * 8 + digits.targets[right]) * 2 + upside_down
    names = tuple(f"{tens}{ones}{way}" for tens in range(8) for ones in range(8) for way in ("", " turned"))
    return replace(digits, pixels=pixels, targets=targets, classes=names)


def pretrain(images: Images) -> nn.Sequential:
    """Return a small network of convolutions, trained on these images, without its head."""
    channels, height, width = images.pixels.shape[1:]
    layers = []
    for before, after in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    backbone = nn.Sequential(*layers, nn.Flatten())
    model = nn.Sequential(backbone, nn.Linear(64 * (height // 8) * (width // 8), len(images.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    model.train()
    for _ in range(10):
        for pixels, targets in DataLoader(images, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(model(pixels), targets).backward()
            optimizer.step()
    return backbone


@torch.no_grad()
def precompute(backbone: nn.Module, images: Images) -> TensorDataset:
    """Return the features of the images, computed once."""
    backbone.eval()
    features = [backbone(pixels) for pixels, _ in DataLoader(images, batch_size=500)]
    return TensorDataset(torch.cat(features), images.targets)


def new_head(features: int, classes: int) -> nn.Sequential:
    """Return a head of two layers with the BatchNorm and dropout that fast.ai's has."""
    return nn.Sequential(
        nn.BatchNorm1d(features),
        nn.Dropout(0.25),
        nn.Linear(features, 256),
        nn.ReLU(),
        nn.BatchNorm1d(256),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    )


class Smoothed:
    """The trn_loss of fast.ai's table: a mean of the batches in which recent ones weigh most."""

    def __init__(self) -> None:
        self.sum = self.weight = 0.0

    def add(self, loss: float) -> float:
        """Return the mean with one more batch in it."""
        self.sum = 0.98 * self.sum + 0.02 * loss
        self.weight = 0.98 * self.weight + 0.02
        return self.sum / self.weight


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    schedule: CosineAnnealingWarmRestarts,
    smoothed: Smoothed,
) -> float:
    """Train for one cycle of the learning rate, which is one epoch; return trn_loss."""
    model.train()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        schedule.step()
        trn_loss = smoothed.add(loss.item())
    return trn_loss


def train_head(
    head: nn.Module,
    training: Dataset,
    validation: Dataset,
    run: confshift.Run,
    names: Sequence[str],
    *,
    epochs: int,
) -> nn.Module:
    """Train a head on features; return a copy as it was after the first epochs."""
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9)
    train_loader = DataLoader(training, batch_size=64, shuffle=True, drop_last=True)
    val_loader = DataLoader(validation, batch_size=500)
    schedule = CosineAnnealingWarmRestarts(optimizer, T_0=len(train_loader))
    smoothed = Smoothed()
    confshift.inspect(head, val_loader, run=run, epoch=0, class_names=names)
    for epoch in range(1, epochs + 1):
        trn_loss = train_epoch(head, train_loader, optimizer, schedule, smoothed)
        numbers = {"trn_loss": trn_loss, "lr": schedule.base_lrs[0]}  # the highest of the cycle
        confshift.inspect(head, val_loader, run=run, class_names=names, metadata=numbers)
        if epoch <= EARLY:
            early = copy.deepcopy(head)
    run.flush()
    return early


def train_unfrozen(
    backbone: nn.Module, head: nn.Module, training: Images, validation: Images, run: confshift.Run
) -> None:
    """Train backbone and head on the images themselves; the backbone at a fifth of the learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(copy.deepcopy(backbone), copy.deepcopy(head))
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.004}, {"params": model[1].parameters(), "lr": 0.02}],
        momentum=0.9,
    )
    train_loader = DataLoader(training, batch_size=64, shuffle=True, drop_last=True)
    val_loader = DataLoader(validation, batch_size=500)
    schedule = CosineAnnealingWarmRestarts(optimizer, T_0=len(train_loader))
    smoothed = Smoothed()
    confshift.inspect(model, val_loader, run=run, epoch=0)
    for _ in range(UNFROZEN_EPOCHS):
        trn_loss = train_epoch(model, train_loader, optimizer, schedule, smoothed)
        moves = {"backbone": moved_since(backbone, model[0]), "head": moved_since(head, model[1])}
        confshift.inspect(model, val_loader, run=run, metadata={"trn_loss": trn_loss, **moves})
    run.flush()


def moved_since(before: nn.Module, after: nn.Module) -> float:
    """Return by what share of their length the weights have moved."""
    old, new = (
        torch.cat([weight.detach().flatten() for weight in net.parameters()]) for net in (before, after)
    )
    return float((new - old).norm() / old.norm())


def table(run: confshift.Run, *, first: float) -> str:
    """Return fast.ai's table from epoch `first` on, with columns beside it that it lacks."""
    checkpoints = run.checkpoints()
    history = confshift.summarize(checkpoints)
    in_set = in_best_sets([checkpoint for checkpoint in checkpoints if checkpoint.epoch >= first])
    rows = history.table.set_index("epoch")
    lines = [
        "epoch  trn_loss  val_loss  accuracy  |  ± loss  refinement  temperature  as good as the best by"
    ]
    for checkpoint in checkpoints:
        if checkpoint.epoch >= first:
            row = rows.loc[checkpoint.epoch]
            lines.append(
                f"{checkpoint.epoch:5g}  {checkpoint.metadata['trn_loss']:8.4f}  {row['loss']:8.4f}  "
                f"{row['accuracy']:8.4f}  |  {row['loss_se']:6.4f}  {row['refinement_loss']:10.4f}  "
                f"{row['temperature']:11.2f}  "
                f"{', '.join(name for name, epochs in in_set.items() if checkpoint.epoch in epochs)}"
            )
    return "\n".join(lines)


def in_best_sets(checkpoints: Sequence[confshift.Checkpoint]) -> dict[str, list[float]]:
    """Return, for each criterion, the epochs that can't be told from the best of these checkpoints."""
    candidates = confshift.summarize(checkpoints).candidates
    members = candidates[candidates["in_set"]]
    return {name: list(members.loc[name].index) for name in ("loss", "refinement_loss", "accuracy")}


def answer(runs: dict[str, confshift.Run]) -> list[str]:
    """Answer in three sentences from the runs' own numbers."""
    return [told_apart(runs["frozen"]), overfitting(runs["frozen"]), unfreezing(runs)]


def last_third(run: confshift.Run) -> list[confshift.Checkpoint]:
    """Return the checkpoints that the thread's table shows: from two thirds of the epochs on."""
    return run.checkpoints()[-max(1, len(run.epochs) // 3) :]


def told_apart(run: confshift.Run) -> str:
    """Say whether any epoch of the thread's table differs from the best of them."""
    checkpoints = last_third(run)
    losses = {checkpoint.epoch: checkpoint.metrics()["loss"] for checkpoint in checkpoints}
    sets = in_best_sets(checkpoints)
    best = min(losses, key=losses.__getitem__)
    rest = [f"{epoch:g}" for epoch in losses if epoch not in sets["loss"]]
    verdict = f"only {', '.join(rest)}" if rest else "none"
    resolution = confshift.summarize(checkpoints).rise.loc["loss", "resolution"]
    return (
        f"Of the epochs {checkpoints[0].epoch:g} to {checkpoints[-1].epoch:g} {verdict} can be told from the "
        f"best by loss, epoch {best:g} ({len(sets['accuracy'])} of {len(checkpoints)} are as good by "
        f"accuracy): losses from {min(losses.values()):.4f} to {max(losses.values()):.4f}, and what "
        f"{len(checkpoints[0].predictions.targets):,} images can resolve at the last is "
        f"{resolution:.4f} nats."
    )


def overfitting(run: confshift.Run) -> str:
    """Say whether the model has begun to get worse, and which checkpoint to keep."""
    history = confshift.summarize(run)
    rise, best = history.rise, history.best
    kind = next(finding for finding in confshift.diagnose(history) if finding.code == "run_kind")
    opening = {"yes": "Overfitting has begun", "no": "Overfitting has not begun"}.get(
        kind.verdict, "Whether overfitting has begun can't be told"
    )
    series = "; ".join(
        f"{name.replace('_', ' ')} {row['status'].replace('_', ' ')}, {row['best_value']:.4f} at epoch "
        f"{row['best_epoch']:g} and {row['last_value']:.4f} at the last"
        for name, row in rise.iterrows()
    )
    plain, calibrated = best.loc["loss"], best.loc["refinement_loss"]
    return (
        f"{opening} ({kind.evidence['kind'].iloc[0].replace('_', ' ')}: {series}); keep epoch "
        f"{calibrated['epoch']:g} with its temperature of {calibrated['temperature']:.2f}, loss "
        f"{calibrated['refinement_loss']:.4f}, where the lowest loss without one is {plain['loss']:.4f}, at "
        f"epoch {plain['epoch']:g}."
    )


def unfreezing(runs: dict[str, confshift.Run]) -> str:
    """Say what changes when the backbone is trained as well, and whether the long training was in the way."""
    run, early = runs["unfrozen"], runs["unfrozen early"]
    first, last = run.epochs[1], run.epochs[-1]
    frozen = runs["frozen"][runs["frozen"].epochs[-1]]
    gained = confshift.compare(frozen, run[last])
    shock = confshift.compare(frozen, run[first]).change.loc["loss"]
    longer = confshift.compare(early[last], run[last]).change.loc["loss"]
    loss, accuracy = gained.change.loc["loss"], gained.change.loc["accuracy"]
    samples = gained.cells.groupby("transition", observed=True)["samples"].sum()
    moves, short = run[last].metadata, min(EARLY, frozen.epoch)
    return (
        f"Unfrozen for {last:g} epochs the loss {direction(loss)} from {loss['before']:.3f} to "
        f"{loss['after']:.3f} and the accuracy goes from {accuracy['before']:.1%} to {accuracy['after']:.1%} "
        f"({samples['learned']} learned, {samples['forgotten']} forgotten); the first of them changes the "
        f"loss by {shock['change']:+.3f}, the weights of the head move by {moves['head']:.0%} of their "
        f"length and those of the network below by {moves['backbone']:.0%}; to have trained the head for "
        f"{frozen.epoch:g} epochs before instead of {short:g} {harm(longer)} ({longer['change']:+.3f} nats, "
        f"{longer['change_low']:+.3f} to {longer['change_high']:+.3f})."
    )


def direction(row: pd.Series) -> str:
    """Name the direction of a change that is beyond its error."""
    if row["change_low"] > 0:
        return "rises"
    return "falls" if row["change_high"] < 0 else "moves, not beyond its error,"


def harm(longer: pd.Series) -> str:
    """Name what the longer training of the head did to the loss after unfreezing."""
    if longer["change_low"] > 0:
        return "was a disadvantage"
    return "was an advantage" if longer["change_high"] < 0 else "made no difference that can be told"


def load(data: Path | None, *, quick: bool) -> tuple[Images, Images, Images]:
    """Return the images to pretrain with, to train with and to validate with."""
    if data is not None:
        training, validation = load_images(data, size=32)
    else:
        training, validation = (part.windows(16, seed=seed) for seed, part in enumerate(load_images(size=20)))
    if quick:
        training, validation = training.split(0.2)[0], validation.split(0.2)[0]
    reference = training
    pretraining, training = training.split(0.25)
    if data is None:
        training = numbers_of(training, 1280 if quick else 6400)
        validation = numbers_of(validation, len(validation) * 2 // 5)
    print(
        f"{len(pretraining)} images of {len(pretraining.classes)} classes pretrain the network; "
        f"{len(training)} of {len(training.classes)} train (thread: 180,000 of 128), {len(validation)} "
        "validate."
    )
    return tuple(images.standardised(reference) for images in (pretraining, training, validation))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument(
        "--data", type=Path, help="your own images; see images.py for the forms of the folder"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=Path("reports/t2_frozen_features.html"), help="the page")
    parser.add_argument("--quick", action="store_true", help="use a fifth of the images, as a quick test")
    options = parser.parse_args(arguments)
    print(QUESTION)
    if options.data is None:
        torch.set_num_threads(1)  # images this small gain nothing from more
    torch.manual_seed(0)
    pretraining, training, validation = load(options.data, quick=options.quick)
    runs = {
        name: confshift.Run(RUNS / name.replace(" ", "_"))
        for name in ("frozen", "unfrozen", "unfrozen early")
    }
    for run in runs.values():
        if run.exists():
            run.delete()
    backbone = pretrain(pretraining)
    features = [precompute(backbone, images) for images in (training, validation)]
    head = new_head(features[0].tensors[0].shape[1], len(training.classes))
    early = train_head(head, *features, runs["frozen"], training.classes, epochs=options.epochs)
    train_unfrozen(backbone, head, training, validation, runs["unfrozen"])
    train_unfrozen(backbone, early, training, validation, runs["unfrozen early"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = confshift.report(runs["frozen"], options.out, thumbnail=validation)
    print(*(finding for finding in page.findings if finding.verdict in ("yes", "no")), sep="\n")
    print("", "On frozen features (the thread counts its epochs from 0):", sep="\n")
    print(table(runs["frozen"], first=last_third(runs["frozen"])[0].epoch))
    print("", f"Unfrozen after {options.epochs} epochs:", table(runs["unfrozen"], first=1), sep="\n")
    print("", *answer(runs), sep="\n")
    print(f"The page: {options.out}")


if __name__ == "__main__":
    main()
