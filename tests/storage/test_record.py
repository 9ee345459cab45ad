"""The format: what version 1 wrote is read for ever, and a record comes back as it was."""

import json
import math
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from stored_runs import another_process, failure, predictions

from confshift import Predictions, Run
from confshift.checkpoint import Checkpoint, Provenance
from confshift.measurement import MEASURED, measure
from confshift.storage import arrays
from confshift.storage.arrays import read_array, write_array
from confshift.storage.record import FailedSave, Record, read_record
from confshift.storage.signed_json import check_schema, decode, encode, plain

GOLDEN = Path(__file__).parent / "golden"
IDS = ["a", "b/é", "x y", "猫"]
SCHEMA_2_PARTS = [0.834129571916677, 0.0857676363627299, 0.789849469082681]
SCHEMA_2_BIASES = (-0.7712602827604365, 0.5922507774839606, 0.17900953865031694)
SCHEMA_2_TEMPERATURE = 3.288545917058938


class TestGolden:
    """Never change this folder: a new schema gets one of its own beside it."""

    @pytest.fixture
    def run(self):
        return another_process(GOLDEN / "schema-1")

    def test_a_run_of_schema_1_is_read(self, run):
        assert run.class_names == ("cat", "dog", "<b>&é猫")
        assert run.splits == ("val", "probe", "train")
        assert run.epochs == (0, 2, 2.5)
        assert run.verify()["sound"].tolist() == [True] * 10
        assert run.problems.drop(columns="file").values.tolist() == [
            ["val", 1.0, "gap", "No space left on device"]
        ]

    def test_the_arrays_of_schema_1_are_read(self, run):
        found = run[2.5].predictions
        assert found.sample_ids.tolist() == IDS
        assert found.targets.tolist() == [0, 1, 0, 2]
        assert found.logits.tolist() == [[-1, 2.5, 0.5], [-1.5, 2, 0], [-2.5, 1, -1], [-2, 1.5, -0.5]]
        assert found.logits.dtype == np.float32
        broken = run[2].predictions.logits
        assert broken.dtype == np.float64
        assert broken[1].tolist() == [-math.inf, -2.5, 1]
        assert np.isnan(broken[2]).all()
        half = run.checkpoint(2.5, split="train").predictions
        assert half.logits.dtype == np.float16
        assert half.logits[1].tolist() == [-1, 2.5, 0.5]
        assert (half.sample_ids.tolist(), half.targets.tolist()) == ([0, 1, 2, 3], [2, 1, 0, 1])
        short = run.checkpoint(2.5, split="probe").predictions
        assert short.source_dtype == "bfloat16"
        assert short.logits.tolist() == [[1.5, -0.5, -2.5], [2, 0, -2]]
        assert short.sample_ids.tolist() == [-7, 2**53 + 1]

    def test_the_columns_of_schema_1_are_read(self, run):
        sums = [one.columns[["hedge", "mistake", "confidence"]].sum().tolist() for one in run.checkpoints()]
        assert sums == [
            pytest.approx([0.5922196712443752, 7.5, 3.4495802856115847], rel=1e-12),
            pytest.approx([0.40873067462650803, 7.0, 2.6265406060640935], rel=1e-12),
            pytest.approx([0.6127128284891524, 9.0, 3.4319072424338293], rel=1e-12),
        ]
        assert run[0].measurement.beta == 0.017634009791032672
        assert run[0].measurement.rows.dtype == MEASURED

    def test_the_notes_of_schema_1_are_read(self, run):
        assert run[0].metadata == {"again": 1}
        assert run[2.5].metadata == {"lr": 0.1, "note": ["é", None, {"deep": True}]}
        told = run[2.5].provenance
        assert math.isnan(told.logged["loss"])
        assert told.logged["accuracy"] == 0.5
        assert told.checks == {"repeatable": True}
        assert (told.id_source, told.source_dtype, told.writer) == ("content", "float32", "ff861a488abb4c79")
        assert told.written == "2026-11-22T00:00:27+00:00"
        assert told.versions == {"confshift": "0.1.0", "numpy": "2.4.6", "python": "3.11.7"}
        assert run.checkpoint(2.5, split="train").provenance.ignored_samples == 1

    def test_a_run_of_schema_1_is_added_to(self, run, tmp_path):
        shutil.copytree(run.path, tmp_path / "run")
        again = another_process(tmp_path / "run")
        logits = np.arange(12.0).reshape(4, 3)
        again.append(Predictions(logits, [0, 1, 0, 2], sample_ids=IDS), epoch=1)
        assert again.epochs == (0, 1, 2, 2.5)
        assert again.problems.empty
        other = Predictions(logits, [0, 1, 0, 1], sample_ids=IDS)
        assert "targets of 1 of 4" in failure(again.append, other)

    def test_what_schema_1_lacks_is_made_from_the_logits_and_not_written(self, run):
        before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
        for old in run.checkpoints():
            new = Checkpoint.from_predictions(old.predictions, epoch=old.epoch)
            pd.testing.assert_frame_equal(old.columns, new.columns)
        assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before

    def test_a_run_of_schema_2_is_read(self):
        run = another_process(GOLDEN / "schema-2")
        assert run.verify()["sound"].all()
        (checkpoint,) = run.checkpoints()
        parts = ["scale_loss", "balance_loss", "refinement_loss"]
        assert checkpoint.columns[parts].mean().tolist() == pytest.approx(SCHEMA_2_PARTS, rel=1e-12)
        assert checkpoint.biases == SCHEMA_2_BIASES
        assert checkpoint.joint_temperature == SCHEMA_2_TEMPERATURE

    def test_columns_that_a_later_version_adds_are_skipped(self, tmp_path):
        shutil.copytree(GOLDEN / "schema-2", tmp_path / "run")
        folder = tmp_path / "run" / "val"
        path = folder / "000001.json"
        old = read_record(path.read_bytes(), path)
        columns = read_array(folder, old.shards[0].columns)
        for number, later in enumerate(
            ([("uniform_loss", "<f8")], [("uniform_loss", "<f8"), ("group", "<i4")])
        ):
            rows = np.zeros(len(columns), [*columns.dtype.descr, *later])
            for name in columns.dtype.names:
                rows[name] = columns[name]
            stored = write_array(folder / f"000001-{number:032x}.columns.npy", rows)
            shard = replace(old.shards[0], columns=stored)
            path.write_bytes(replace(old, shards=(shard,)).to_bytes())
            read = another_process(tmp_path / "run")[1].columns
            assert (read.pop("group").tolist() if number else []) == [0] * len(read) * number
            pd.testing.assert_frame_equal(read, another_process(GOLDEN / "schema-2")[1].columns)
        shard = replace(old.shards[0], columns=replace(stored, dtype=[*stored.dtype, ["other", "<i4"]]))
        path.write_bytes(replace(old, shards=(shard,)).to_bytes())
        assert "not those of this schema" in failure(read_record, path.read_bytes(), path)

    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            ({"task": "regression"}, "its task is 'regression'"),
            ({"task": "binary"}, "with 3 classes"),
            ({"task": 3}, "task is 3"),
            ({"label_names": ["cat"]}, "it names labels"),
            ({"label_names": [1]}, "label_names are"),
            ({"total_rows": 149}, "150 rows of 149"),
            ({"total_rows": -1}, "total_rows is -1"),
            ({"group_names": ["a"]}, "names of groups are not those of its rows"),
            ({"group_names": [1, "a"]}, "group_names are"),
            ({"group_names": [10**30]}, "group_names are"),
            ({"group_names": ["a" * 300]}, "group_names are"),
            ({"group_names": {"a": 1}}, "group_names is"),
        ],
    )
    def test_what_the_rows_can_not_be_is_refused(self, rows, says):
        path = GOLDEN / "schema-2" / "val" / "000001.json"
        content = decode(path.read_bytes(), path)
        content["shards"][0]["rows"] = rows
        assert says in failure(read_record, encode(content), path)

    def test_the_measured_columns_are_still_those_of_schema_1(self):
        newest = sorted((GOLDEN / "schema-1" / "val").glob("*.json"))[-1]
        content = json.loads(newest.read_bytes())["content"]
        stored = content["shards"][0]["columns"]["dtype"]
        assert stored == [["sample_id", "|S4"], *([*one] for one in MEASURED.descr)]


def test_a_record_says_in_plain_json_all_that_is_needed_to_check_the_files(tmp_path):
    run = Run(tmp_path / "run")
    run.append(predictions(1), epoch=3, split="train")
    run.flush()
    content = json.loads((run.path / "train" / "000001.json").read_text())["content"]
    expected = {
        "schema": 2,
        "epoch": 3.0,
        "split": "train",
        "sequence": 1,
        "generation": 0,
        "metadata": {},
        "gaps": [],
    }
    assert {name: content[name] for name in expected} == expected
    assert content["fingerprint"] == predictions(1).fingerprint
    assert content["beta"] == measure(predictions(1)).beta
    (shard,) = content["shards"]
    assert (shard["rank"], shard["encoding"]) == (0, "float32")
    for stored in (shard["logits"], shard["columns"]):
        raw = (run.path / "train" / stored["name"]).read_bytes()
        assert len(raw) == stored["size"]
        assert zlib.crc32(raw[: stored["offset"]]) == stored["header_crc"]
        assert [zlib.crc32(raw[stored["offset"] :])] == stored["crcs"]
        table = np.load(run.path / "train" / stored["name"], allow_pickle=False)
        assert list(table.shape) == stored["shape"]


@pytest.mark.parametrize("number", [4, -1])
def test_a_group_that_has_no_name_is_refused(tmp_path, number):
    run = Run(tmp_path / "run")
    run.append(predictions(1, groups=[f"group {row % 4}" for row in range(20)]))
    run.flush()
    folder = run.path / "val"
    path = folder / "000001.json"
    old = read_record(path.read_bytes(), path)
    rows = read_array(folder, old.shards[0].columns).copy()
    rows["group"][0] = number
    stored = write_array(folder / f"000001-{0:032x}.columns.npy", rows)
    path.write_bytes(replace(old, shards=(replace(old.shards[0], columns=stored),)).to_bytes())
    (reason,) = another_process(run.path).problems["reason"]
    assert "the group of 1 of 20 samples is impossible" in reason


#: The default alphabet of st.text(), without the table of the utf-8 codec, which takes seconds to make.
letters = st.characters(exclude_categories=["Cs"])
notes = st.dictionaries(
    st.text(letters, max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(letters, max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(notes, st.floats(0, allow_nan=False, allow_infinity=False))
def test_any_notes_and_any_epoch_come_back_as_they_were(metadata, epoch):
    record = Record(
        "val", epoch, "f", Provenance(), plain("metadata", metadata), gaps=(FailedSave("a", 1, "é\u2028"),)
    )
    content = decode(record.to_bytes(), Path("x"))
    assert content["metadata"] == metadata
    assert content["epoch"] == epoch
    assert content["gaps"] == [{"split": "a", "epoch": 1, "reason": "é\u2028"}]


@given(notes, st.data())
def test_no_byte_of_a_record_can_change_unseen(metadata, data):
    raw = encode(metadata)
    assert raw.isascii()
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
    assert "checksum" in failure(decode, raw[:at] + bytes([other]) + raw[at + 1 :], Path("x"))
    assert "checksum" in failure(decode, raw[:at], Path("x"))
    assert "checksum" in failure(decode, raw[:at] + b" " + raw[at:], Path("x"))


@given(st.data())
def test_an_array_of_any_length_comes_back_from_its_pieces(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("array")
    rows = data.draw(st.integers(1, 40))
    dtype = data.draw(st.sampled_from(["<f2", "<f4", "<f8", [("a", "|S3"), ("b", "?")]]))
    size = np.dtype(dtype).itemsize
    raw = data.draw(st.binary(min_size=rows * size, max_size=rows * size))
    array = np.frombuffer(raw, np.uint8).view(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "PIECE_BYTES", data.draw(st.integers(1, 5)) * 8)
        stored = arrays.write_array(folder / "x.npy", array)
        assert len(stored.crcs) == -(-len(raw) // arrays.PIECE_BYTES)
        assert arrays.read_array(folder, stored).tobytes() == raw
        assert arrays.same_bytes(arrays.read_array(folder, stored), array)
        other = bytearray(raw)
        other[data.draw(st.integers(0, len(raw) - 1))] ^= 1
        changed = np.frombuffer(bytes(other), np.uint8).view(dtype)
        assert not arrays.same_bytes(arrays.read_array(folder, stored), changed)


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=30))
def test_every_bfloat16_there_is_survives(tmp_path_factory, halves):
    folder = tmp_path_factory.mktemp("array")
    given_numbers = (np.array(halves, np.uint32) << 16).view(np.float32)[:, None]
    assert arrays.is_bfloat16(given_numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "PIECE_BYTES", 8)
        stored = arrays.write_array(folder / "x.npy", given_numbers, as_bfloat16=True)
        read = arrays.from_bfloat16(arrays.read_array(folder, stored))
    assert read.tobytes() == given_numbers.tobytes()
    assert np.load(folder / "x.npy")[:, 0].tolist() == halves


def test_a_float32_with_one_more_bit_is_no_bfloat16():
    assert not arrays.is_bfloat16(np.array([[1.0, 1 + 2**-20]], np.float32))
    assert not arrays.is_bfloat16(np.ones((1, 2)))


@pytest.mark.parametrize(
    ("versions", "remedy"),
    [({"confshift": "9.1"}, "'confshift>=9.1'"), ({}, "--upgrade confshift"), ([9], "--upgrade confshift")],
)
def test_a_newer_schema_names_the_version_that_reads_it_or_else_the_newest(versions, remedy):
    message = failure(check_schema, {"schema": 10**3000, "versions": versions}, "run.json")
    assert remedy in message
    assert len(message) < 300
