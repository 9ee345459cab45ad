import math
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from stored_runs import CLASSES, SAMPLES, another_process, failure, names, predictions

from confshift import Predictions, Run
from confshift.measurement import LEFT_OUT, MEASURED, measure
from confshift.scoring import score
from confshift.storage import appending, run_folder
from confshift.storage.writer import Writer


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def add(run, *epochs, split="val", **more):
    for epoch in epochs:
        run.append(predictions(int(epoch * 10)), epoch=epoch, split=split, **more)


class TestReading:
    def test_a_handle_on_a_missing_folder_is_fine_until_something_is_read(self, run):
        assert not run.exists()
        assert bool(run)
        assert run.name == "run"
        for read in (lambda: run.epochs, lambda: run[1], lambda: len(run), lambda: list(run), run.verify):
            assert str(run.path) in failure(read)
        assert not run.path.exists()

    def test_a_folder_that_is_no_run_is_refused_by_name(self, tmp_path):
        assert "is not a run" in failure(lambda: Run(tmp_path).epochs)

    def test_a_folder_that_holds_runs_names_five_of_them(self, tmp_path):
        paths = [tmp_path / name for name in "abcdefg"]
        for count, path in enumerate(paths, 1):
            Run(path).append(predictions())
            Run(path).flush()
            shown = ", ".join(map(str, paths[: min(count, 5)]))
            more = f" and {count - 5} more" if count > 5 else ""
            message = failure(lambda: Run(tmp_path).epochs)
            assert message == f"{tmp_path} is not a run: it has no run.json; did you mean {shown}{more}?"

    def test_a_misspelt_folder_names_the_runs_that_are_spelt_alike(self, tmp_path):
        for name in ("resnet18", "resnet34", "other"):
            Run(tmp_path / name).append(predictions())
            Run(tmp_path / name).flush()
        (tmp_path / "resnet19").mkdir()
        message = failure(lambda: Run(tmp_path / "resnt18").epochs)
        assert message.endswith(f"; did you mean {tmp_path / 'resnet18'}, {tmp_path / 'resnet34'}?")
        assert "did you mean" not in failure(lambda: Run(tmp_path / "vgg").epochs)
        assert "did you mean" not in failure(lambda: Run(tmp_path / "resnet19").epochs)

    @pytest.mark.parametrize(
        ("epoch", "says"),
        [
            (26.0, "has no epoch 26 of split 'val'; its epochs: 1"),
            (0.5, "has no epoch 0.5 of split 'val'"),
            (np.float64(7), "has no epoch 7 of split 'val'"),
            ("train", "epoch='train' is not a number: pass run.checkpoint(epoch, split='train')"),
            (None, "epoch=None is not a number: pass one of run.epochs"),
            ([1], "epoch=[1] is not a number: pass one of run.epochs"),
        ],
    )
    def test_an_epoch_that_is_not_there_is_named_as_people_write_it(self, run, epoch, says):
        add(run, 1)
        assert says in failure(lambda: run[epoch])

    def test_what_was_appended_is_read_back_bit_for_bit(self, run):
        given = predictions(1, class_names=["a", "b", "<script>"])
        run.append(given, metadata={"lr": 0.1, "note": ["x", None]}, logged={"loss": math.nan})
        found = another_process(run.path)[1]
        read = found.predictions
        assert read.logits.tobytes() == given.logits.tobytes()
        assert read.logits.dtype == given.logits.dtype
        assert (read.targets == given.targets).all()
        assert read.targets.dtype == np.int64
        assert (read.sample_ids == given.sample_ids).all()
        assert read.class_names == found.class_names == ("a", "b", "<script>")
        assert read.fingerprint == given.fingerprint
        assert found.metadata == {"lr": 0.1, "note": ["x", None]}
        assert math.isnan(found.provenance.logged["loss"])

    def test_the_columns_read_are_those_measured(self, run):
        given = predictions(1)
        saved = run.append(given)
        expected = measure(given)
        for found in (saved.measurement, another_process(run.path)[1].measurement):
            assert found.rows.dtype == MEASURED
            assert found.rows.tobytes() == expected.rows.tobytes()
            assert found.beta == expected.beta
            assert (found.sample_ids == expected.sample_ids).all()

    def test_loss_and_accuracy_wait_for_no_temperature(self, run, monkeypatch):
        given, fitted = predictions(1), threading.Event()

        def slow(*arguments):
            assert fitted.wait(60)
            return measure(*arguments)

        monkeypatch.setattr("confshift.storage.writer.measure", slow)
        saved = run.append(given)
        loss, accuracy = saved.loss, saved.accuracy  # would never come if they waited
        fitted.set()
        assert (loss, accuracy) == (saved.metrics()["loss"], saved.metrics()["accuracy"])
        assert loss == pytest.approx(score(given.logits, given.targets).loss.mean())

    def test_splits_epochs_and_checkpoints_come_in_order(self, run):
        add(run, 2, 0, 0.5)
        add(run, 2, 0.5, split="train")
        add(run, 7, split="a.b")
        assert run.splits == ("val", "a.b", "train")
        assert run.epochs == (0, 0.5, 2)
        assert run.epochs_of("train") == (0.5, 2)
        assert run.epochs_of("nothing") == ()
        assert [one.epoch for one in run.checkpoints("train")] == [0.5, 2]
        assert [(one.epoch, one.split) for one in run] == [
            (0, "val"),
            (0.5, "val"),
            (0.5, "train"),
            (2, "val"),
            (2, "train"),
            (7, "a.b"),
        ]
        assert len(run) == 6
        assert run.checkpoint(2, split="train").split == "train"

    def test_a_missing_epoch_is_an_error_that_lists_those_there_are(self, run):
        add(run, 1, 2.5)
        assert "epochs: 1, 2.5" in failure(lambda: run[2])
        assert "epochs: none" in failure(run.checkpoint, 1, split="train")

    def test_columns_are_read_without_the_logits(self, run):
        add(run, 1)
        run.flush()
        for file in run.path.glob("val/*.logits.npy"):  # right in size, and nothing else
            file.write_bytes(b"\0" * file.stat().st_size)
        found = another_process(run.path)[1]
        assert len(found.columns) == SAMPLES
        assert found.metrics()["samples"] == SAMPLES
        assert "header" in failure(lambda: found.predictions)

    def test_logits_are_mapped_and_can_not_be_written_to(self, run):
        add(run, 1)
        logits = another_process(run.path)[1].predictions.logits
        assert not logits.flags.writeable
        assert not logits.flags.owndata

    def test_a_folder_that_can_only_be_read_is_read_and_left_as_it_was(self, run):
        add(run, 1, 2)
        run.flush()
        before = {name: (run.path / name).stat().st_mtime_ns for name in names(run.path)}
        for folder in (run.path / "val", run.path):
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            found = another_process(run.path)
            assert [len(one.columns) for one in found] == [SAMPLES, SAMPLES]
            assert found.verify()["sound"].all()
            assert found.problems.empty
        finally:
            for folder in (run.path, run.path / "val"):
                folder.chmod(stat.S_IRWXU)
        assert {name: (run.path / name).stat().st_mtime_ns for name in names(run.path)} == before

    def test_reading_a_run_imports_neither_torch_nor_altair_nor_sklearn(self, run):
        add(run, 1)
        run.flush()
        code = (
            "import sys, confshift; run = confshift.Run(sys.argv[1]); run[1].metrics(); run[1].predictions;"
            "run.problems; print([name for name in ('torch', 'altair', 'sklearn') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, run.path], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_a_handle_still_finds_its_folder_after_the_process_moved(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = Run("here")
        add(run, 1)
        monkeypatch.chdir("/")
        assert run.epochs == (1,)
        assert (tmp_path / "here" / "run.json").exists()

    def test_any_program_can_read_the_files(self, run):
        add(run, 1)
        run.flush()
        (logits,) = run.path.glob("val/*.logits.npy")
        (columns,) = run.path.glob("val/*.columns.npy")
        assert np.load(logits, allow_pickle=False).tobytes() == predictions(10).logits.tobytes()
        table = np.load(columns, allow_pickle=False)
        assert table.dtype.names == ("sample_id", *MEASURED.names, *LEFT_OUT.names)
        assert (table["target"] == predictions().targets).all()


class TestForms:
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_each_float_dtype_is_kept(self, run, dtype):
        logits = np.random.default_rng(0).normal(size=(9, 2)).astype(dtype)
        logits[0] = np.nan
        logits[1, 0] = -np.inf
        run.append(Predictions(logits, np.ones(9, int)))
        read = another_process(run.path)[1].predictions
        assert read.logits.dtype == dtype
        assert read.source_dtype == dtype
        assert read.logits.tobytes() == logits.tobytes()

    def test_bfloat16_takes_two_bytes_a_number_and_comes_back_exactly(self, run):
        given = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
        given[2, 1] = math.nan
        given[3, 0] = -math.inf
        run.append(Predictions(given, torch.zeros(9, dtype=torch.long)))
        read = another_process(run.path)[1].predictions
        assert read.source_dtype == "bfloat16"
        assert read.logits.dtype == np.float32
        assert read.logits.tobytes() == given.float().numpy().tobytes()
        (file,) = run.path.glob("val/*.logits.npy")
        assert file.stat().st_size == 128 + 2 * given.numel()

    def test_what_is_called_bfloat16_and_is_not_is_kept_as_float32(self, run):
        given = predictions(0, source_dtype="bfloat16")
        run.append(given)
        assert another_process(run.path)[1].predictions.logits.tobytes() == given.logits.tobytes()

    @settings(max_examples=25, deadline=None)
    @given(
        ids=st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    def test_text_ids_of_any_script_come_back_in_the_same_order(self, tmp_path_factory, ids):
        run = Run(tmp_path_factory.mktemp("ids") / "run")
        given = Predictions(2 * np.eye(len(ids), 2), np.zeros(len(ids), int), sample_ids=ids)
        run.append(given)
        read = another_process(run.path)[1]
        assert read.predictions.sample_ids.tolist() == given.sample_ids.tolist()
        assert read.predictions.fingerprint == given.fingerprint

    def test_integer_ids_keep_all_their_digits(self, run):
        ids = [-(2**63), -1, 2**53 + 1, 2**63 - 1]
        run.append(Predictions(2 * np.eye(4), [0, 1, 2, 3], sample_ids=ids))
        assert another_process(run.path)[1].columns.index.tolist() == ids

    def test_ids_that_are_no_proper_text_are_refused_at_once(self, run):
        given = Predictions(2 * np.eye(2), [0, 1], sample_ids=["a", "\ud800"])
        assert "UTF-8" in failure(run.append, given)
        assert not run.exists()

    def test_what_predictions_left_out_and_how_ids_were_found_is_kept(self, run):
        given = Predictions(
            [[1.0, 0], [1, 0], [2, 3], [4, 5]], [0, 0, -100, 1], sample_ids=[5, 5, 6, 7], id_source="sampler"
        )
        run.append(given, checks={"deterministic": True})
        found = another_process(run.path)[1]
        for place in (found.predictions, found.provenance):
            assert (place.id_source, place.ignored_samples, place.duplicate_samples) == ("sampler", 1, 1)
        assert found.provenance.checks == {"deterministic": True}
        assert pd.Timestamp(found.provenance.written).tzinfo is not None
        assert {"confshift", "numpy", "python"} <= set(found.provenance.versions)
        assert len(found.provenance.writer) == 16

    @pytest.mark.parametrize(
        "groups",
        [
            np.arange(SAMPLES) // 3,
            np.arange(SAMPLES) // 3 - 5,
            np.arange(SAMPLES) // 3 + 2**40,
            [f"é {row % 4}" for row in range(SAMPLES)],
        ],
    )
    def test_groups_come_back_as_they_were(self, run, groups):
        for epoch in (1, 2):
            run.append(predictions(epoch, groups=groups), epoch=epoch)
        saved = another_process(run.path)[1]
        assert saved.predictions.groups.tolist() == list(groups)
        assert saved.predictions.groups.dtype.kind in "iU"
        assert saved.columns["group"].tolist() == list(groups)
        assert saved.predictions.fingerprint == predictions(1, groups=groups).fingerprint

    def test_what_the_rows_are_is_kept(self, run):
        rows = {"task": "multilabel", "label_names": ("cat", "dog"), "total_rows": 30}
        run.append(predictions(1, classes=2, **rows))
        saved = another_process(run.path)[1]
        for name, value in rows.items():
            assert getattr(saved.predictions, name) == getattr(saved.provenance, name) == value
        assert saved.class_names == ("no", "yes")

    @pytest.mark.parametrize(
        ("first", "then", "words"),
        [
            (
                [0, 0, 1] * 5,
                [0, 1, 1] * 5,
                ["groups of 5 of 15 samples", "sample 1: 0 before, 1 now", "same groups="],
            ),
            ([0, 0, 1] * 5, None, ["had groups and have none now", "same groups="]),
            (None, [0, 0, 1] * 5, ["had no groups and have some now", "leave groups= out"]),
        ],
    )
    def test_other_groups_are_refused_whether_the_first_are_saved_or_on_their_way(
        self, run, first, then, words
    ):
        run.append(predictions(1, samples=15, groups=first))
        for path in (run, another_process(run.path)):
            message = failure(path.append, predictions(2, samples=15, groups=then), epoch=2)
            for word in words:
                assert word in message
            run.flush()

    def test_names_of_groups_that_would_fill_the_records_are_refused_and_numbers_are_not(
        self, run, monkeypatch
    ):
        monkeypatch.setattr(appending, "_MAX_NAMES", 100)
        groups = np.array([f"document {row}" for row in range(SAMPLES)])
        message = failure(run.append, predictions(1, groups=groups))
        assert "20 different names" in message
        numbers = eval(message.split(": ")[-1])
        run.append(predictions(1, groups=numbers))
        assert run[1].predictions.groups.tolist() == np.unique(groups, return_inverse=True)[1].tolist()

    def test_numbers_of_numpy_and_torch_are_kept_as_numbers(self, run):
        run.append(
            predictions(), metadata={"lr": np.float32(0.5), "step": np.int64(3), "loss": torch.tensor(2.0)}
        )
        assert another_process(run.path)[1].metadata == {"lr": 0.5, "step": 3, "loss": 2.0}

    @pytest.mark.parametrize(
        "metadata",
        [
            {"model": object()},
            {1: 2},
            {"big": "x" * (1 << 24)},
            [1],
            (("a", 1),),
        ],
        ids=lambda value: str(next(iter(value))),
    )
    def test_notes_that_json_can_not_hold_are_refused_at_once(self, run, metadata):
        assert "metadata" in failure(run.append, predictions(), metadata=metadata)
        assert not run.exists()

    def test_arrays_and_tensors_among_the_notes_are_kept_as_lists(self, run):
        given = {"a": np.arange(3), "t": torch.ones(2), "one": torch.tensor([0.5]), "s": np.float32(2)}
        run.append(predictions(), metadata=given)
        run.flush()
        kept = another_process(run.path)[1].metadata
        assert dict(kept) == {"a": [0, 1, 2], "t": [1.0, 1.0], "one": 0.5, "s": 2.0}


class TestEpochs:
    def test_val_counts_by_itself_and_other_splits_follow_it(self, run):
        assert run.append(predictions(0), split="train").epoch == 0
        assert [run.append(predictions(n)).epoch for n in range(3)] == [1, 2, 3]
        assert run.append(predictions(4), split="train").epoch == 3
        assert run.append(predictions(5), epoch=7.5).epoch == 7.5
        assert run.append(predictions(6)).epoch == 8
        assert run.append(predictions(7), split="train").epoch == 8

    def test_a_baseline_at_zero_leaves_the_count_at_one(self, run):
        assert run.append(predictions(0), epoch=0).epoch == 0
        assert run.append(predictions(1)).epoch == 1

    def test_another_split_follows_the_val_epoch_appended_last(self, run):
        for epoch in (9, 3):  # saved checkpoints, looked at in any order
            run.append(predictions(epoch), epoch=epoch)
            assert run.append(predictions(epoch), split="train").epoch == epoch

    def test_the_count_goes_on_after_an_epoch_was_done_again(self, run):
        add(run, 1, 2, 3)
        run.append(predictions(50), epoch=2)
        assert run.append(predictions(51)).epoch == 4
        assert run.epochs == (1, 2, 3, 4)

    @pytest.mark.parametrize("epoch", [-1, math.nan, math.inf, "3", True, None.__class__, [1]])
    def test_what_is_no_epoch_is_refused_by_value(self, run, epoch):
        message = failure(run.append, predictions(), epoch=epoch)
        assert f"epoch={epoch!r}" in message
        assert "is not a number; pass 0, 1, 2" in message or "pass 0 (before training) or more" in message
        assert not run.exists()

    @pytest.mark.parametrize("epoch", [np.int64(3), np.float32(3), 3])
    def test_any_real_number_is_an_epoch(self, run, epoch):
        found = run.append(predictions(), epoch=epoch).epoch
        assert type(found) is float
        assert found == 3

    @pytest.mark.parametrize("epoch", [None, 0])
    @pytest.mark.parametrize("split", ["val", "train"])
    def test_a_second_process_must_say_where_it_goes_on(self, run, epoch, split):
        add(run, 1, 2)
        run.flush()
        before = names(run.path)
        message = failure(another_process(run.path).append, predictions(), epoch=epoch, split=split)
        for remedy in ("another run folder", "pass epoch=", "delete()"):
            assert remedy in message
        assert names(run.path) == before

    def test_a_resumed_training_counts_on_from_where_it_resumed(self, run):
        add(run, 1, 2, 3)
        run.flush()
        again = another_process(run.path)
        again.append(predictions(90), epoch=2)
        assert again.append(predictions(91)).epoch == 3
        assert again.append(predictions(92), split="train").epoch == 3
        assert again.epochs == (1, 2, 3)
        writers = [one.provenance.writer for one in again.checkpoints()]
        assert writers[0] != writers[1] == writers[2]

    def test_check_epoch_says_what_append_would_do(self, run):
        assert run.check_epoch() == 1
        assert run.check_epoch(0) == 0
        assert not run.holds("val")
        add(run, 4)
        assert run.holds("val")
        assert run.check_epoch() == 5
        assert run.check_epoch(split="train") == 4
        assert "epoch=-1" in failure(run.check_epoch, -1)
        assert "delete()" in failure(another_process(run.path).check_epoch)
        assert run.epochs == (4,)


class TestReplacing:
    def test_an_epoch_done_again_is_replaced_and_its_files_are_removed(self, run):
        add(run, 1, 2)
        run.append(predictions(77), epoch=1)
        assert run.epochs == (1, 2)
        assert run[1].predictions.logits.tobytes() == predictions(77).logits.tobytes()
        assert len(names(run.path / "val")) == 6
        assert [record.generation for record in run._split_folder("val").records.values()] == [1, 0]

    def test_the_same_content_again_changes_no_file(self, run):
        add(run, 1)
        run.flush()
        before = {name: (run.path / name).stat().st_ino for name in names(run.path)}
        for writer in (run, another_process(run.path)):
            add(writer, 1)
            writer.flush()
            assert {name: (run.path / name).stat().st_ino for name in names(run.path)} == before

    @pytest.mark.parametrize(
        "change",
        [{"metadata": {"lr": 1}}, {"logged": {"loss": 2.0}}, {"checks": {"x": 1}}],
        ids=lambda change: next(iter(change)),
    )
    def test_other_notes_are_other_content(self, run, change):
        add(run, 1)
        add(run, 1, **change)
        run.flush()
        assert run._split_folder("val").records[1].generation == 1

    def test_what_was_open_stays_readable_while_its_epoch_is_replaced(self, run):
        add(run, 1)
        run.flush()
        old = another_process(run.path)[1]
        logits = old.predictions.logits
        again = another_process(run.path)
        again.append(predictions(77), epoch=1)
        again.flush()
        assert logits.tobytes() == predictions(10).logits.tobytes()

    def test_a_record_replaced_between_listing_and_reading_is_looked_for_again(self, run, monkeypatch):
        add(run, 1)
        run.flush()
        listed = run_folder.look_into(run.path / "val")
        run.append(predictions(77), epoch=1)
        reader = another_process(run.path)
        listings = [listed]
        real = run_folder.look_into
        monkeypatch.setattr(
            run_folder, "look_into", lambda folder: listings.pop() if listings else real(folder)
        )
        assert reader._split_folder("val").problems == []
        assert not listings
        assert reader[1].predictions.logits.tobytes() == predictions(77).logits.tobytes()

    def test_reading_while_another_replaces_never_calls_anything_damaged(self, run, tmp_path):
        add(run, 1)
        run = another_process(run.path)
        code = (
            "import itertools, sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
            "run = Run(sys.argv[1])\n"
            "for seed in itertools.count():\n"
            "    run.append(predictions(seed), epoch=1)\n"
            "    if Path(sys.argv[3]).exists(): break\n"
        )
        reader, stop = another_process(run.path), tmp_path / "stop"
        (first,) = reader._split_folder("val").records.values()
        argv = [sys.executable, "-c", code, run.path, Path(__file__).parent, stop]
        with subprocess.Popen(argv) as writing:
            generations = {first.generation}
            while len(generations) < 12:  # so many replacements were seen
                split_folder = reader._split_folder("val")
                assert split_folder.problems == []
                generations.add(split_folder.records[1].generation)
                assert writing.poll() is None
            stop.touch()
        assert writing.returncode == 0


class TestRefusing:
    def test_changed_targets_are_refused_with_their_number(self, run):
        add(run, 1)
        changed = predictions().targets.copy()
        changed[:2] = (changed[:2] + 1) % CLASSES
        message = failure(run.append, Predictions(predictions().logits, changed))
        assert "the targets of 2 of 20 samples changed" in message
        assert run.epochs == (1,)

    def test_targets_changed_in_place_are_noticed(self, run):
        given = predictions()
        run.append(given)
        run.flush()
        logits, targets = given.logits.copy(), given.targets
        targets[:2] = (targets[:2] + 1) % CLASSES
        assert "the targets of 2 of 20 samples changed" in failure(run.append, Predictions(logits, targets))

    def test_changed_samples_are_refused_with_their_number(self, run):
        add(run, 1)
        run.flush()
        message = failure(another_process(run.path).append, predictions(0, samples=17), epoch=2)
        assert "20 samples before and 17 now" in message
        ids = [f"s{n}" for n in range(SAMPLES)]
        assert "now text" in failure(run.append, predictions(0, sample_ids=ids))

    def test_each_split_has_samples_of_its_own(self, run):
        add(run, 1)
        run.append(predictions(0, samples=7), split="train")
        assert "7 samples before and 20 now" in failure(run.append, predictions(), split="train")

    def test_another_number_of_classes_is_refused(self, run):
        add(run, 1)
        assert "3 classes, and these logits have 4" in failure(run.append, predictions(classes=4))
        assert "3 classes, and these logits have 4" in failure(run.append, predictions(classes=4), split="x")

    def test_names_forgotten_at_first_may_come_later_and_then_hold(self, run):
        run.append(predictions(1))
        named = ("cat", "dog", "cow")
        assert run.append(predictions(2, class_names=named)).class_names == named
        assert run.append(predictions(3)).class_names == named
        for found in (run, another_process(run.path)):
            assert [one.class_names for one in found] == [named] * 3
        other = another_process(run.path)
        message = failure(other.append, predictions(4, class_names=["dog", "cat", "cow"]), epoch=4)
        assert "2 of 3 class names changed (class 0 was 'cat' and is now 'dog')" in message
        assert other.append(predictions(4), epoch=4).predictions.class_names == named
        assert "3 classes, and these logits have 4" in failure(other.append, predictions(classes=4), epoch=5)
        assert other.verify()["sound"].all()
        other.delete()
        assert not run.path.exists()

    def test_names_may_come_in_another_process_and_run_json_stays_as_it_was(self, run):
        run.append(predictions(1))
        run.flush()
        before = (run.path / "run.json").read_bytes()
        other = another_process(run.path)
        other.append(predictions(2, class_names=["a", "b", "c"]), epoch=2)
        assert another_process(run.path).class_names == ("a", "b", "c")
        assert (run.path / "run.json").read_bytes() == before
        (run.path / "class_names.json").write_text("{}")
        left = another_process(run.path)
        assert left.class_names == ("0", "1", "2")
        (problem,) = left.problems.to_dict("records")
        assert (problem["file"], problem["kind"]) == ("class_names.json", "in part")
        assert "class_names.json is damaged" in problem["reason"]
        assert "the classes are called by their numbers" in problem["reason"]

    def test_other_class_names_are_refused_and_plain_numbers_take_the_names_of_the_run(self, run):
        run.append(predictions(class_names=["cat", "dog", "cow"]))
        message = failure(run.append, predictions(class_names=["cat", "cow", "dog"]))
        assert "2 of 3 class names changed (class 1 was 'dog' and is now 'cow')" in message
        assert run.append(predictions(5)).class_names == ("cat", "dog", "cow")

    @pytest.mark.parametrize(
        "split",
        [
            "../x",
            "a/b",
            "/etc",
            "..",
            ".hidden",
            "a\0b",
            "",
            "x" * 65,
            "CON",
            "nul.txt",
            "a\\b",
            "é",
            "e\n",
            "~",
            3,
        ],
    )
    def test_a_split_that_can_not_name_a_folder_is_refused(self, run, split):
        assert "split=" in failure(run.append, predictions(), split=split)
        assert not run.path.exists()

    def test_splits_that_differ_by_case_only_are_refused_while_the_first_is_on_its_way(
        self, run, monkeypatch
    ):
        waiting = run._writer._saves  # their folder is not there yet
        monkeypatch.setattr(Writer, "submit", lambda _, save: waiting.append(save))
        run.append(predictions())
        told = [
            failure(*call, epoch=1, split="Val") for call in ([run.append, predictions()], [run.check_epoch])
        ]
        waiting.clear()
        assert all("the run has 'val'" in one for one in told)

    def test_splits_that_differ_by_case_only_are_refused(self, run):
        add(run, 1)
        run.flush()
        assert "'val'" in failure(run.append, predictions(), split="Val")

    def test_a_run_that_is_a_file_is_refused_at_once(self, tmp_path):
        (tmp_path / "run").write_text("mine")
        assert "is a file" in failure(Run(tmp_path / "run").append, predictions())
        assert (tmp_path / "run").read_text() == "mine"


class TestWholeFolders:
    def test_delete_removes_what_a_run_holds_and_nothing_else(self, run):
        add(run, 1, 2)
        add(run, 2, split="train")
        run.flush()
        own = [run.path / "report.html", run.path / "val" / "notes.txt", run.path / "val" / "00001.json"]
        for file in own:
            file.write_text("mine")
        run.delete()
        assert sorted(run.path.rglob("*")) == sorted([*own, run.path / "val"])

    def test_delete_removes_the_folder_where_nothing_else_is_in_it(self, run):
        add(run, 1)
        run.delete()
        assert not run.path.exists()

    def test_a_folder_that_is_no_run_is_never_deleted(self, tmp_path):
        (tmp_path / "val").mkdir()
        (tmp_path / "val" / "000001.json").write_text("{}")
        assert "is not a run" in failure(Run(tmp_path).delete)
        assert (tmp_path / "val" / "000001.json").exists()

    def test_after_a_run_is_deleted_the_same_process_starts_at_one(self, run):
        add(run, 1, 2, 3)
        run.flush()
        run.delete()
        assert run.append(predictions(0, samples=5)).epoch == 1
        assert run.epochs == (1,)

    def test_a_training_whose_run_is_removed_goes_on_counting_and_the_log_says_so(self, run, caplog):
        add(run, 1, 2, 3)
        run.flush()
        os.system(f"rm -r {run.path}")
        assert run.append(predictions(0)).epoch == 4
        run.flush()
        assert run.append(predictions(1)).epoch == 5
        assert run.epochs == (4, 5)
        (message,) = [one for one in caplog.messages if "was removed" in one]
        assert "the count goes on after epoch 3" in message

    def test_a_new_folder_is_nobody_elses(self, tmp_path):
        made = [Run.create(tmp_path / "runs", "today").name for _ in range(3)]
        assert made == ["today", "today-2", "today-3"]

    def test_a_copy_and_a_moved_run_are_runs(self, run, tmp_path):
        add(run, 1)
        run.flush()
        run.path.rename(tmp_path / "moved")
        assert Run(tmp_path / "moved").epochs == (1,)
        assert not run.exists()

    def test_verify_has_a_row_for_each_file(self, run):
        add(run, 1, 2)
        table = run.verify()
        assert list(table) == ["split", "epoch", "file", "sound", "reason"]
        assert len(table) == 4
        assert table["sound"].all()
        assert list(run.problems) == ["split", "epoch", "kind", "file", "reason"]
        assert run.problems.empty
