"""What `confshift add` reads: .npz and Parquet files of other programs, and which epochs they are."""

import contextlib
import io
import json
import sys

import click.testing
import hypothesis.strategies as st
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from stored_runs import failure, predictions

from confshift import ConfshiftError, Predictions, Run
from confshift.cli import main
from confshift.storage import parquet
from confshift.storage.parquet import read_parquet
from confshift.storage.saved_files import saved_files


def write(path, given, form="list", **more):
    """Write predictions as another program may, in one of the forms of logits."""
    logits = given.logits
    columns = {"target": given.targets, "sample_id": given.sample_ids, **more}
    if form == "list":
        columns["logits"] = list(logits)
    elif form == "fixed":
        flat = pyarrow.array(logits.reshape(-1))
        columns["logits"] = pyarrow.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    elif form == "named":
        columns |= {f"logit_{name}": column for name, column in zip("cab", logits.T, strict=True)}
    else:  # in another order
        columns |= {f"logit_{k}": logits[:, k] for k in reversed(range(logits.shape[1]))}
    columns = {name: column for name, column in columns.items() if column is not None}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def same(found, expected):
    assert found.logits.tobytes() == expected.logits.tobytes()
    assert found.logits.dtype == expected.logits.dtype
    assert found.fingerprint == expected.fingerprint


def add(*arguments, code=0):
    result = click.testing.CliRunner().invoke(main, ["add", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


class TestNames:
    @pytest.mark.parametrize(
        ("name", "epoch"),
        [
            *(("epoch_003.npz", 3), ("val-12.5.npz", 12.5), ("3.npz", 3), ("epoch=3-step=1200.npz", 3)),
            *(("resnet18_Epoch-7.parquet", 7), ("2024-05-01_ep4.npz", 4), ("val_loss0.31_epoch0.npz", 0)),
            *(("epoch 5 (copy 2).npz", 5), ("checkpoint-500.npz", 500), ("validation_1.npz", 1)),
        ],
    )
    def test_the_epoch_is_the_number_or_the_one_after_epoch(self, tmp_path, name, epoch):
        (tmp_path / name).touch()
        for path in (tmp_path, tmp_path / name):
            (found,) = saved_files(path, epoch=None, split=None)
            assert (found.path, found.epoch, found.split) == (tmp_path / name, epoch, "val")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("last.npz", "has a name without a number"),
            ("resnet18-3.npz", "has 2 numbers in its name (18, 3)"),
            ("epoch3_epoch4.npz", "has 2 numbers"),
            ("v1.2.3.npz", "has a name without a number"),
            ("epoch_-1.npz", "a negative number"),
            ("-1.npz", "a negative number"),
            ("part-0.parquet", "a part of a table"),
        ],
    )
    def test_a_name_that_leaves_it_open_is_refused_with_a_remedy_that_works(self, tmp_path, name, words):
        path = tmp_path / name
        path.touch()
        for place in (tmp_path, path):
            message = failure(saved_files, place, epoch=None, split=None)
            assert name in message
            assert words in message
            assert f"rename it (epoch_3{path.suffix}), or add it by itself with --epoch" in message
        assert saved_files(path, epoch=3, split=None)[0].epoch == 3
        path.rename(tmp_path / f"epoch_3{path.suffix}")
        assert saved_files(tmp_path, epoch=None, split=None)[0].epoch == 3

    @given(
        st.floats(0, 1e6).map(lambda number: round(number, 3)), st.sampled_from(["", "epoch_", "val-", "Ep"])
    )
    def test_any_epoch_comes_back_from_its_name(self, tmp_path_factory, epoch, before):
        path = tmp_path_factory.getbasetemp() / f"{before}{epoch:f}.npz"
        assert saved_files(path, epoch=None, split=None)[0].epoch == float(f"{epoch:f}")

    def test_another_split_in_the_name_is_refused(self, tmp_path):
        for name in ("train-1.npz", "train-2.npz"):
            (tmp_path / name).touch()
        message = failure(saved_files, tmp_path, epoch=None, split=None)
        assert "train-1.npz is called train, and the split is 'val': pass --split train" in message
        assert [one.split for one in saved_files(tmp_path, epoch=None, split="train")] == ["train"] * 2

    def test_two_files_of_one_epoch_are_refused(self, tmp_path):
        for name in ("epoch_3.npz", "epoch_03.npz"):
            (tmp_path / name).touch()
        message = failure(saved_files, tmp_path, epoch=None, split=None)
        assert "epoch_03.npz and epoch_3.npz are both epoch 3 (val)" in message

    def test_a_folder_without_files_and_one_with_a_single_epoch_are_refused(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        (tmp_path / ".epoch_1.npz").touch()
        assert "holds no .npz or .parquet file" in failure(saved_files, tmp_path, epoch=None, split=None)
        assert "leave it out" in failure(saved_files, tmp_path, epoch=3, split=None)
        assert "split='a/b'" in failure(saved_files, tmp_path, epoch=None, split="a/b")


class TestParquet:
    @settings(max_examples=20, deadline=None)
    @given(
        st.integers(2, 12), st.integers(1, 9), st.sampled_from(["list", "fixed", "columns"]), st.booleans()
    )
    def test_every_form_gives_the_same_predictions(self, tmp_path_factory, classes, samples, form, text):
        ids = [f"é{row:03d}" for row in range(samples)] if text else None
        given_ones = predictions(samples, samples=samples, classes=classes, sample_ids=ids)
        same(read_parquet(write(tmp_path_factory.getbasetemp() / "1.parquet", given_ones, form)), given_ones)

    def test_names_in_the_columns_are_those_of_the_classes(self, tmp_path):
        found = read_parquet(write(tmp_path / "1.parquet", predictions(1), "named"))
        assert found.class_names == ("c", "a", "b")
        assert found.logits.tobytes() == predictions(1).logits.tobytes()

    def test_groups_ids_and_other_columns(self, tmp_path):
        groups = np.arange(20) // 4
        path = write(tmp_path / "1.parquet", predictions(1), sample_id=None, group=groups, mine=["x"] * 20)
        same(read_parquet(path), predictions(1, groups=groups))
        dictionary = pyarrow.array([f"p{one}" for one in groups]).dictionary_encode()
        path = write(tmp_path / "1.parquet", predictions(1), group=dictionary)
        assert read_parquet(path).groups.tolist() == [f"p{one}" for one in groups]

    def test_probabilities(self, tmp_path):
        shares = np.exp(predictions(1).logits.astype(float))
        shares /= shares.sum(axis=1, keepdims=True)
        table = {"probabilities": list(shares), "labels": predictions(1).targets}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "1.parquet")
        expected = Predictions.from_probabilities(shares, predictions(1).targets)
        same(read_parquet(tmp_path / "1.parquet"), expected)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda columns: columns.pop("target"), "has no column `target`"),
            (lambda columns: columns.pop("logits"), "neither logits nor probabilities"),
            (lambda columns: columns.update(probability_0=[0.5] * 20), "both logits and probabilities"),
            (lambda columns: columns.update(logits=[[1.0, 2.0]] * 19 + [[1.0]]), "2 different lengths"),
            (lambda columns: columns.update(logits=[[1.0, None]] * 20), "20 numbers of logits are missing"),
            (lambda columns: columns.update(logits=[[1.0, 2.0]] * 19 + [None]), "2 different lengths"),
            (lambda columns: columns.update(logits=[1.0] * 20), "not of lists"),
            (lambda columns: columns.update(target=[None, *[0] * 19]), "1 of 20 rows have no target"),
            (lambda columns: columns.update(epoch=[1, 2] * 10), "rows of 2 epochs"),
        ],
    )
    def test_what_can_t_be_used_is_refused(self, tmp_path, change, words):
        columns = {"target": predictions(1).targets, "logits": list(predictions(1).logits)}
        change(columns)
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "1.parquet")
        message = failure(read_parquet, tmp_path / "1.parquet")
        assert words in message
        assert str(tmp_path / "1.parquet") in message

    def test_columns_that_leave_out_a_class_are_refused(self, tmp_path):
        table = {"target": [0, 1], "logit_0": [1.0, 2.0], "logit_2": [1.0, 2.0]}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "1.parquet")
        assert "name them logit_0 to logit_1" in failure(read_parquet, tmp_path / "1.parquet")

    def test_files_that_are_none_or_are_damaged_are_refused_cleanly(self, tmp_path):
        whole = write(tmp_path / "whole.parquet", predictions(1)).read_bytes()
        path, draw, refused = tmp_path / "1.parquet", np.random.default_rng(0), 0
        for content in (b"", b"PAR1", whole[:-9], whole[8:], b"\0" * 99):
            path.write_bytes(content)
            assert "can't be read as Parquet" in failure(read_parquet, path)
        for _ in range(60):
            content = bytearray(whole)
            content[draw.integers(len(whole))] ^= 1 << draw.integers(8)
            path.write_bytes(content)
            with contextlib.suppress(ConfshiftError):  # and nothing else
                read_parquet(path)
                continue
            refused += 1
        assert refused

    def test_a_table_larger_than_the_memory_is_not_read(self, tmp_path, monkeypatch):
        path, sizes = write(tmp_path / "1.parquet", predictions(1)), []
        monkeypatch.setattr(parquet, "check_room", lambda _, size: sizes.append(size))
        read_parquet(path)
        assert sizes[0] >= 4 * predictions(1).logits.nbytes

    def test_a_missing_pyarrow_is_named_with_the_extra(self, tmp_path, monkeypatch):
        path = write(tmp_path / "epoch_1.parquet", predictions(1))
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        message = add(tmp_path / "run", path, code=2).output
        assert "pip install 'confshift[parquet]'" in message


class TestAdding:
    def test_a_folder_of_npz_files_is_a_run(self, tmp_path):
        folder = tmp_path / "files"
        folder.mkdir()
        for epoch in (1, 2, 10):
            one = predictions(epoch)
            np.savez(
                folder / f"epoch_{epoch}.npz", predictions=one.logits, label_ids=one.targets
            )  # transformers
        (folder / "notes.txt").touch()
        said = add(tmp_path / "run", folder).stdout.splitlines()
        assert [line.split(",")[0] for line in said] == [
            f"{tmp_path / 'run'}: val epoch {n}" for n in (1, 2, 10)
        ]
        for epoch in (1, 2, 10):
            same(Run(tmp_path / "run")[epoch].predictions, predictions(epoch))

    def test_as_json_a_folder_has_a_row_for_each_file_and_a_file_what_it_always_had(self, tmp_path):
        folder = tmp_path / "files"
        folder.mkdir()
        for epoch in (1, 2.5):
            write(folder / f"val-{epoch}.parquet", predictions(int(epoch)))
        found = json.loads(add(tmp_path / "run", folder, "--json").stdout)
        assert [(one["file"], one["split"], one["epoch"]) for one in found["checkpoints"]] == [
            ("val-1.parquet", "val", 1.0),
            ("val-2.5.parquet", "val", 2.5),
        ]
        single = json.loads(add(tmp_path / "other", folder / "val-2.5.parquet", "--json").stdout)
        assert single["metrics"] == found["checkpoints"][1]["metrics"]
        assert set(single) == {"schema", "run", "split", "epoch", "metrics"}

    def test_the_first_file_that_can_t_be_used_is_named_and_those_before_it_are_there(self, tmp_path):
        folder = tmp_path / "files"
        folder.mkdir()
        write(folder / "1.parquet", predictions(1))
        write(folder / "2.parquet", predictions(1, samples=7))
        assert f"{folder / '2.parquet'}: " in add(tmp_path / "run", folder, code=2).output
        assert Run(tmp_path / "run").epochs == (1,)

    def test_what_is_exported_with_logits_can_be_added_again(self, tmp_path):
        run = Run(tmp_path / "run")
        names = ["x", "y", "z"]
        for epoch in (0.5, 2):
            for split in ("val", "train"):
                one = predictions(int(4 * epoch), class_names=names, groups=np.arange(20) // 2)
                run.append(one, epoch=epoch, split=split)
        run.flush()
        run.export_parquet(tmp_path / "files", logits=True)
        add(tmp_path / "again", tmp_path / "files")
        again = Run(tmp_path / "again")
        assert again.splits == ("val", "train")
        for one in run:
            other = again.checkpoint(one.epoch, split=one.split)
            same(other.predictions, one.predictions)
            assert other.class_names == one.class_names
            np.testing.assert_equal(other.metrics(), one.metrics())
        add(tmp_path / "train", tmp_path / "files", "--split", "train")
        assert Run(tmp_path / "train").splits == ("train",)

    def test_an_export_without_logits_is_refused(self, tmp_path):
        run = Run(tmp_path / "run")
        run.append(predictions(1), epoch=1)
        run.flush()
        run.export_parquet(tmp_path / "files")
        assert (
            "neither logits nor probabilities" in add(tmp_path / "again", tmp_path / "files", code=2).output
        )

    @pytest.mark.parametrize("task", ["binary", "multilabel"])
    def test_the_task_of_an_export_is_kept(self, tmp_path, task):
        more = {"task": task, "label_names": ("cat", "dog")} if task == "multilabel" else {"task": task}
        run = Run(tmp_path / "run")
        run.append(predictions(1, classes=2, **more), epoch=1)
        run.flush()
        run.export_parquet(tmp_path / "files", logits=True)
        add(tmp_path / "again", tmp_path / "files")
        (found,) = Run(tmp_path / "again").checkpoints()
        assert found.provenance.task == task
        assert found.provenance.label_names == run[1].provenance.label_names
        same(found.predictions, run[1].predictions)

    def test_damaged_words_of_an_export_are_refused(self, tmp_path):
        table = pyarrow.table({"target": [0, 1], "logits": [[1.0, 2.0]] * 2})
        for words in (b"{", b"[]", b"3"):
            sink = io.BytesIO()
            pyarrow.parquet.write_table(table.replace_schema_metadata({"confshift": words}), sink)
            (tmp_path / "1.parquet").write_bytes(sink.getvalue())
            assert "export it anew" in failure(read_parquet, tmp_path / "1.parquet")
