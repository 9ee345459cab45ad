"""Why does a lower learning rate help a model that overfits, and how can loss and accuracy rise together?

The thread trains a ResNet18 on CIFAR-10: SGD with learning rate 0.1, Nesterov momentum 0.9, weight decay
1e-4; the rate falls to a fifth at epochs 60, 120 and 160 of 200. It asks about three stretches of its curves:

- red box: between the first drop and the second, from epoch 65 to 70 on, the validation loss rises
- green box: at the second drop loss and accuracy improve at once
- blue box: from then on the loss rises, and the accuracy improves all the same

With --data DIR (CIFAR-10 or your own images) this is that training. Where the thread does not say, the
usual is used: batches of 128, and images shifted at random (its training loss lies above the validation
loss for a while).

Without --data it is scaled to three minutes on one core: a narrow network, 40 epochs, batches of 64, and
digits, each cut to a window of 16 of its 28 pixels at a random place and not shifted. Whole digits are so
easy that no loss rises. The green box is weak then: the few digits are nearly learned by heart before the
second drop, which has little noise left to reduce.

    python examples/t1_lr_drops.py [--data DIR] [--epochs N] [--width N] [--subset N] [--out PAGE] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import confshift
from images import Images, load_images

QUESTION = "Why does an LR drop help a model that overfits, and how can loss and accuracy both rise?"
RUN = Path("runs/t1_lr_drops")
PAGE = Path("reports/t1_lr_drops.html")
#: The thread's drops at epochs 60, 120 and 160 of 200.
DROPS = (0.3, 0.6, 0.8)
QUANTITIES = ["loss", "refinement_loss", "calibration_loss", "accuracy"]


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Return the features of the next block."""
        return torch.relu(self.inner(features) + self.shortcut(features))


def resnet18(channels: int, classes: int, *, width: int) -> nn.Sequential:
    """Return a ResNet18 for small images: a 3x3 convolution first, no pooling; width 64 is the usual one."""
    stem = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    widths = [width, *(width << stage for stage in range(4))]
    blocks = []
    for stage, (before, after) in enumerate(pairwise(widths)):
        blocks += [Block(before, after, 2 if stage else 1), Block(after, after, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)]
    return nn.Sequential(*stem, *blocks, *head)


def shifted(pixels: Tensor, *, by: int) -> Tensor:
    """Shift each image of a batch by up to this many pixels in both directions; fill with zeros."""
    size = pixels.shape[-1]
    places = torch.randint(2 * by + 1, (len(pixels), 2)).tolist()
    windows = zip(nn.functional.pad(pixels, (by, by, by, by)), places, strict=True)
    return torch.stack([image[:, top : top + size, left : left + size] for image, (top, left) in windows])


def train(
    model: nn.Module,
    training: Images,
    validation: Images,
    run: confshift.Run,
    *,
    epochs: int,
    batch: int,
    shift: int,
) -> None:
    """Train by the thread's recipe; inspect validation images and a fixed part of the training images."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drop_epochs(epochs), gamma=0.2)
    train_loader = DataLoader(training, batch_size=batch, shuffle=True)
    train_probe = DataLoader(training.split(0.2)[0], batch_size=500)
    val_loader = DataLoader(validation, batch_size=500)
    for _ in range(epochs):
        model.train()
        for pixels, targets in train_loader:
            optimizer.zero_grad()
            cross_entropy(model(shifted(pixels, by=shift)), targets).backward()
            optimizer.step()
        rate = {"lr": schedule.get_last_lr()[0]}
        schedule.step()
        result = confshift.inspect(model, val_loader, run=run, metadata=rate)
        confshift.inspect(model, train_probe, run=run, split="train", metadata=rate)
        metrics = result.metrics()
        print(
            f"epoch {result.epoch:3g}  lr {rate['lr']:.4f}  loss {metrics['loss']:.3f}  "
            f"accuracy {metrics['accuracy']:.3f}"
        )
    run.flush()


def drop_epochs(epochs: int) -> list[int]:
    """Return the epochs after which the learning rate falls."""
    return [round(share * epochs) for share in DROPS]


def around_drop(history: confshift.History, drop: int) -> pd.DataFrame:
    """Return what loss, refinement, calibration and accuracy were just before and just after a drop.

    Columns: before (mean of five epochs), after (mean of three), and the jitter on both sides: the standard
    deviation of the steps from epoch to epoch, over eight epochs, divided by the root of 2.
    """
    table = history.table[history.table["split"] == "val"].set_index("epoch")[QUANTITIES]
    sides = table.loc[drop - 7 : drop], table.loc[drop + 1 : drop + 8]
    jitter = [side.diff().std() / 2**0.5 for side in sides]
    return pd.DataFrame(
        {
            "before": sides[0].tail(5).mean(),
            "after": sides[1].head(3).mean(),
            "jitter_before": jitter[0],
            "jitter_after": jitter[1],
        }
    )


def answer(run: confshift.Run) -> list[str]:
    """Answer for each of the three boxes in a sentence from the run's own numbers."""
    checkpoints = run.checkpoints()
    _, second, _ = drop_epochs(len(checkpoints))
    return [
        red([checkpoint for checkpoint in checkpoints if checkpoint.epoch <= second]),
        green(around_drop(confshift.summarize(checkpoints), second), second),
        blue([checkpoint for checkpoint in checkpoints if checkpoint.epoch > second]),
    ]


def red(checkpoints: Sequence[confshift.Checkpoint]) -> str:
    """Say whether and since when the loss rises before the second drop."""
    rise = confshift.summarize(checkpoints).rise
    status = rise["status"].str.replace("_", " ")
    loss = rise.loc["loss"]
    verdict = "does not rise systematically"
    if status["loss"] == "systematic":
        verdict = f"rises systematically, every epoch after {loss['since']:g} being worse than the lowest"
    return (
        f"Red box: before the second drop the loss {verdict} ({status['loss']}, {loss['best_value']:.3f} at "
        f"epoch {loss['best_epoch']:g}, {loss['last_value']:.3f} at epoch {loss['last_epoch']:g}); the rise "
        f"of the refinement loss is {status['refinement_loss']}, of the error rate {status['error_rate']}."
    )


def green(table: pd.DataFrame, drop: int) -> str:
    """Say what the second drop did, and to which part of the loss."""
    change = table["after"] - table["before"]
    jitter = (table["jitter_before"] ** 2 / 5 + table["jitter_after"] ** 2 / 3) ** 0.5  # of that change
    improved = change["refinement_loss"] < -2 * jitter["refinement_loss"]
    calmed = change["calibration_loss"] < -2 * jitter["calibration_loss"]
    verdict = {
        (True, True): "both what the model knows (refinement) and its over-confidence (calibration) improve",
        (
            True,
            False,
        ): "what the model knows (refinement) improves, its over-confidence (calibration) does not",
        (
            False,
            True,
        ): "over-confidence (calibration) falls, what the model knows (refinement) does not improve",
        (False, False): "neither refinement nor calibration improves beyond its jitter",
    }[improved, calmed]
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {row['before']:.3f} to {row['after']:.3f}"
        for name, row in table.iterrows()
    )
    return (
        f"Green box: at the drop after epoch {drop} {verdict}: {numbers}; the jitter of the loss goes from "
        f"{table.loc['loss', 'jitter_before']:.4f} to {table.loc['loss', 'jitter_after']:.4f}."
    )


def blue(checkpoints: Sequence[confshift.Checkpoint]) -> str:
    """Say how the accuracy can stand or improve while the loss rises."""
    history = confshift.summarize(checkpoints)
    comparison = confshift.compare(*history.pair)
    loss, accuracy = comparison.change.loc["loss"], comparison.change.loc["accuracy"]
    parts = comparison.cells.groupby("transition", observed=True)[["samples", "contribution"]].sum()
    samples, nats = parts["samples"], parts["contribution"]
    verdict = "the loss does not rise, or the accuracy falls with it"
    if loss["change_low"] > 0 and accuracy["change_high"] >= 0:
        better = "improves" if accuracy["change_low"] > 0 else "does not fall beyond sampling error"
        verdict = f"the loss rises and the accuracy {better}"
    return (
        f"Blue box: from epoch {comparison.before.epoch:g} to {comparison.after.epoch:g} {verdict} "
        f"({loss['change']:+.3f} nats, {100 * accuracy['change']:+.2f} points): the accuracy counts the "
        f"{samples['learned']} learned and {samples['forgotten']} forgotten images, which carry "
        f"{nats['learned'] + nats['forgotten']:+.3f} nats, while the {samples['stayed_wrong']} that stayed "
        f"wrong ({nats['stayed_wrong']:+.3f}) and the {samples['stayed_right']} that stayed right "
        f"({nats['stayed_right']:+.3f}) move the loss alone."
    )


def load(data: Path | None, *, quick: bool, subset: int | None) -> tuple[Images, Images]:
    """Return the training and the validation images, and print what differs from the thread."""
    if data is not None:
        training, validation = load_images(data, size=32)
    else:
        training, validation = (part.windows(16, seed=seed) for seed, part in enumerate(load_images(size=28)))
        print("Not as in the thread: digits, each through a random window of 16x16 pixels, for CIFAR-10.")
    if quick:
        training, validation = training.split(0.1)[0], validation.split(0.1)[0]
    if subset is not None:
        training = training.split(subset / len(training))[0]
    print(f"{len(training)} images to train on, {len(validation)} to validate.")
    return training.standardised(training), validation.standardised(training)


def options_from(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; defaults are the thread's with --data, and small without."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument(
        "--data", type=Path, help="your own images; see images.py for the forms of the folder"
    )
    parser.add_argument("--epochs", type=int, help="200 with --data, else 40")
    parser.add_argument("--width", type=int, help="channels of the first stage: 64 with --data, else 8")
    parser.add_argument("--subset", type=int, help="train on this many images only")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page")
    parser.add_argument("--quick", action="store_true", help="use a tenth of the images, as a quick test")
    options = parser.parse_args(arguments)
    options.epochs = options.epochs or (200 if options.data else 40)
    options.width = options.width or (64 if options.data else 8)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_from(arguments)
    print(QUESTION)
    if options.data is None:
        torch.set_num_threads(1)  # more threads don't help with images this small
    torch.manual_seed(0)
    training, validation = load(options.data, quick=options.quick, subset=options.subset)
    batch, shift = (128, 4) if options.data else (64, 0)
    print(
        f"{options.epochs} epochs (thread: 200), width {options.width} (64), learning rate to a fifth after "
        f"{drop_epochs(options.epochs)} (60, 120, 160); not told: batches of {batch}, shifts by {shift}."
    )
    run = confshift.Run(RUN)
    if run.exists():
        run.delete()
    model = resnet18(training.pixels.shape[1], len(training.classes), width=options.width)
    train(model, training, validation, run, epochs=options.epochs, batch=batch, shift=shift)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = confshift.report(run, options.out, thumbnail=validation)
    print(*(finding for finding in page.findings if finding.verdict in ("yes", "no")), "", sep="\n")
    history = confshift.summarize(run)
    for drop in drop_epochs(options.epochs):
        print(f"The drop after epoch {drop}:", around_drop(history, drop).round(4), "", sep="\n")
    print(*answer(run), sep="\n")
    print(f"The page: {options.out}")


if __name__ == "__main__":
    main()
