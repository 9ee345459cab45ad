"""ignite, skorch and Keras on torch: each validation is saved, by the contract of each trainer."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from needed import needed
from torch import nn

import confshift

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("error:::confshift")]


class TestIgnite:
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_each_run_of_the_evaluator_is_saved(self, task, make_network, run, page, shuffle, count_calls):
        engine = needed("ignite.engine")
        from confshift.integrations.ignite import ConfshiftHandler

        network = make_network()
        train, val = task.loaders(shuffle=shuffle)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        trainer = engine.create_supervised_trainer(network, optimizer, nn.CrossEntropyLoss())
        evaluator = engine.create_supervised_evaluator(network)
        evaluator.add_event_handler(
            engine.Events.COMPLETED, lambda ended: ended.state.metrics.update(own=1.0, text="b")
        )
        calls = count_calls(network)
        notes = {"metadata": lambda: {"lr": optimizer.param_groups[0]["lr"]}, "report": page}
        ConfshiftHandler(run, trainer=trainer, **notes).attach(evaluator)
        trainer.add_event_handler(engine.Events.EPOCH_COMPLETED, lambda: evaluator.run(val))
        evaluator.run(val)
        trainer.run(train, max_epochs=2)
        evaluator.run(val)  # the same epoch once more
        saved = confshift.Run(run)
        assert (saved.epochs, calls.number) == ((0, 1, 2), 4 * 7)
        task.assert_true(saved[2], network)
        assert saved[2].metadata == {"lr": 0.1}
        assert dict(saved[2].provenance.logged) == {"own": 1.0}
        assert evaluator.state.metrics["confshift/loss"] == saved[2].loss
        assert page.exists()
        with pytest.raises(confshift.ConfshiftError, match=r"from epoch 1 on, .* begins with epoch 1"):
            trainer.run(train, max_epochs=2)  # anew, as the first training has ended

    def test_it_leaves_weights_and_forward_passes_alone(
        self, task, make_network, run, count_calls, assert_undisturbed
    ):
        engine = needed("ignite.engine")
        from confshift.integrations.ignite import ConfshiftHandler

        def train(with_it):
            network = make_network()
            calls, (train, val) = count_calls(network), task.loaders()
            optimizer = torch.optim.SGD(network.parameters(), 0.1)
            trainer = engine.create_supervised_trainer(network, optimizer, nn.CrossEntropyLoss())
            evaluator = engine.create_supervised_evaluator(network)
            trainer.add_event_handler(engine.Events.EPOCH_COMPLETED, lambda: evaluator.run(val))
            if with_it:
                ConfshiftHandler(run, trainer=trainer).attach(evaluator)
            trainer.run(train, max_epochs=2)
            return network.state_dict().values(), calls.number

        assert_undisturbed(train)


class TestSkorch:
    @pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, nn.NLLLoss])
    def test_each_epoch_is_saved_as_the_criterion_reads_it(self, task, make_network, run, page, criterion):
        skorch = needed("skorch")
        from skorch.helper import predefined_split

        from confshift.integrations.skorch import ConfshiftCallback

        network = make_network()
        module = network if criterion is nn.CrossEntropyLoss else nn.Sequential(network, nn.Softmax(1))
        stop = skorch.callbacks.EarlyStopping("confshift/refinement_loss")
        net = skorch.NeuralNetClassifier(
            module,
            criterion=criterion,
            max_epochs=2,
            lr=0.1,
            verbose=0,
            train_split=predefined_split(task.val),
            classes=["cat", "dog", "panda"],
            callbacks=[("confshift", ConfshiftCallback(run, report=page)), ("stop", stop)],
        )
        net.fit(task.train, None)
        net.partial_fit(task.train, None)
        saved = confshift.Run(run)
        assert (saved.epochs, saved.class_names) == ((1, 2, 3, 4), ("cat", "dog", "panda"))
        task.assert_true(saved[4], network)
        assert net.history[-1]["confshift/loss"] == saved[4].loss
        assert saved[4].provenance.logged["valid_loss"] == pytest.approx(saved[4].loss, rel=1e-5)
        assert page.exists()
        with pytest.raises(confshift.ConfshiftError, match=r"from epoch 1 on, .* begins with epoch 1"):
            net.fit(task.train, None)

    def test_the_weights_and_smoothing_of_the_criterion_are_kept(self, task, make_network, run):
        skorch = needed("skorch")
        from skorch.helper import predefined_split

        from confshift.integrations.skorch import ConfshiftCallback

        net = skorch.NeuralNetClassifier(
            make_network(),
            criterion=nn.CrossEntropyLoss,
            criterion__weight=torch.tensor([1.0, 2.0, 4.0]),
            criterion__label_smoothing=0.1,
            max_epochs=1,
            verbose=0,
            train_split=predefined_split(task.val),
            batch_size=len(task.val),  # it averages over batches
            callbacks=[("confshift", ConfshiftCallback(run))],
        )
        net.fit(task.train, None)
        history = confshift.summarize(confshift.Run(run))
        assert history.main.objective.class_weights.tolist() == [1, 2, 4]
        assert net.history[-1]["valid_loss"] == pytest.approx(history.table["trained_loss"][0], rel=1e-5)

    def test_it_leaves_weights_and_forward_passes_alone(
        self, task, make_network, run, count_calls, assert_undisturbed
    ):
        skorch = needed("skorch")
        from skorch.helper import predefined_split

        from confshift.integrations.skorch import ConfshiftCallback

        def train(with_it):
            network = make_network()
            calls, loss, split = count_calls(network), nn.CrossEntropyLoss, predefined_split(task.val)
            callbacks = [ConfshiftCallback(run)] if with_it else []
            options = {"max_epochs": 2, "verbose": 0, "train_split": split, "callbacks": callbacks}
            skorch.NeuralNetClassifier(network, criterion=loss, **options).fit(task.train, None)
            return network.state_dict().values(), calls.number

        assert_undisturbed(train)

    def test_a_net_without_validation_is_an_error_that_says_how_to_get_one(self, task, make_network, run):
        skorch = needed("skorch")
        from confshift.integrations.skorch import ConfshiftCallback

        net = skorch.NeuralNetClassifier(
            make_network(),
            train_split=None,
            verbose=0,
            callbacks=[ConfshiftCallback(run)],
            max_epochs=1,
            criterion=nn.CrossEntropyLoss,
        )
        with pytest.raises(confshift.ConfshiftError, match="pass train_split="):
            net.fit(task.train, None)


class TestKeras:
    @pytest.mark.parametrize("form", ["sparse", "one-hot logits"])
    def test_each_epoch_is_saved_as_the_loss_declares_it(self, task, run, page, form):
        keras = needed("keras")
        from confshift.integrations.keras import ConfshiftCallback

        last = "softmax" if form == "sparse" else None
        layers = [keras.layers.Input((8,)), keras.layers.Dense(3, activation=last)]
        model = keras.Sequential(layers)
        loss = "sparse_categorical_crossentropy"
        (inputs, targets), val = ([part.numpy() for part in data.tensors] for data in (task.train, task.val))
        if form == "one-hot logits":
            loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
            targets, val[1] = np.eye(3)[targets], np.eye(3)[val[1]]
        model.compile(keras.optimizers.SGD(0.1), loss)
        names = ["a", "b", "c"]
        stop = keras.callbacks.EarlyStopping("val_confshift/refinement_loss", mode="min")
        callbacks = [ConfshiftCallback(run, class_names=names, report=page), stop]
        history = model.fit(inputs, targets, epochs=2, verbose=0, validation_data=val, callbacks=callbacks)
        saved = confshift.Run(run)
        assert (saved.epochs, saved.class_names) == ((1, 2), ("a", "b", "c"))
        table = confshift.summarize(saved).table
        trained = table["loss" if form == "sparse" else "trained_loss"]
        assert trained.iloc[-1] == pytest.approx(history.history["val_loss"][-1], rel=1e-5)
        expected = model.predict(val[0], verbose=0)
        predictions = saved[2].predictions
        found = np.exp(predictions.logits) if form == "sparse" else predictions.logits
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert "compute_loss" not in vars(model)
        assert page.exists()
        again = {"verbose": 0, "validation_data": val, "callbacks": callbacks[:1]}
        model.fit(inputs, targets, initial_epoch=2, epochs=3, **again)
        assert saved.epochs == (1, 2, 3)
        with pytest.raises(confshift.ConfshiftError, match=r"from epoch 1 on, .* begins with epoch 1"):
            model.fit(inputs, targets, **again)

    def test_it_leaves_weights_and_forward_passes_alone_also_after_an_interrupt(
        self, task, run, assert_undisturbed
    ):
        keras = needed("keras")
        from confshift.integrations.keras import ConfshiftCallback

        class Counting(keras.layers.Dense):
            calls = 0

            def call(self, inputs, training=None):
                self.calls += not training
                return super().call(inputs)

        class Interrupting(keras.callbacks.Callback):
            def on_test_batch_end(self, batch, logs=None):
                raise KeyboardInterrupt

        (inputs, targets), val = ([part.numpy() for part in data.tensors] for data in (task.train, task.val))
        callback = ConfshiftCallback(run)

        def train(with_it):
            keras.utils.set_random_seed(0)
            layer = Counting(3, activation="softmax")
            model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dropout(0.2), layer])
            model.compile("sgd", "sparse_categorical_crossentropy")
            options = {"epochs": 1, "verbose": 0, "validation_data": val}
            own = [callback] if with_it else []
            loss = model.compute_loss = functools.partial(model.compute_loss)  # a user's own
            with pytest.raises(KeyboardInterrupt):
                model.fit(inputs, targets, callbacks=[*own, Interrupting()], **options)
            model.fit(inputs, targets, callbacks=own, **options)
            assert model.compute_loss is loss
            return model.get_weights(), layer.calls

        assert_undisturbed(train)
        assert len(confshift.Run(run)[1]) == 103

    def test_another_loss_is_refused_when_the_training_begins(self, task, run):
        keras = needed("keras")
        from confshift.integrations.keras import ConfshiftCallback

        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])
        model.compile("sgd", "mean_squared_error")
        inputs, targets = (part.numpy() for part in task.val.tensors)
        with pytest.raises(confshift.ConfshiftError, match="loss='mean_squared_error'"):
            model.fit(inputs, targets > 1, verbose=0, callbacks=[ConfshiftCallback(run)])
