"""lightning: each validation of a real Trainer, and what it gains."""

from __future__ import annotations

import functools

import pytest
import torch
from needed import needed
from torch import nn
from torch.utils.data import DataLoader, Subset

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("error:::confshift")]
L = needed("lightning.pytorch")

import confshift  # noqa: E402
from confshift.integrations.lightning import ConfshiftCallback  # noqa: E402


class Module(L.LightningModule):
    """Hands its logits on in one of three ways."""

    def __init__(self, network, way="call"):
        super().__init__()
        self.network, self.way = network, way
        self.loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 4.0])) if way == "dict" else None

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, number):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, number, dataloader_idx=0):
        logits = self(batch[0]) if self.way == "call" else self.network(batch[0])
        loss = (self.loss or nn.functional.cross_entropy)(logits, batch[1])
        self.log("val_loss", loss)
        return {"loss": loss, "logits": logits} if self.way == "dict" else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def fit(task, make_network, tmp_path):
    def fit(callback, *, way="call", val=None, callbacks=(), watch=lambda module: None, **options):
        prepare = options.pop("prepare", lambda module: module)
        trainer = L.Trainer(
            max_epochs=options.pop("max_epochs", 2),
            callbacks=[callback, *callbacks],
            accelerator="cpu",
            default_root_dir=str(tmp_path),
            logger=False,
            enable_checkpointing=any(isinstance(one, L.callbacks.ModelCheckpoint) for one in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        module = Module(make_network(), way)
        watch(module.network)
        train, default = task.loaders()
        trainer.fit(prepare(module), train, default if val is None else val)
        return trainer, module

    return fit


@pytest.mark.parametrize(("way", "options"), [("call", {}), ("dict", {}), ("part", {"module": "network"})])
def test_each_validation_is_saved_and_the_sanity_check_is_not(task, fit, run, page, way, options):
    trainer, module = fit(ConfshiftCallback(run, report=page, metadata={"way": way}, **options), way=way)
    saved = confshift.Run(run)
    assert (saved.splits, saved.epochs) == (("val",), (1, 2))
    task.assert_true(saved[2], module.network)
    weights = {"class_weights": [1.0, 2.0, 4.0]} if way == "dict" else {}
    assert saved[2].metadata == {"lr": [0.1], "way": way, **weights}
    trained = confshift.summarize(saved).table["loss"].iloc[-1]
    if way != "dict":  # lightning averages over batches, whatever these weigh
        assert saved[2].provenance.logged["val_loss"] == pytest.approx(trained, rel=1e-5)
    assert (trained == pytest.approx(saved[2].loss)) == (way != "dict")
    assert trainer.callback_metrics["confshift/loss"].item() == pytest.approx(saved[2].loss, rel=1e-5)
    assert page.exists()


def test_classes_have_the_names_of_the_dataset(task, fit, run):
    _, val = task.loaders()
    val.dataset.classes = ["cat", "dog", "panda"]
    try:
        fit(ConfshiftCallback(run), val=val, max_epochs=1)
    finally:
        del val.dataset.classes
    assert confshift.Run(run).class_names == ("cat", "dog", "panda")


def test_no_pass_is_added(task, make_network, fit, run, count_calls):
    calls = []
    fit(ConfshiftCallback(run), num_sanity_val_steps=0, watch=lambda made: calls.append(count_calls(made)))
    assert calls[0].number == 2 * 7


def test_logits_that_are_not_seen_are_an_error_that_names_three_ways_before_training(fit, run):
    calls = []

    def watch(network):
        network.register_forward_hook(lambda module, *_: calls.append(module.training))

    with pytest.raises(confshift.ConfshiftError, match=r"'logits': logits.*self\(x\).*module="):
        fit(ConfshiftCallback(run), way="part", watch=watch)
    assert calls == [False]
    assert not run.exists()


def test_several_loaders_are_splits(task, fit, run):
    hard = DataLoader(Subset(task.val, range(57)), 8)
    fit(ConfshiftCallback(run), val={"val": task.loaders()[1], "hard": hard}, max_epochs=1)
    assert confshift.Run(run).splits == ("val", "hard")
    assert len(confshift.Run(run).checkpoint(1, split="hard")) == 57
    _, module = fit(
        ConfshiftCallback(run / "b", splits=["val", "late"]), val=[task.loaders()[1], hard], max_epochs=1
    )
    saved = confshift.Run(run / "b")
    task.assert_true(saved.checkpoint(1, split="late"), module.network, slice(57))


def test_parts_of_epochs_have_fractions(fit, run):
    fit(ConfshiftCallback(run), val_check_interval=0.5)
    assert confshift.Run(run).epochs == (0.5, 1, 1.5, 2)


def test_a_validation_that_is_limited_is_the_batches_seen(task, fit, run):
    _, module = fit(ConfshiftCallback(run), limit_val_batches=3, max_epochs=1)
    task.assert_true(confshift.Run(run)[1], module.network, slice(51))


def test_validate_is_saved_only_where_it_is_asked_for(task, fit, run):
    callback = ConfshiftCallback(run)
    trainer, module = fit(callback, max_epochs=1)
    trainer.validate(module, task.loaders()[1], verbose=False)
    assert confshift.Run(run).epochs == (1,)
    asked = ConfshiftCallback(run / "asked", validate=True)
    trainer = L.Trainer(callbacks=[asked], accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(module, task.loaders()[1], verbose=False)
    assert confshift.Run(run / "asked").epochs == (0,)


def test_a_training_goes_on_but_a_second_one_is_refused(task, make_network, fit, run):
    trainer, module = fit(ConfshiftCallback(run), max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, *task.loaders())
    assert confshift.Run(run).epochs == (1, 2)
    with pytest.raises(confshift.ConfshiftError, match="from epoch 1 on, and this training begins with"):
        fit(ConfshiftCallback(run), max_epochs=1)


def test_a_shuffled_validation_takes_a_pass_of_its_own(task, fit, run, caplog):
    _, module = fit(ConfshiftCallback(run), val=task.loaders(shuffle=True)[1], max_epochs=1)
    task.assert_true(confshift.Run(run)[1], module.network)
    assert "the evaluation set is not read in order" in caplog.text


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_are_in_the_precision_of_the_trainer(task, fit, run, precision, shuffle):
    trainer, _ = fit(
        ConfshiftCallback(run), val=task.loaders(shuffle=shuffle)[1], max_epochs=1, precision=precision
    )
    saved = confshift.Run(run)[1]
    assert saved.provenance.source_dtype == {"6": "float64", "b": "bfloat16"}[precision[0]]
    # A mean in bfloat16 keeps three digits.
    assert saved.loss == pytest.approx(trainer.callback_metrics["val_loss"].item(), rel=0.01)


def test_a_compiled_module_is_seen(task, fit, run):
    compile_it = functools.partial(torch.compile, backend="eager")
    _, module = fit(ConfshiftCallback(run), max_epochs=1, prepare=compile_it)
    task.assert_true(confshift.Run(run)[1], module.network)


def test_a_data_module_is_as_good_as_its_loaders(task, make_network, run, tmp_path):
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return task.loaders()[0]

        def val_dataloader(self):
            return task.loaders()[1]

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {
        "accelerator": "cpu",
        "default_root_dir": str(tmp_path),
        "enable_model_summary": False,
        **quiet,
    }
    module = Module(make_network())
    L.Trainer(max_epochs=1, callbacks=[ConfshiftCallback(run)], **options).fit(module, datamodule=Data())
    task.assert_true(confshift.Run(run)[1], module.network)


def test_checkpoints_and_early_stopping_follow_the_metric(fit, run, tmp_path):
    best = L.callbacks.ModelCheckpoint(
        str(tmp_path / "c"),
        filename="{epoch}-{confshift/refinement_loss:.3f}",
        monitor="confshift/refinement_loss",
        auto_insert_metric_name=False,
    )
    fit(ConfshiftCallback(run), callbacks=[best, L.callbacks.EarlyStopping("confshift/refinement_loss")])
    losses = [one.metrics()["refinement_loss"] for one in confshift.Run(run).checkpoints()]
    assert best.best_model_score.item() == pytest.approx(min(losses), rel=1e-5)
    epoch = losses.index(min(losses))
    assert [one.name for one in (tmp_path / "c").iterdir()] == [f"{epoch}-{losses[epoch]:.3f}.ckpt"]


def test_the_model_before_training_is_epoch_0_in_place_of_the_sanity_check(
    task, make_network, fit, run, count_calls
):
    calls, best = [], L.callbacks.ModelCheckpoint(monitor="confshift/refinement_loss", save_top_k=-1)
    callback = ConfshiftCallback(run, before_training=True)
    fit(callback, callbacks=[best], watch=lambda made: calls.append(count_calls(made)))
    saved = confshift.Run(run)
    assert (saved.epochs, calls[0].number) == ((0, 1, 2), 3 * 7)
    task.assert_true(saved[0], make_network())
    assert saved[0].provenance.logged["val_loss"] == pytest.approx(saved[0].loss, rel=1e-5)
    assert len(best.best_k_models) == 2  # none of them before training


def test_a_training_that_goes_on_has_no_epoch_before_training(task, fit, run, tmp_path):
    best = L.callbacks.ModelCheckpoint(str(tmp_path / "c"))
    fit(ConfshiftCallback(run), callbacks=[best])
    first = confshift.Run(run)[1].loss
    more = L.Trainer(
        max_epochs=3,
        callbacks=[ConfshiftCallback(run, before_training=True)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=str(tmp_path),
    )
    _, module = fit(L.Callback(), max_epochs=0)
    more.fit(module, *task.loaders(), ckpt_path=best.best_model_path)
    assert confshift.Run(run).epochs == (1, 2, 3)
    assert confshift.Run(run)[1].loss == first


def test_the_weights_are_those_of_a_training_without_it(fit, run):
    torch.manual_seed(3)
    _, with_it = fit(ConfshiftCallback(run, before_training=True))
    torch.manual_seed(3)
    _, without = fit(L.Callback())
    pairs = zip(with_it.state_dict().values(), without.state_dict().values(), strict=True)
    assert all((one == other).all() for one, other in pairs)
