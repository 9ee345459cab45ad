"""A run as Parquet files: read back by DuckDB and Polars, and what stops or undoes an export."""

from __future__ import annotations

import errno
import json
import sys

import duckdb
import numpy as np
import polars
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from stored_runs import CountingDisk, another_process, failure, names, predictions

from confshift import Predictions, Run, summarize
from confshift.cli import main
from confshift.storage import exporting, files

NAMES = ("cat", "d'og", "<i>\u202e</i>", "4")
SAMPLES = 40


def make(path, *, ids=None, epochs=(1, 2.5, 10), dtype=np.float32, broken=True, **more):
    """Save a run with splits val and train; where it is `broken`, two rows have no finite loss."""
    random, run = np.random.default_rng(3), Run(path)
    targets = random.integers(0, len(NAMES), SAMPLES)
    for epoch in epochs:
        logits = (3 * random.normal(size=(SAMPLES, len(NAMES)))).astype(dtype)
        if broken:
            logits[3, 1] = np.nan
            logits[5, targets[5]] = -np.inf
        run.append(Predictions(logits, targets, sample_ids=ids, **more), epoch=epoch)
    run.append(Predictions(-logits, targets, sample_ids=ids, **more), epoch=epochs[0], split="train")
    run.flush()
    return run


TEXT_IDS = [f"photo {number}\u00e9" for number in range(SAMPLES)]
KINDS = {
    "plain": {},
    "named classes": {"class_names": NAMES},
    "text ids, groups of text": {"ids": TEXT_IDS, "groups": [f"g{k % 7}" for k in range(SAMPLES)]},
    "groups": {"groups": np.arange(SAMPLES) // 3, "class_names": NAMES},
    "half precision": {"dtype": np.float16},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def exported(request, tmp_path):
    run = make(tmp_path / "run", **request.param)
    run.export_parquet(tmp_path / "out", logits=True)
    return run, tmp_path / "out"


def by_duckdb(folder, split, epoch):
    """Return the columns of a checkpoint's file as lists of plain values."""
    rows = duckdb.sql(
        f"SELECT * FROM read_parquet('{folder}/**/*.parquet', hive_types = {{'epoch': DOUBLE}}) "
        f"WHERE split = '{split}' AND epoch = {epoch} ORDER BY sample_id"
    )
    return dict(zip(rows.columns, map(list, zip(*rows.fetchall(), strict=True)), strict=True))


def by_polars(folder, split, epoch):
    """Return the columns of a checkpoint's file as lists of plain values."""
    rows = polars.scan_parquet(folder).filter(polars.col("split") == split, polars.col("epoch") == epoch)
    return rows.sort("sample_id").collect().to_dict(as_series=False)


@pytest.mark.parametrize("read", [by_duckdb, by_polars])
def test_other_programs_read_the_numbers_of_every_checkpoint(exported, read):
    run, folder = exported
    assert len(list(run)) == 4
    for checkpoint in run:
        found, columns = read(folder, checkpoint.split, checkpoint.epoch), checkpoint.columns.reset_index()
        columns = columns.sort_values("sample_id")
        named = checkpoint.class_names == NAMES
        others = {"split", "epoch", "logits", *(("target_name", "predicted_name") if named else ())}
        assert set(found) == {*columns, *others}
        for name in columns:
            same = pytest.approx(columns[name].tolist(), rel=0, abs=0, nan_ok=True)
            assert found[name] == (same if columns[name].dtype.kind == "f" else columns[name].tolist()), name
        np.testing.assert_array_equal(found["logits"], checkpoint.predictions.logits[columns.index])
        if named:
            texts = {**dict(enumerate(NAMES)), -1: None}
            for kind in ("target", "predicted"):
                assert found[f"{kind}_name"] == [texts[number] for number in columns[kind]]
            assert None in found["predicted_name"]


@pytest.mark.parametrize("engine", ["duckdb", "polars"])
def test_the_mean_loss_by_query_is_the_summarys(tmp_path, engine):
    run = make(tmp_path / "run", epochs=(1, 2, 3), broken=False)
    run.export_parquet(tmp_path / "out")
    if engine == "duckdb":
        query = "SELECT epoch, avg(loss) FROM read_parquet($files) WHERE split = 'val' GROUP BY 1 ORDER BY 1"
        found = duckdb.execute(query, {"files": f"{tmp_path}/out/**/*.parquet"}).fetchall()
    else:
        rows = polars.scan_parquet(tmp_path / "out").filter(polars.col("split") == "val")
        found = rows.group_by("epoch").agg(polars.col("loss").mean()).sort("epoch").collect().rows()
    table = summarize(run).table
    expected = table.loc[table["split"] == "val", ["epoch", "loss"]]
    assert [epoch for epoch, _ in found] == expected["epoch"].tolist() == [1, 2, 3]
    assert [loss for _, loss in found] == pytest.approx(expected["loss"].tolist(), rel=1e-12)


def test_the_mean_over_the_answered_samples_is_the_checkpoints(tmp_path):
    run = make(tmp_path / "run", epochs=(4,))
    run.export_parquet(tmp_path / "out")
    query = (
        "SELECT avg(loss), avg(loss) FILTER (finite), avg(CAST(correct AS INT)) FROM $files WHERE answered"
    )
    query = query.replace("$files", f"read_parquet('{tmp_path}/out/split=val/**/*.parquet')")
    ((loss, finite_loss, accuracy),) = duckdb.sql(query).fetchall()
    assert loss == run[4].loss == np.inf
    assert (finite_loss, accuracy) == pytest.approx((run[4].finite_loss, run[4].accuracy), rel=1e-12)


def test_the_files_are_listed_and_lie_by_split_and_epoch(tmp_path):
    parts = make(tmp_path / "run").export_parquet(tmp_path / "new" / "out")
    assert parts["file"].tolist() == [
        "split=val/epoch=1/part-0.parquet",
        "split=train/epoch=1/part-0.parquet",
        "split=val/epoch=2.5/part-0.parquet",
        "split=val/epoch=10/part-0.parquet",
    ]
    assert names(tmp_path / "new" / "out") == sorted(parts["file"])
    assert parts["epoch"].tolist() == [1, 1, 2.5, 10]
    assert set(parts["rows"]) == {SAMPLES}


def test_a_file_says_what_it_is(tmp_path):
    ids, labels = 2 * np.arange(SAMPLES // 2)[:, None] + np.arange(2), ("sunny", "wet")
    logits = np.random.default_rng(0).normal(size=(SAMPLES, 2)).astype(np.float32)
    run = Run(tmp_path / "run")
    more = {"task": "multilabel", "label_names": labels, "class_names": ("no", "yes")}
    run.append(Predictions(logits, np.arange(SAMPLES) % 2, sample_ids=ids.ravel(), **more), epoch=2.5)
    run.export_parquet(tmp_path / "out", logits=True)
    file = tmp_path / "out" / "split=val" / "epoch=2.5" / "part-0.parquet"
    about = json.loads(pyarrow.parquet.read_schema(file).metadata[b"confshift"])
    units = about.pop("units")
    assert about == {
        "schema": 1,
        "version": __import__("confshift").__version__,
        "split": "val",
        "epoch": 2.5,
        "task": "multilabel",
        "class_names": ["no", "yes"],
        "label_names": list(labels),
    }
    assert {units[name] for name in units if name != "confidence"} == {"nats"}
    assert (
        {name for name in run[2.5].columns if name.endswith("loss")}
        < set(units)
        < {
            *run[2.5].columns,
            "logits",
        }
    )
    query = f"SELECT decode(value) FROM parquet_kv_metadata('{file}') WHERE decode(key) = 'confshift'"
    assert json.loads(duckdb.sql(query).fetchall()[0][0]) == {**about, "units": units}


def test_double_precision_is_rounded_to_single(tmp_path):
    run = Run(tmp_path / "run")
    logits = np.array([[0.1, 1e300], [1 / 3, -2.0]])
    run.append(Predictions(logits, [1, 0]), epoch=1)
    run.export_parquet(tmp_path / "out", logits=True)
    found = by_polars(tmp_path / "out", "val", 1)["logits"]
    assert found == [[np.float32(0.1), np.inf], [np.float32(1 / 3), -2]]


@pytest.mark.parametrize("logits", [False, True])
def test_row_groups_are_small_and_hold_the_same(tmp_path, monkeypatch, logits):
    run = make(tmp_path / "run", class_names=NAMES)
    run.export_parquet(tmp_path / "whole", logits=logits)
    monkeypatch.setattr(exporting, "_MOST_ROWS", 11)
    monkeypatch.setattr(exporting, "_MOST_BYTES", 4 * len(NAMES) * 7)
    run.export_parquet(tmp_path / "parts", logits=logits)
    for name in names(tmp_path / "whole"):
        whole, parts = (pyarrow.parquet.ParquetFile(tmp_path / one / name) for one in ("whole", "parts"))
        sizes = [parts.metadata.row_group(k).num_rows for k in range(parts.num_row_groups)]
        assert sizes == ([7] * 5 + [5] if logits else [11, 11, 11, 7])
        assert whole.num_row_groups == 1
        tables = [file.read().to_pandas() for file in (whole, parts)]
        if logits:
            a, b = (np.stack(table.pop("logits")) for table in tables)
            np.testing.assert_array_equal(a, b)
        assert tables[0].equals(tables[1])


def test_a_row_too_wide_for_a_group_is_one(monkeypatch):
    monkeypatch.setattr(exporting, "_MOST_BYTES", 100)
    assert list(exporting._row_groups(3, 1000)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_a_folder_that_holds_anything_is_refused_and_stays(tmp_path):
    run = make(tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    before = names(tmp_path)
    for folder, says in {
        "full": "is not empty, and nothing is overwritten; remove it, or give a new folder",
        "file": "is a file; give a new folder",
        "file/below": "can't be",
        "run": "is inside the run",
        "run/out": "is inside the run",
        "link/out": "is inside the run",
    }.items():
        message = failure(run.export_parquet, tmp_path / folder)
        assert says in message
        assert str(tmp_path / folder) in message
    assert names(tmp_path) == before
    (tmp_path / "empty").mkdir()
    run.export_parquet(tmp_path / "empty")
    assert "is not empty" in failure(run.export_parquet, tmp_path / "empty")


def test_what_an_error_at_any_system_call_left_is_removed(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.append(predictions(), epoch=1)
    run.flush()
    counting = CountingDisk()
    with monkeypatch.context() as patch:
        patch.setattr(files, "DISK", counting)
        run.export_parquet(tmp_path / "out")
    assert len(counting.calls) > 10
    for at in range(len(counting.calls)):
        folder = tmp_path / f"out-{at}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "DISK", CountingDisk(OSError(errno.ENOSPC, "No space left"), at))
            message = failure(run.export_parquet, folder)
        assert f"folder='{folder}' can't be written: No space left" in message, counting.calls[at]
        assert not folder.exists() or names(folder) == [], counting.calls[at]
    run.export_parquet(folder)  # the same folder will do once there is space


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    kept, wrote = exporting._fill, []

    def interrupted(sink, checkpoint, logits):
        wrote.append(kept(sink, checkpoint, logits))
        if len(wrote) == 3:
            raise KeyboardInterrupt
        return wrote[-1]

    monkeypatch.setattr(exporting, "_fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.export_parquet(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_exports_into_one_folder_do_not_mix(tmp_path, monkeypatch):
    run = make(tmp_path / "run", epochs=(1,))
    kept, first = exporting._check_folder, []

    def overtaken(folder, source):
        kept(folder, source)
        if not first:
            first.append(True)
            run.export_parquet(folder)

    monkeypatch.setattr(exporting, "_check_folder", overtaken)
    assert "File exists" in failure(run.export_parquet, tmp_path / "out")
    assert len(by_polars(tmp_path / "out", "val", 1)["loss"]) == SAMPLES


def test_a_damaged_checkpoint_is_left_out_and_damaged_logits_are_refused(tmp_path):
    run = make(tmp_path / "run", epochs=(1, 2, 3))
    columns = sorted((run.path / "val").glob("*.columns.npy"))
    columns[1].write_bytes(columns[1].read_bytes()[:-1] + b"\0")
    run = another_process(run.path)
    parts = run.export_parquet(tmp_path / "out")
    assert parts.loc[parts["split"] == "val", "epoch"].tolist() == [1, 3]
    logits = sorted((run.path / "val").glob("*.logits.npy"))
    logits[2].write_bytes(logits[2].read_bytes()[:-1] + b"\x7f")
    message = failure(run.export_parquet, tmp_path / "more", logits=True)
    assert f"{logits[2]} is damaged" in message
    assert not (tmp_path / "more").exists()
    run.export_parquet(tmp_path / "more")  # without logits nothing is missing


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    run = Run(tmp_path / "run")
    run.append(predictions(), epoch=1)
    run.flush()
    (columns,) = (run.path / "val").glob("*.columns.npy")
    columns.unlink()
    run = another_process(run.path)
    assert "no checkpoint that can be exported; Run.problems" in failure(run.export_parquet, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(run.problems) == 1


def test_a_missing_pyarrow_is_named_with_the_extra(tmp_path, monkeypatch):
    run = make(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = failure(run.export_parquet, tmp_path / "out")
    assert message.endswith("pyarrow, which is not installed: pip install 'confshift[parquet]'")
    assert not (tmp_path / "out").exists()


def test_the_command_exports(tmp_path, monkeypatch):
    run = make(tmp_path / "run", epochs=(1, 2), class_names=NAMES)
    done = CliRunner().invoke(main, ["export", str(run.path), "--parquet", str(tmp_path / "out"), "--logits"])
    assert (done.exit_code, done.stdout) == (0, f"wrote 3 files with {3 * SAMPLES} rows to {tmp_path}/out\n")
    assert (
        by_duckdb(tmp_path / "out", "train", 1)["logits"][0]
        == run.checkpoint(1, split="train").predictions.logits[0].tolist()
    )
    again = CliRunner().invoke(main, ["export", str(run.path), "--parquet", str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "is not empty" in again.stderr
    arguments = ["export", str(run.path), "--parquet", str(tmp_path / "json"), "--json"]
    document = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert [file["rows"] for file in document["files"]] == [SAMPLES] * 3
    assert "logits" not in by_duckdb(tmp_path / "json", "val", 1)
