"""From files to numbers: none that a checksum or reason forbids; little memory, no descriptors."""

import dataclasses
import gc
import os
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from stored_runs import another_process, failure, predictions

import confshift
from confshift import Run, temperature
from confshift.measurement import MEASURED, measure
from confshift.storage import arrays, columns, loading, memory, record
from confshift.storage.measuring import possible_numbers
from confshift.storage.signed_json import decode


def flip(file, at=-1):
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    for epoch in (1, 2, 3):
        run.append(predictions(epoch), epoch=epoch)
    run.flush()
    return another_process(run.path)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def logits_file(run, epoch):
    (file,) = run.path.glob(f"val/{epoch:06d}-*.logits.npy")
    return file


def forge_columns(run, change):
    """Change the columns of epoch 1 and sign them anew, as an attacker would."""
    file = run.path / "val" / "000001.json"
    kept = record.read_record(file.read_bytes(), file)
    stored = kept.shards[0].columns
    rows = arrays.read_array(file.parent, stored).copy()
    change(rows)
    (file.parent / stored.name).unlink()
    columns = arrays.write_array(file.parent / stored.name, rows)
    shard = record.Shard(0, kept.shards[0].encoding, kept.shards[0].logits, columns)
    file.write_bytes(dataclasses.replace(kept, shards=(shard,)).to_bytes())


def put(name, value, row=0):
    def change(rows):
        rows[name][row] = value

    return change


@pytest.mark.parametrize("part_bytes", [1000, 1 << 24])
def test_the_best_temperature_is_known_once_a_checkpoint_is_checked(run, part_bytes, monkeypatch):
    monkeypatch.setattr(columns, "_PART_BYTES", part_bytes)
    for checkpoint in another_process(run.path):
        measured, expected = checkpoint.measurement, temperature.optimum(checkpoint.measurement.curve)
        with monkeypatch.context() as patch:
            patch.setattr(type(measured), "curve", None)  # nothing more is read
            assert measured.optimum == (pytest.approx(expected[0], rel=1e-12), expected[1])


class TestLogits:
    def test_no_number_is_made_of_a_damaged_byte(self, run):
        for at in (0, 60, 130, -1):
            flip(logits_file(run, 1), at)
            look = another_process(run.path)
            assert "damaged" in failure(lambda look=look: look[1].predictions)
            comparison = confshift.compare(look[1], look[2])
            assert "damaged" in failure(lambda comparison=comparison: comparison.competitors)
            assert "damaged" in failure(lambda comparison=comparison: comparison.scale)
            flip(logits_file(run, 1), at)

    def test_the_columns_are_used_all_the_same(self, run):
        loss = run[1].loss
        flip(logits_file(run, 1))
        look = another_process(run.path)
        assert look[1].loss == loss
        assert look.epochs == (1, 2, 3)
        assert len(list(look)) == 3

    def test_swapped_files_are_found(self, run):
        first, second = logits_file(run, 1), logits_file(run, 2)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        for epoch in (1, 2):
            assert "does not match its checksum" in failure(
                lambda epoch=epoch: another_process(run.path)[epoch].predictions
            )

    def test_damage_that_was_met_is_listed_until_the_file_is_whole_again(self, run):
        flip(logits_file(run, 2))
        look = another_process(run.path)
        assert look.problems.empty  # nobody asked for these logits yet
        failure(lambda: look[2].predictions)
        (problem,) = look.problems.to_dict("records")
        assert (problem["kind"], problem["epoch"]) == ("in part", 2)
        assert problem["file"] == logits_file(run, 2).name
        flip(logits_file(run, 2))
        assert look[2].predictions.logits.shape == (20, 3)
        assert look.problems.empty

    def test_the_same_content_again_heals_a_damaged_file(self, run):
        flip(logits_file(run, 2))
        look = another_process(run.path)
        look.append(predictions(2), epoch=2)
        look.flush()
        assert another_process(run.path).verify()["sound"].all()

    def test_what_happens_to_a_file_later_reaches_no_array_and_holds_no_descriptor(self, run):
        held = descriptors()
        kept = [(one.predictions.logits, one.measurement) for one in run]
        assert descriptors() == held
        before = kept[0][0].copy()
        os.truncate(logits_file(run, 1), 0)
        np.testing.assert_array_equal(kept[0][0], before)
        with pytest.raises(ValueError, match="read-only"):
            kept[0][0][0, 0] = 1

    def test_columns_of_one_row_hold_no_descriptor(self, tmp_path):
        run = Run(tmp_path / "one")
        for epoch in range(5):
            run.append(predictions(epoch, samples=1), epoch=epoch + 1)
        look = another_process(run.path)
        held = descriptors()
        kept = [one.measurement for one in look]
        assert descriptors() == held
        assert len(kept) == 5

    def test_large_files_are_mapped_and_checked_like_small_ones(self, run, monkeypatch):
        monkeypatch.setattr(arrays, "MAX_READ", 100)
        monkeypatch.setattr(arrays, "PIECE_BYTES", 64)
        run = Run(run.path.parent / "other")
        run.append(predictions(1))
        run.flush()
        look = another_process(run.path)
        found = look[1].predictions.logits
        assert found.base is not None
        np.testing.assert_array_equal(found, predictions(1).logits)
        del found
        flip(logits_file(run, 1))
        assert "piece 4 of 4" in failure(lambda: another_process(run.path)[1].predictions)

    def test_no_memory_is_an_error_of_ours(self, run, monkeypatch):
        def full(*_):
            raise MemoryError

        look = run[1]
        look.loss  # noqa: B018
        monkeypatch.setattr(arrays.np, "empty", full)
        with pytest.raises(confshift.ConfshiftError, match="no memory for its"):
            arrays.read_array(run.path / "val", run._split_folder("val").records[1].shards[0].logits)


class TestKept:
    def test_logits_are_read_once_while_few_are_asked_for(self, run):
        one, two = run[1], run[2]
        assert one.predictions is one.predictions
        assert two.predictions is two.predictions
        assert one.predictions is one.predictions

    def test_a_walk_over_many_checkpoints_holds_the_logits_of_the_last_ones_only(self, run, monkeypatch):
        monkeypatch.setattr(loading, "_MAX_BYTES", 3 * 20 * 3 * 4)
        checkpoints = [run[epoch] for epoch in (1, 2, 3) for _ in range(4)]
        kept = [weakref.ref(one.predictions) for one in checkpoints]
        gc.collect()
        assert [one() is not None for one in kept] == [False] * 9 + [True] * 3
        monkeypatch.setattr(loading, "_MAX_BYTES", 0)
        kept = [weakref.ref(one.predictions) for one in checkpoints]
        gc.collect()
        assert [one() is not None for one in kept] == [False] * 10 + [True] * 2

    def test_what_was_let_go_is_read_again(self, run, monkeypatch):
        monkeypatch.setattr(loading, "_MAX_BYTES", 0)
        checkpoints = [run[epoch] for epoch in (1, 2, 3)]
        for _ in range(2):
            for epoch, one in enumerate(checkpoints, 1):
                np.testing.assert_array_equal(one.predictions.logits, predictions(epoch).logits)

    def test_nothing_is_kept_of_a_checkpoint_that_is_gone(self, run):
        kept = weakref.ref(run[1].predictions)
        gc.collect()
        assert kept() is None


class TestImpossibleNumbers:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (put("target", 3), "target"),
            (put("target", -1), "target"),
            (put("target", 2**31 - 1), "target"),
            (put("predicted", 3), "predicted"),
            (put("predicted", -2), "predicted"),
            (put("predicted", -1), "predicted"),
            (put("predicted", 2**31 - 1), "predicted"),
            (put("confidence", 5.0), "confidence"),
            (put("confidence", 0.0), "confidence"),
            (put("confidence", -0.5), "confidence"),
            (put("confidence", np.inf), "confidence"),
            (put("confidence", np.nan), "predicted"),
            (put("hedge", np.nan), "hedge"),
            (put("hedge", np.inf), "hedge"),
            (put("hedge", -1e-9), "hedge"),
            (put("hedge", 1.2), "hedge"),  # above ln 3
            (put("mistake", -1.0), "mistake"),
            (put("mistake", np.nan), "mistake"),
            (put("margin", np.nan), "margin"),
            (put("curve_slope", np.nan), "curve"),
            (put("curve_loss", np.inf), "curve"),
            (put("curve_curvature", -1.0), "curve"),
            (lambda rows: rows["tied"].view(np.uint8).put([0], 7), "tied"),
            (put("sample_id", 7), "sample ids are not ascending"),
            (put("sample_id", 0, slice(None)), "sample ids are not ascending"),
        ],
    )
    def test_they_are_refused_whatever_the_checksum_says(self, run, change, named):
        forge_columns(run, change)
        look = another_process(run.path)
        (problem,) = look.problems.to_dict("records")
        assert named in problem["reason"]
        assert problem["epoch"] == 1
        assert [one.epoch for one in look] == [2, 3]
        assert named in failure(lambda: look[1].columns if look.epochs[0] == 1 else look[1])
        sound = look.verify().set_index("file")["sound"]
        assert sound[~sound].index.str.contains("columns|json").tolist() == [True]

    def test_a_mistake_where_the_class_is_right_is_refused(self, run):
        def change(rows):
            at = np.flatnonzero(rows["predicted"] == rows["target"])[0]
            rows["mistake"][at] = 1.0

        forge_columns(run, change)
        assert "the mistake of 1 of 20" in another_process(run.path).problems["reason"][0]

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("scale", [0, 1e-300, 1e-3, 1, 1e4, 1e30, 1e300])
    def test_whatever_logits_give_is_possible(self, dtype, scale):
        draw = np.random.default_rng(0)
        with np.errstate(over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits = (draw.normal(size=(300, 4)) * scale).astype(dtype)
        odd = draw.integers(0, 300, size=(3, 20))
        logits[odd[0], 1], logits[odd[1], 2], logits[odd[2], 3] = np.nan, np.inf, -np.inf
        logits[7] = -np.inf
        measured = measure(confshift.Predictions(logits, draw.integers(0, 4, 300)))
        assert all(fine.all() for fine in possible_numbers(measured.rows, 4).values())
        assert measured.rows.dtype == MEASURED

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("classes", [2, 4, 40])
    @pytest.mark.parametrize("scale", [0, 1e-300, 1, 300, 1e30, 1e300])
    def test_no_sample_is_taken_for_a_stranger_to_its_own_logits(self, dtype, classes, scale):
        draw = np.random.default_rng(0)
        with np.errstate(over="ignore"):
            logits = (draw.normal(size=(200, classes)) * scale).astype(dtype)
        odd = draw.integers(0, 200, size=(3, 20))
        logits[odd[0], 1], logits[odd[1], 0], logits[odd[2], -1] = np.nan, np.inf, -np.inf
        logits[7] = -np.inf
        given = confshift.Predictions(logits, draw.integers(0, classes, 200))
        rows = measure(given)
        assert loading._strangers(given.logits, rows) == 0
        if scale in (1, 300):
            assert loading._strangers(given.logits[::-1], rows) > 100
            assert loading._strangers(np.full_like(given.logits, -np.inf), rows) > 100

    def test_a_record_that_names_the_logits_of_another_epoch_is_refused(self, run):
        file = run.path / "val" / "000001.json"
        first, second = (
            record.read_record(one.read_bytes(), one) for one in (file, file.with_name("000002.json"))
        )
        shard = dataclasses.replace(first.shards[0], logits=second.shards[0].logits)
        file.write_bytes(dataclasses.replace(first, shards=(shard,)).to_bytes())
        look = another_process(run.path)
        assert "were not computed from it" in failure(lambda: look[1].predictions)
        assert look[2].predictions.logits.shape == (20, 3)

    def test_columns_larger_than_the_free_memory_are_not_read(self, run, monkeypatch):
        monkeypatch.setattr(memory, "_SMALL", 0)
        monkeypatch.setattr(memory, "free_memory", lambda: 100)
        look = another_process(run.path)
        assert len(look.problems) == 3
        assert "GiB of memory" in look.problems["reason"][0]
        assert list(look) == []


def test_what_is_free_is_a_number_that_a_small_file_does_not_ask_for(tmp_path, monkeypatch):
    free = memory.free_memory()
    assert free is None or free > 1 << 20
    monkeypatch.setattr(memory, "free_memory", lambda: pytest.fail("asked"))
    memory.check_room(tmp_path, 1000)


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [("1000", "400", 600), ("max", "400", None), ("x", "1", None), ("100", "400", 0)],
)
def test_a_control_group_bounds_what_is_free(tmp_path, monkeypatch, limit, used, left):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "resource", None)
    assert memory.free_memory() == left


def test_a_record_is_still_decoded_as_it_was_written(run):
    file = run.path / "val" / "000001.json"
    content = decode(file.read_bytes(), file)
    assert record.read_record(file.read_bytes(), file).epoch == content["epoch"]
