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

    python examples/t1_lr_drops.py [--data DIR] [--epochs N] [--width N] [--subset N] [--seed N]
                                   [--run FOLDER] [--out PAGE] [--quick]
    python examples/t1_lr_drops.py --answer RUN [RUN ...]

The second form trains nothing: it answers from stored runs, the green box from all of them together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit
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
#: The parts of a loss, which add up to it.
PARTS = {"scale_loss": "scale", "balance_loss": "class balance", "refinement_loss": "the rest"}
QUANTITIES = ["loss", *PARTS, "accuracy"]


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


def stages(run: confshift.Run) -> list[list[confshift.Checkpoint]]:
    """Return the checkpoints of each learning rate, in order."""
    return [list(stage) for _, stage in groupby(run.checkpoints(), key=lambda one: one.metadata["lr"])]


def level(checkpoints: Sequence[confshift.Checkpoint]) -> pd.DataFrame:
    """Return a row per image: the mean over these epochs of each quantity."""
    columns = [one.columns.rename(columns={"correct": "accuracy"})[QUANTITIES] for one in checkpoints]
    return sum(one.astype(float) for one in columns) / len(columns)


def moved_by_drop(runs: Sequence[confshift.Run], number: int = 2) -> pd.DataFrame:
    """Return what the drop of this number changed: a row for the loss, each of its parts and the accuracy.

    The level before it is the mean of up to five epochs, the one after it of up to three, as in
    `History.rate_drops`. Columns: change, the mean over the runs; low and high, its 95 % interval; smallest
    and largest, of the runs. The interval is for other images and other epochs: its variance is that of the
    images' own differences, averaged over the runs, and that of the jitter from epoch to epoch, as
    `History.rate_drops` measures it. NaN where fewer than three epochs around the drop show no jitter.
    """
    differences, jitters = [], []
    for run in runs:
        before, after = stages(run)[number - 1 : number + 1]
        differences.append(level(after[:3]) - level(before[-5:]))
        drop = confshift.summarize(run).rate_drops.loc[after[0].epoch]
        names = [name.replace("accuracy", "error_rate") for name in QUANTITIES]
        jitters.append([drop[f"{name}_jitter"] for name in names])
    by_run = pd.DataFrame([one.mean() for one in differences])
    variance = (sum(differences) / len(runs)).sem() ** 2 + (np.square(jitters).sum(axis=0) / len(runs) ** 2)
    reach = stdtrit(7 * len(runs), 0.975) * variance**0.5  # so well do a run's epochs know their jitter
    change = by_run.mean()
    return pd.DataFrame(
        {
            "change": change,
            "low": change - reach,
            "high": change + reach,
            "smallest": by_run.min(),
            "largest": by_run.max(),
        }
    )


def averaged(runs: Sequence[confshift.Run]) -> pd.Series:
    """Return by how much the mean logits of the five epochs before the second drop are better than each.

    A smaller step averages the noise of the training over more images; a mean of logits averages it without
    any training. By quantity, as in `moved_by_drop`.
    """
    gains = []
    for run in runs:
        before = stages(run)[1][-5:]
        logits = sum(np.asarray(one.predictions.logits, np.float64) for one in before) / len(before)
        predictions = confshift.Predictions(logits, before[0].predictions.targets)
        merged = confshift.Checkpoint.from_predictions(predictions, epoch=0)
        gains.append(level([merged]).mean() - level(before).mean())
    return sum(gains) / len(gains)


def answer(runs: Sequence[confshift.Run]) -> list[str]:
    """Answer for each of the three boxes from the runs' own numbers, for the green one from all together."""
    boxes = [stages(run) for run in runs]
    return [
        *(red([*first, *second]) for first, second, *_ in boxes),
        green(moved_by_drop(runs), len(runs)),
        noise(moved_by_drop(runs)["change"], averaged(runs)),
        *(blue([one for stage in later for one in stage]) for _, _, *later in boxes),
    ]


def red(checkpoints: Sequence[confshift.Checkpoint]) -> str:
    """Say whether, since when and in which part the loss rises before the second drop."""
    history = confshift.summarize(checkpoints)
    status = history.rise["status"].str.replace("_", " ")
    since = history.rise.loc["loss", "since"]
    verdict = "does not rise systematically"
    if status["loss"] == "systematic":
        verdict = f"rises systematically, every epoch after {since:g} being worse than the lowest"
    before, after = pair_by_loss(history)
    change = confshift.compare(before, after).change
    loss = change.loc["loss"]
    return (
        f"Red box: before the second drop the loss {verdict} ({status['loss']}, {loss['before']:.3f} at "
        f"epoch {before.epoch:g}, {loss['after']:.3f} at epoch {after.epoch:g}: {loss['change']:+.3f} nats, "
        f"{in_parts(change['change'], change['change_low'], change['change_high'])}); the rise of the "
        f"refinement loss is {status['refinement_loss']}, of the error rate {status['error_rate']}."
    )


def in_parts(change: pd.Series, low: pd.Series | None = None, high: pd.Series | None = None) -> str:
    """Write the three parts of a change of the loss, such that they add up to it, with any intervals."""
    shown = change[list(PARTS)].round(3)
    shown[shown.abs().idxmax()] += round(change["loss"], 3) - shown.sum()
    words = [f"{PARTS[name]} {shown[name]:+.3f}" for name in shown.index]
    if low is not None and high is not None:
        words = [
            f"{one} ({low[name]:+.3f} to {high[name]:+.3f})" for one, name in zip(words, PARTS, strict=True)
        ]
    return ", ".join(words[:-1]) + f" and {words[-1]}"


def green(table: pd.DataFrame, runs: int) -> str:
    """Say whether the second drop helped, and through which part of the loss."""
    change, low, high = table["change"], table["low"], table["high"]
    fallen = [name for name in change[list(PARTS)].sort_values().index if high[name] < 0]
    if np.isnan(high["loss"]):
        verdict = "between so few epochs it can't be told from jitter what it does"
    elif not high["loss"] < 0:
        verdict = "it does not help beyond sampling error and jitter" if low["loss"] <= 0 else "it harms"
    elif not fallen:
        verdict = "it helps, through no part for certain"
    else:
        verdict = f"it helps, through {' and '.join(PARTS[name] for name in fallen)}"
    seeds = ""
    if runs > 1:
        seeds = f", {table.loc['loss', 'smallest']:+.3f} to {table.loc['loss', 'largest']:+.3f} by run"
    return (
        f"Green box: at the second drop {verdict}: the loss changes by {change['loss']:+.3f} nats (95 % "
        f"interval {low['loss']:+.3f} to {high['loss']:+.3f}{seeds}), {in_parts(change, low, high)}, and the "
        f"accuracy by {100 * change['accuracy']:+.2f} points ({100 * low['accuracy']:+.2f} to "
        f"{100 * high['accuracy']:+.2f})."
    )


def noise(drop: pd.Series, mean: pd.Series) -> str:
    """Say how much of what the drop did averages of the logits do as well, without training."""
    verdict = "so averaging noise does not explain the drop's"
    if drop["loss"] < 0 and mean["loss"] <= 0.5 * drop["loss"]:
        verdict = (
            f"{mean['loss'] / drop['loss']:.0%} of the drop's, which is consistent with a smaller step that "
            "averages out the noise of the large ones"
        )
    return (
        "Green box, why: the mean of the logits of the epochs before the drop, five at most, changes the "
        f"loss by {mean['loss']:+.3f} nats against the mean of theirs ({in_parts(mean)}) and the accuracy by "
        f"{100 * mean['accuracy']:+.2f} points with no training at all, {verdict}."
    )


def pair_by_loss(history: confshift.History) -> tuple[confshift.Checkpoint, confshift.Checkpoint]:
    """Return the checkpoint of the lowest loss, or the first where that is the last, and the last."""
    checkpoints = history.main.checkpoints
    lowest = history.main.checkpoint_at(history.best.loc["loss", "epoch"])
    return (checkpoints[0] if lowest is checkpoints[-1] else lowest), checkpoints[-1]


def blue(checkpoints: Sequence[confshift.Checkpoint]) -> str:
    """Say how the accuracy can stand or improve while the loss rises."""
    history = confshift.summarize(checkpoints)
    comparison = confshift.compare(*pair_by_loss(history))
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
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the shifts")
    parser.add_argument("--run", type=Path, default=RUN, help="the folder of the run; one there is replaced")
    parser.add_argument("--answer", type=Path, nargs="+", metavar="RUN", help="only answer, from stored runs")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page")
    parser.add_argument("--quick", action="store_true", help="use a tenth of the images, as a quick test")
    options = parser.parse_args(arguments)
    options.epochs = options.epochs or (200 if options.data else 40)
    options.width = options.width or (64 if options.data else 8)
    return options


def trained(options: argparse.Namespace) -> confshift.Run:
    """Train as asked, write the page and print its findings; return the run."""
    if options.data is None:
        torch.set_num_threads(1)  # more threads don't help with images this small
    torch.manual_seed(options.seed)
    training, validation = load(options.data, quick=options.quick, subset=options.subset)
    batch, shift = (128, 4) if options.data else (64, 0)
    print(
        f"{options.epochs} epochs (thread: 200), width {options.width} (64), learning rate to a fifth after "
        f"{drop_epochs(options.epochs)} (60, 120, 160); not told: batches of {batch}, shifts by {shift}."
    )
    run = confshift.Run(options.run)
    if run.exists():
        run.delete()
    model = resnet18(training.pixels.shape[1], len(training.classes), width=options.width)
    train(model, training, validation, run, epochs=options.epochs, batch=batch, shift=shift)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = confshift.report(run, options.out, thumbnail=validation)
    print(*(finding for finding in page.findings if finding.verdict in ("yes", "no")), "", sep="\n")
    print(f"The page: {options.out}")
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_from(arguments)
    print(QUESTION)
    runs = [confshift.Run(run) for run in options.answer or ()] or [trained(options)]
    for number, stage in enumerate(min(map(stages, runs), key=len)[:-1], 1):
        print(
            f"The drop after epoch {stage[-1].epoch:g}:", moved_by_drop(runs, number).round(4), "", sep="\n"
        )
    print(*answer(runs), sep="\n")


if __name__ == "__main__":
    main()
