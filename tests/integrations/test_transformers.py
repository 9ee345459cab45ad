"""transformers: each evaluation of a real Trainer, and what it gains."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest
import torch
from needed import needed
from torch import nn

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("error:::confshift")]
transformers = needed("transformers")
needed("accelerate")

import confshift  # noqa: E402
from confshift.integrations.transformers import ConfshiftCallback  # noqa: E402


class Small(transformers.PreTrainedModel):
    """A classifier of rows of numbers, as small as a Trainer takes."""

    config_class = transformers.PretrainedConfig
    all_tied_weights_keys: ClassVar = {}

    def __init__(self, network, **config):
        super().__init__(transformers.PretrainedConfig(**config))
        self.network = network

    def forward(self, inputs, labels=None):
        logits = self.network(inputs)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)


def rows_of(data):
    return [{"inputs": inputs, "labels": target} for inputs, target in data]


@pytest.fixture
def train(task, make_network, run, tmp_path):
    def train(
        *,
        model=None,
        eval_dataset=None,
        callback=None,
        others=(),
        config=None,
        epochs=2,
        begin=True,
        **options,
    ):
        model = Small(make_network(), **(config or {})) if model is None else model
        arguments = transformers.TrainingArguments(
            str(tmp_path / "out"),
            num_train_epochs=epochs,
            per_device_eval_batch_size=17,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            **{"eval_strategy": "epoch", "save_strategy": "no", **options},
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=rows_of(task.train),
            eval_dataset=rows_of(task.val) if eval_dataset is None else eval_dataset,
            callbacks=[ConfshiftCallback(run) if callback is None else callback, *others],
        )
        if begin:
            trainer.train()
        return trainer

    return train


def test_each_evaluation_is_saved_without_a_second_pass(task, train, run, page, count_calls):
    names = {"id2label": {0: "cat", 1: "dog", 2: "panda"}}
    trainer = train(callback=ConfshiftCallback(run, report=page), config=names, begin=False)
    calls = count_calls(trainer.model)
    trainer.train()
    assert calls.number == 2 * 7
    saved = confshift.Run(run)
    assert (saved.splits, saved.epochs, saved.class_names) == (("val",), (1, 2), ("cat", "dog", "panda"))
    task.assert_true(saved[2], trainer.model.network)
    assert saved[2].provenance.id_source == "sampler"
    assert saved[2].provenance.logged["eval_loss"] == pytest.approx(saved[2].loss, rel=1e-5)
    assert saved[1].metadata["lr"] != saved[2].metadata["lr"]
    assert page.exists()


def test_evaluations_after_the_training_and_predictions_are_not_one_more_epoch(task, train, run):
    trainer = train()
    trainer.predict(rows_of(task.train))
    trainer.evaluate()
    assert confshift.Run(run).epochs == (1, 2)


def test_an_evaluation_before_the_training_is_epoch_0(train, run):
    train(eval_on_start=True, epochs=1)
    assert confshift.Run(run).epochs == (0, 1)


def test_a_training_that_is_resumed_saves_the_epochs_that_it_makes(task, train, run, tmp_path):
    train(save_strategy="epoch")
    trainer = train(epochs=3, begin=False)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-12"))
    saved = confshift.Run(run)
    assert saved.epochs == (1, 2, 3)
    task.assert_true(saved[3], trainer.model.network)


def test_a_second_training_does_not_replace_the_checkpoints_of_the_first(train, run):
    trainer = train(epochs=1)
    before = confshift.Run(run)[1].predictions.logits.copy()
    refusal = r"already holds checkpoints \(val\): from epoch 1 on, .* begins with epoch 1\. Give this"
    for again in (trainer.train, train):  # the same Trainer, another one
        with pytest.raises(confshift.ConfshiftError, match=refusal):
            again()
    assert (confshift.Run(run)[1].predictions.logits == before).all()


def test_the_metrics_are_in_the_history_and_choose_the_best_model(train, run):
    trainer = train(
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_confshift/refinement_loss",
        greater_is_better=False,
    )
    name = "eval_confshift/refinement_loss"
    logged = [entry[name] for entry in trainer.state.log_history if name in entry]
    assert logged == [c.metrics()["refinement_loss"] for c in confshift.Run(run).checkpoints()]
    assert trainer.state.best_metric == min(logged)


def test_loggers_that_come_later_see_the_metrics(train, run):
    seen = []

    class Logger(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.extend(name for name in logs if "confshift" in name)

    trainer = train(callback=Logger(), begin=False)
    ConfshiftCallback(run).attach(trainer)
    trainer.train()
    assert seen.count("eval_confshift/refinement_loss") == 2


def test_several_sets_are_splits_and_the_first_is_the_main_one(task, train, run, caplog):
    sets = {"easy": rows_of(task.val), "hard": rows_of(task.val)[:57]}
    with caplog.at_level(logging.INFO, "confshift"):
        trainer = train(eval_dataset=sets)
    saved = confshift.Run(run)
    assert {split: saved.epochs_of(split) for split in saved.splits} == {"val": (1, 2), "hard": (1, 2)}
    assert "'easy' is the main one" in caplog.text
    task.assert_true(saved.checkpoint(2, split="hard"), trainer.model.network, slice(57))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"dataloader_num_workers": 2, "dataloader_persistent_workers": True}, id="workers"),
        pytest.param({"gradient_accumulation_steps": 2, "eval_accumulation_steps": 1}, id="accumulation"),
        pytest.param({"eval_strategy": "steps", "eval_steps": 6}, id="half epochs"),
    ],
)
def test_the_rows_are_the_same_under_the_trainers_options(task, train, run, caplog, options):
    trainer = train(epochs=1, **options)
    saved = confshift.Run(run)
    assert saved.epochs == ((0.5, 1) if "eval_steps" in options else (1,))
    task.assert_true(saved[1], trainer.model.network)
    assert saved[1].provenance.logged["eval_loss"] == pytest.approx(saved[1].loss, rel=1e-5)
    assert "second pass" not in caplog.text


def test_in_bfloat16_the_logits_are_those_that_the_trainer_sees(task, train, run):
    trainer = train(bf16=True, epochs=1)
    saved = confshift.Run(run)[1]
    assert saved.provenance.logged["eval_loss"] == pytest.approx(saved.loss, rel=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = trainer.model.network.eval()(task.inputs).float()
    assert not torch.allclose(expected, trainer.model.network(task.inputs), atol=1e-5)
    torch.testing.assert_close(
        torch.from_numpy(saved.predictions.logits.copy()), expected, atol=0.02, rtol=0.02
    )


def test_an_evaluation_that_is_grouped_by_length_costs_a_pass_and_has_its_ids(
    task, make_network, train, run, caplog
):
    class Named(Small):
        def forward(self, input_ids, labels=None):
            return super().forward(input_ids, labels)

    data = [{"input_ids": inputs, "labels": target} for inputs, target in task.val]
    trainer = train(
        model=Named(make_network()), eval_dataset=data, train_sampling_strategy="group_by_length", begin=False
    )
    trainer.evaluate()
    task.assert_true(confshift.Run(run)[0], trainer.model.network)
    assert "the evaluation set is not read in order" in caplog.text


def test_hidden_states_beside_the_logits_are_left_alone(task, make_network, train, run):
    class Wordy(Small):
        def forward(self, inputs, labels=None):
            return super().forward(inputs, labels) | {"hidden_states": (inputs, inputs)}

    trainer = train(model=Wordy(make_network()), epochs=1)
    task.assert_true(confshift.Run(run)[1], trainer.model.network)


def test_an_adapter_of_peft_is_watched(task, make_network, train, run):
    peft = needed("peft")
    model = peft.get_peft_model(
        Small(make_network()), peft.LoraConfig(target_modules=["network.0", "network.4"])
    )
    train(model=model, epochs=1)
    task.assert_true(confshift.Run(run)[1], model.base_model.model.network)


def test_what_other_callbacks_compute_between_is_not_taken(task, train, run):
    class Probe(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            model.eval()
            model(inputs=task.inputs[:16], labels=task.targets[:16])

        on_evaluate = on_step_end

    trainer = train(others=[Probe()])
    task.assert_true(confshift.Run(run)[2], trainer.model.network)


def test_a_model_that_the_trainer_compiles_is_seen(task, train, run):
    trainer = train(epochs=1, torch_compile=True, torch_compile_backend="eager")
    task.assert_true(confshift.Run(run)[1], trainer.model.network)


def test_early_stopping_follows_the_metric(train, run):
    stop = transformers.EarlyStoppingCallback(early_stopping_patience=1)
    name = "eval_confshift/refinement_loss"
    best = {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": name}
    train(others=[stop], epochs=5, learning_rate=0, greater_is_better=False, **best)
    assert confshift.Run(run).epochs == (1, 2)


@pytest.mark.parametrize("hidden", [{"label_smoothing_factor": 0.1}, {"compute_loss_func": True}])
def test_labels_hidden_from_the_model_cost_a_pass_that_a_warning_names(task, train, run, caplog, hidden):
    if "compute_loss_func" in hidden:
        trainer = train(begin=False)
        trainer.compute_loss_func = lambda out, y, num_items_in_batch=None: nn.functional.cross_entropy(
            out.logits, y
        )
        trainer.train()
    else:
        trainer = train(**hidden)
    task.assert_true(confshift.Run(run)[2], trainer.model.network)
    assert caplog.text.count("takes a second pass over the data") == 1
    smoothing = hidden.get("label_smoothing_factor", 0.0)
    history = confshift.summarize(confshift.Run(run))
    assert history.main.objective.smoothing == smoothing
    trained = history.table["trained_loss" if smoothing else "loss"].iloc[-1]
    assert confshift.Run(run)[2].provenance.logged["eval_loss"] == pytest.approx(trained, rel=1e-5)


def test_labels_may_be_called_otherwise(task, make_network, run, tmp_path):
    class Gold(Small):
        def forward(self, inputs, gold=None):
            return super().forward(inputs, gold)

    data = [{"inputs": inputs, "gold": target} for inputs, target in task.val]
    options = {"label_names": ["gold"], "report_to": [], "use_cpu": True, "disable_tqdm": True}
    arguments = transformers.TrainingArguments(str(tmp_path), per_device_eval_batch_size=16, **options)
    trainer = transformers.Trainer(
        Gold(make_network()), arguments, eval_dataset=data, callbacks=[ConfshiftCallback(run)]
    )
    trainer.evaluate()
    task.assert_true(confshift.Run(run)[0], trainer.model.network)


def test_the_weights_are_those_of_a_training_without_it(train):
    torch.manual_seed(5)
    with_it = train().model.state_dict()
    torch.manual_seed(5)
    without = train(callback=transformers.TrainerCallback()).model.state_dict()
    assert all((with_it[name] == without[name]).all() for name in without)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("BertForMaskedLM", {}, "a BertForMaskedLM, a masked language model"),
        ("T5ForConditionalGeneration", {}, "a model that generates text"),
        ("BertForSequenceClassification", {"problem_type": "regression"}, "a regression"),
    ],
)
def test_other_tasks_are_refused_by_name_when_the_trainer_is_made(make_network, tmp_path, name, config, said):
    model = type(name, (Small,), {})(make_network(), **config)
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(confshift.ConfshiftError, match=said):
        transformers.Trainer(model, arguments, callbacks=[ConfshiftCallback(tmp_path / "run")])
