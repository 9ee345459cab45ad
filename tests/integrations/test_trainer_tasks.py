"""Other kinds of classification in real trainers: each checkpoint has the loss of a plain evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from needed import needed
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import confshift

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("error:::confshift")]

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def words(labels):
    """Return 23 texts of five words, the last two of every third text being padding, with labels for each."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(3, 20, (23, 5), generator=generator)
    mask = torch.ones_like(texts)
    mask[::3, 3:] = 0
    return [
        {"input_ids": text * own, "attention_mask": own, "labels": labels(text, own)}
        for text, own in zip(texts, mask, strict=True)
    ]


def next_word(text, mask):
    return torch.where(mask > 0, text, -100)


def tag(text, mask):
    return torch.where(mask > 0, text % 3, -100)


def topics(text, mask):
    return torch.stack([(text == word).any() for word in (5, 7, 9, 11)]).float()


#: The model's class and config, the labels, the task.
MODELS = {
    "LlamaForCausalLM": ("LlamaConfig", {}, next_word, "causal_lm"),
    "BertForTokenClassification": ("BertConfig", {"id2label": {0: "a", 1: "b", 2: "c"}}, tag, "tokens"),
    "BertForSequenceClassification": (
        "BertConfig",
        {"problem_type": "multi_label_classification", "id2label": dict(enumerate("abcd"))},
        topics,
        "multilabel",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_transformers_models_declare_their_task(tmp_path, name, count_calls):
    transformers = needed("transformers")
    needed("accelerate")
    from confshift.integrations.transformers import ConfshiftCallback

    config, more, labels, task = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(vocab_size=20, **SIZES, **more))
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"),
        num_train_epochs=2,
        per_device_eval_batch_size=6,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    data = words(labels)
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        callbacks=[ConfshiftCallback(tmp_path / "run")],
    )
    calls = count_calls(model)
    trainer.train()
    assert calls.number == 2 * 4  # no second pass
    model.eval()
    total = rows = 0
    with torch.no_grad():
        for sample in data:
            batch = {field: value[None] for field, value in sample.items()}
            own = batch["labels"][:, 1:] if task == "causal_lm" else batch["labels"]
            counted = int((own >= 0).sum())
            total, rows = total + model(**batch).loss.item() * counted, rows + counted
    found = confshift.Run(tmp_path / "run")[2]
    assert (len(found), found.provenance.task) == (rows, task)
    assert found.loss == pytest.approx(total / rows, abs=1e-5)
    if task == "multilabel":
        assert found.provenance.label_names == tuple("abcd")
    if task == "tokens":
        assert found.class_names == ("a", "b", "c")


@pytest.fixture
def table():
    """Return inputs, targets of two labels, and a network."""
    torch.manual_seed(0)
    inputs = torch.randn(23, 4)
    return inputs, (inputs[:, :2] + torch.randn(23, 2) > 0.5) * 1.0, nn.Linear(4, 2)


def loss_of(network, inputs, targets):
    with torch.no_grad():
        return functional.binary_cross_entropy_with_logits(network(inputs), targets).item()


@pytest.mark.parametrize("single", [False, True])
def test_lightning_reads_one_logit_and_several_labels(tmp_path, table, single):
    L = needed("lightning.pytorch")
    from confshift.integrations.lightning import ConfshiftCallback

    inputs, targets, network = table
    if single:
        targets, network = targets[:, 0], nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, number):
            return functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

        def validation_step(self, batch, number):
            self.log("val_loss", self.training_step(batch, number))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    loader = DataLoader(TensorDataset(inputs, targets), 11)
    options = {} if single else {"task": "multilabel", "rows": 40}
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ConfshiftCallback(tmp_path / "run", **options)],
    )
    trainer.fit(Module(), loader, loader)
    found = confshift.Run(tmp_path / "run")[1]
    if single:
        assert (found.provenance.task, len(found)) == ("binary", 23)
        assert found.loss == pytest.approx(loss_of(network, inputs, targets), abs=1e-5)
    else:
        predictions = found.predictions
        assert (predictions.task, len(predictions), predictions.total_rows) == ("multilabel", 40, 46)
        z = network(inputs).detach().numpy().ravel()
        np.testing.assert_allclose(predictions.logits[:, 1], z[predictions.sample_ids], atol=1e-5)


def test_ignite_reads_several_labels(tmp_path, table):
    engine = needed("ignite.engine")
    from confshift.integrations.ignite import ConfshiftHandler

    inputs, targets, network = table
    loader = DataLoader(TensorDataset(inputs, targets), 7)
    trainer = engine.create_supervised_trainer(
        network, torch.optim.SGD(network.parameters(), 0.1), nn.BCEWithLogitsLoss()
    )
    evaluator = engine.create_supervised_evaluator(network)
    ConfshiftHandler(tmp_path / "run", trainer=trainer, task="multilabel").attach(evaluator)
    evaluator.run(loader)
    found = confshift.Run(tmp_path / "run")[0]
    assert found.loss == pytest.approx(loss_of(network, inputs, targets), abs=1e-5)


@pytest.mark.parametrize("criterion", ["BCEWithLogitsLoss", "BCELoss"])
def test_skorch_reads_two_classes_of_one_output(tmp_path, table, criterion):
    skorch, helper = needed("skorch"), needed("skorch.helper")
    from confshift.integrations.skorch import ConfshiftCallback

    inputs, targets, _ = table
    last = [nn.Sigmoid()] if criterion == "BCELoss" else []
    net = skorch.NeuralNetBinaryClassifier(
        nn.Sequential(nn.Linear(4, 1), *last),
        criterion=getattr(nn, criterion),
        max_epochs=1,
        train_split=helper.predefined_split(TensorDataset(inputs, targets[:, 0])),
        callbacks=[ConfshiftCallback(tmp_path / "run")],
        verbose=0,
    )
    net.fit(inputs.numpy(), targets[:, 0].numpy())
    found = confshift.Run(tmp_path / "run")[1]
    assert found.provenance.task == "binary"
    assert found.loss == pytest.approx(net.history[-1]["valid_loss"], abs=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("from_logits", [False, True])
def test_keras_reads_what_a_binary_loss_declares(tmp_path, table, outputs, from_logits):
    keras = needed("keras")
    from confshift.integrations.keras import ConfshiftCallback

    inputs, targets, _ = table
    x, y = inputs.numpy(), targets[:, :outputs].numpy()
    last = None if from_logits else "sigmoid"
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(outputs, activation=last)])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=from_logits))
    callback = ConfshiftCallback(tmp_path / "run")
    history = model.fit(x, y, epochs=1, verbose=0, validation_data=(x, y), callbacks=[callback])
    found = confshift.Run(tmp_path / "run")[1]
    assert found.provenance.task == ("binary" if outputs == 1 else "multilabel")
    assert found.loss == pytest.approx(history.history["val_loss"][-1], abs=1e-5)
