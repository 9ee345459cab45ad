"""What an adapter costs a training, beside the same training without it.

Run as a script; nothing here is a test. Rounds are paired and interleaved in random order; what is printed is
the median [lower, upper quartile] of the ratios of CPU time, with that of the thread which writes, and the
number of forward passes in eval mode. A trainer that is not installed is left out.

    python tests/benchmarks/trainers.py [--rounds 9] [--samples 4000] [--epochs 3] [--trainers keras ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "HF_HUB_OFFLINE": "1"}

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import confshift

FEATURES, CLASSES, BATCH = 64, 10, 64
GAP = "{:14s} {:.2f} [{:.2f}, {:.2f}]   without it {:.2f} s   forwards {} and {} without"


def make_network(width=256):
    torch.manual_seed(0)
    layers = (
        nn.Linear(FEATURES, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, CLASSES),
    )
    return nn.Sequential(*layers)


def make_data(samples):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, FEATURES, generator=generator)
    noise = torch.randn(samples, CLASSES, generator=generator)
    return TensorDataset(inputs, (inputs[:, :CLASSES] + noise).argmax(1))


class Counted(nn.Module):
    """Counts the forward passes in eval mode."""

    def __init__(self):
        super().__init__()
        self.network, self.passes = make_network(), 0

    def forward(self, inputs):
        self.passes += not self.training
        return self.network(inputs)


def with_transformers(train, val, epochs, run):
    import transformers

    from confshift.integrations.transformers import ConfshiftCallback

    class Classifier(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig
        all_tied_weights_keys = {}  # noqa: RUF012

        def __init__(self):
            super().__init__(transformers.PretrainedConfig())
            self.counted = Counted()

        def forward(self, inputs, labels=None):
            logits = self.counted(inputs)
            loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
            return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)

    sizes = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
    quiet = {
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "log_level": "error",
    }
    arguments = transformers.TrainingArguments(
        run + "-out", num_train_epochs=epochs, eval_strategy="epoch", **sizes, **quiet
    )
    model = Classifier()
    train, val = ([{"inputs": one, "labels": label} for one, label in data] for data in (train, val))
    callbacks = [ConfshiftCallback(run)] if Path(run).name == "with" else []
    trainer = transformers.Trainer(
        model, arguments, train_dataset=train, eval_dataset=val, callbacks=callbacks
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer.train, lambda: model.counted.passes


def with_lightning(train, val, epochs, run):
    import lightning.pytorch as pl

    from confshift.integrations.lightning import ConfshiftCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.counted = Counted()

        def forward(self, inputs):
            return self.counted(inputs)

        def training_step(self, batch, number):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, number):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("val_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05)

    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    callbacks = [ConfshiftCallback(run)] if Path(run).name == "with" else []
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        num_sanity_val_steps=0,
        **dict.fromkeys(names, False),
    )
    module = Module()
    loaders = DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH)
    return lambda: trainer.fit(module, *loaders), lambda: module.counted.passes


def with_ignite(train, val, epochs, run):
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.metrics import Accuracy, Loss

    from confshift.integrations.ignite import ConfshiftHandler

    model, loss = Counted(), nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, torch.optim.SGD(model.parameters(), 0.05), loss)
    evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy(), "loss": Loss(loss)})
    loaders = DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loaders[1]))
    if Path(run).name == "with":
        ConfshiftHandler(run, trainer=trainer).attach(evaluator)
    return lambda: trainer.run(loaders[0], max_epochs=epochs), lambda: model.passes


def with_skorch(train, val, epochs, run):
    import skorch
    from skorch.helper import predefined_split

    from confshift.integrations.skorch import ConfshiftCallback

    model = Counted()
    callbacks = [ConfshiftCallback(run)] if Path(run).name == "with" else []
    net = skorch.NeuralNetClassifier(
        model,
        criterion=nn.CrossEntropyLoss,
        max_epochs=epochs,
        lr=0.05,
        batch_size=BATCH,
        verbose=0,
        train_split=predefined_split(val),
        callbacks=callbacks,
    )
    return lambda: net.fit(train, None), lambda: model.passes


def with_keras(train, val, epochs, run):
    import keras

    from confshift.integrations.keras import ConfshiftCallback

    class Counting(keras.layers.Dense):
        passes = 0

        def call(self, inputs, training=None):
            self.passes += not training
            return super().call(inputs)

    last = Counting(CLASSES)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(256, "relu"), last]
    model = keras.Sequential([keras.layers.Input((FEATURES,)), *layers])
    last.passes = 0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    (inputs, targets), validation = ([part.numpy() for part in data.tensors] for data in (train, val))
    callbacks = [ConfshiftCallback(run)] if Path(run).name == "with" else []
    options = {"batch_size": BATCH, "epochs": epochs, "verbose": 0, "validation_data": validation}
    return lambda: model.fit(inputs, targets, callbacks=callbacks, **options), lambda: last.passes


TRAINERS = {
    "transformers": with_transformers,
    "lightning": with_lightning,
    "ignite": with_ignite,
    "skorch": with_skorch,
    "keras": with_keras,
}


def measured(make, data, epochs, name):
    """Return the CPU seconds and the forward passes of a training in a folder of this name."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / name)
        train, passes = make(*data, epochs, run)
        start = time.process_time()
        train()
        if name == "with":
            confshift.Run(run).flush()
        return time.process_time() - start, passes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=4000, help="to train on, and as many to validate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS), choices=list(TRAINERS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, order = (make_data(chosen.samples), make_data(chosen.samples)), np.random.default_rng(0)
    for name in chosen.trainers:
        seconds, passes = {"with": [], "without": []}, {}
        try:
            for turn in range(chosen.rounds + 1):
                for way in order.permutation(list(seconds)):
                    spent, passes[way] = measured(TRAINERS[name], data, chosen.epochs, way)
                    if turn:  # the first makes the imports
                        seconds[way].append(spent)
        except ImportError as error:
            print(f"{name}: {error}")  # noqa: T201
            continue
        quartiles = np.percentile(np.divide(seconds["with"], seconds["without"]), [50, 25, 75])
        counts = passes["with"], passes["without"]
        print(GAP.format(name, *quartiles, np.median(seconds["without"]), *counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
