"""Workers that the caller set up with joblib give the numbers of one process; what is made is kept."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

import confshift
from confshift import ConfshiftError, Predictions, Run, workers
from confshift.analysis import mapping, panel
from confshift.analysis.decomposition import pairwise_cells
from confshift.analysis.epoch_rows import row_of
from confshift.cli import main
from confshift.reporting import binning
from confshift.storage import user_cache
from confshift.workers import count_workers, map_in_order

EPOCHS, SAMPLES, CLASSES = 5, 240, 3
OLD_RUN = Path(__file__).parent / "storage" / "golden" / "schema-1"


def save(path, epochs, *, groups=True):
    """Save a run whose loss falls, then rises."""
    draw = np.random.default_rng(0)
    targets, ease = draw.integers(0, CLASSES, SAMPLES), draw.normal(0.5, 1, SAMPLES)
    run = Run(path)
    for epoch in range(max(epochs) + 1):
        logits = draw.normal(size=(SAMPLES, CLASSES)) * (1 + epoch / 3)
        logits[np.arange(SAMPLES), targets] += ease * (1 + epoch)
        logits[epoch] = np.nan
        if epoch in epochs:
            some = np.arange(SAMPLES) % 60 if groups else None
            run.append(Predictions(logits, targets, groups=some), epoch=epoch)
    run.flush()


@pytest.fixture
def large(monkeypatch, tmp_path):
    """Have every run count as a large one, and a cache folder that is empty."""
    monkeypatch.setattr(panel, "KEPT_NUMBERS", 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def numbers(path):
    """Return what is mapped over the checkpoints of a run, and over blocks of its samples."""
    history = confshift.summarize(Run(path), class_weight=[1.0, 2.0, 0.5])
    edges = binning.bin_edges(binning.odds_ticks(history.main))
    left_out = [checkpoint.measurement.left_out for checkpoint in history.main.checkpoints]
    losses = np.array([[one.scaled, one.calibrated] for one in left_out])
    rows = confshift.summarize(Run(path), groups="rows")
    cells = [[sums, counts] for _, _, sums, counts in pairwise_cells(history.main)]
    sums = *(table.to_numpy() for table in (history.pairs, rows.pairs)), np.array(cells)
    return history.table, binning.confidences(history.main, edges), losses, *sums


def assert_same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0], check_exact=True)
    assert json.dumps(one[1]) == json.dumps(other[1])
    for numbers, others in zip(one[2:], other[2:], strict=True):
        np.testing.assert_array_equal(numbers, others)


@pytest.mark.parametrize("old", [False, True])
def test_any_number_of_workers_gives_the_same_bits(large, tmp_path, monkeypatch, old):
    run = tmp_path / "run"
    if old:
        shutil.copytree(OLD_RUN, run)
    else:
        save(run, range(EPOCHS))
    expected = numbers(run)
    assert len(expected[0]) > 2
    assert old or len(list(confshift.summarize(Run(run)).main.blocks())) > 4
    for backend, count in (("threading", 2), ("threading", 4), ("loky", 2), ("loky", 4)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{backend}-{count}"))
        with joblib.parallel_config(backend, n_jobs=count):
            assert count_workers() == count
            assert_same(numbers(run), expected)


def test_without_joblib_set_up_there_are_no_workers(monkeypatch):
    assert count_workers() == 0
    with joblib.parallel_config("loky", n_jobs=1):
        assert count_workers() == 0
    monkeypatch.delitem(workers.sys.modules, "joblib")
    assert count_workers() == 0
    assert map_in_order(abs, [-1, 2]) == [1, 2]


def end_at_two(item):
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_is_an_error_and_the_next_map_works():
    with joblib.parallel_config("loky", n_jobs=2):
        with pytest.raises(ConfshiftError, match=r"TerminatedWorkerError.*Use fewer workers, --jobs or"):
            map_in_order(end_at_two, [0, 1, 2, 3])
        assert map_in_order(abs, [-1, 2, -3]) == [1, 2, 3]


def raise_for_two(item):
    if item == 2:
        raise ConfshiftError("item=2 can't be used; leave it out")
    return item


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_an_error_of_a_worker_is_that_of_the_function(backend):
    with joblib.parallel_config(backend, n_jobs=2), pytest.raises(ConfshiftError, match="leave it out"):
        map_in_order(raise_for_two, [0, 1, 2, 3])


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_threads_work_at_the_same_time_whatever_workers_were_set_up(backend):
    together = threading.Barrier(2, timeout=20)  # one thread alone would wait until it breaks
    with joblib.parallel_config(backend, n_jobs=2):
        assert sorted(map_in_order(lambda _: together.wait(), [0, 1], share_memory=True)) == [0, 1]


def threads_of_products(_):
    import threadpoolctl

    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_make_matrix_products_in_one_thread(backend):
    before = threads_of_products(0)
    with joblib.parallel_config(backend, n_jobs=2):
        found = map_in_order(threads_of_products, list(range(6)))
    assert {number for threads in found for number in threads} == {1}
    assert threads_of_products(0) == before


def test_workers_add_the_files_of_a_folder_as_one_process_does(tmp_path):
    save(tmp_path / "run", range(4))
    for one in Run(tmp_path / "run").checkpoints():
        np.savez(
            tmp_path / f"epoch_{one.epoch:g}.npz",
            logits=one.predictions.logits,
            targets=one.predictions.targets,
        )
    alone = Run(tmp_path / "alone").add(tmp_path)
    with joblib.parallel_config("loky", n_jobs=2):
        together = Run(tmp_path / "together").add(tmp_path)
    assert alone["metrics"].tolist() == together["metrics"].tolist()
    assert together["file"].tolist() == [f"epoch_{epoch}.npz" for epoch in range(4)]
    tables = [confshift.summarize(Run(tmp_path / name)).table for name in ("alone", "together")]
    pd.testing.assert_frame_equal(*(table.drop(columns="writer") for table in tables), check_exact=True)
    assert Run(tmp_path / "together").verify()["sound"].all()
    again = Run(tmp_path / "together").add(tmp_path)  # the workers live on, and do not claim their epochs
    assert again["metrics"].tolist() == alone["metrics"].tolist()


def write_folder(folder, epochs, samples=500, scale=1.0):
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    targets = draw.integers(0, CLASSES, samples)
    for epoch in epochs:
        logits = scale * draw.normal(size=(samples, CLASSES)) + np.eye(CLASSES)[targets]
        np.savez(folder / f"{epoch}.npz", logits=logits, targets=targets)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_add_a_folder_again_whoever_added_it_before(tmp_path, backend):
    write_folder(tmp_path / "files", range(1, 9))
    run = Run(tmp_path / "run")
    run.add(tmp_path / "files")  # this process, which is still running
    with joblib.parallel_config(backend, n_jobs=2):
        run.add(tmp_path / "files")
        for scale in (2.0, 3.0, 4.0):  # a worker gets epochs of another, which saves something else meanwhile
            write_folder(tmp_path / "files", range(9), scale=scale)
            added = run.add(tmp_path / "files")
    stored = [run.checkpoint(epoch).loss for epoch in range(1, 9)]
    assert [metrics["loss"] for metrics in added["metrics"]][1:] == stored


def test_workers_read_the_files_of_the_present_folder(tmp_path, monkeypatch):
    losses = []
    with joblib.parallel_config("loky", n_jobs=2):  # the same workers for both
        for scale in (1.0, 2.0):
            write_folder(tmp_path / f"{scale}", range(4), scale=scale)
            monkeypatch.chdir(tmp_path / f"{scale}")
            added = Run(tmp_path / f"run-{scale}").add(".")
            losses += [metrics["loss"] for metrics in added["metrics"]]
    assert max(losses[:4]) < min(losses[4:])


def test_workers_add_epoch_0_of_every_split(tmp_path):
    write_folder(tmp_path / "files", range(3))
    run = Run(tmp_path / "run")
    for split in ("val", "train"):
        run.add(tmp_path / "files", split=split)
    run.export_parquet(tmp_path / "exported", logits=True)
    with joblib.parallel_config("loky", n_jobs=2):
        copy = Run(tmp_path / "copy")
        assert len(copy.add(tmp_path / "exported")) == 6
    assert copy.epochs == copy.epochs_of("train") == (0.0, 1.0, 2.0)


def test_another_process_adds_the_rest_of_a_folder_with_epoch_0(tmp_path):
    add = [sys.executable, "-c", "from confshift.cli import main; main()", "add"]
    command = [*add, str(tmp_path / "run"), str(tmp_path / "files")]
    for epochs in (range(2), range(4)):
        write_folder(tmp_path / "files", epochs)
        subprocess.run(command, check=True, capture_output=True)
    assert Run(tmp_path / "run").epochs == (0.0, 1.0, 2.0, 3.0)
    write_folder(tmp_path / "files", range(4), scale=2.0)  # of another training
    other = subprocess.run(command, check=False, capture_output=True, text=True)
    assert other.returncode == 2
    assert "does not say that this training goes on from them" in other.stderr


def test_a_worker_names_the_file_that_can_not_be_added(tmp_path):
    for epoch in range(3):
        samples = 30 if epoch < 2 else 31
        np.savez(
            tmp_path / f"{epoch}.npz",
            logits=3 * np.eye(2)[np.arange(samples) % 2],
            targets=np.arange(samples) % 2,
        )
    with joblib.parallel_config("loky", n_jobs=2), pytest.raises(ConfshiftError, match=r"2\.npz: "):
        Run(tmp_path / "run").add(tmp_path)
    assert set(Run(tmp_path / "run").epochs) <= {0.0, 1.0}


# ------------------------------------------------------------------------------------------ what is kept
@pytest.fixture
def calls(large, monkeypatch):
    """Count the checkpoints whose values are made, by function."""
    made = []

    def count(function, panel, places, args, make=mapping._made):
        made.append((function.__name__, len(places)))
        return make(function, panel, places, args)

    monkeypatch.setattr(mapping, "_made", count)
    return made


def test_a_new_checkpoint_costs_its_own_work(calls, tmp_path):
    save(tmp_path / "run", range(EPOCHS - 1))
    first = numbers(tmp_path / "run")
    assert {number for _, number in calls} == {EPOCHS - 1}
    calls.clear()
    assert_same(numbers(tmp_path / "run"), first)
    assert calls == []
    save(tmp_path / "run", [EPOCHS - 1])
    grown = numbers(tmp_path / "run")
    # Bins are those of all checkpoints where the new one moves the ends of the axis.
    assert {number for name, number in calls if name != "_counts_of"} == {1}
    shutil.rmtree(tmp_path / "cache")
    assert_same(numbers(tmp_path / "run"), grown)


def table_of(path, **options):
    return confshift.summarize(Run(path), **options).table


def test_what_is_kept_belongs_to_the_files_groups_and_weights(calls, tmp_path, monkeypatch):
    path, tables = tmp_path / "run", []
    save(path, range(EPOCHS))
    every = ({}, {"groups": "rows"}, {"class_weight": [1.0, 2.0, 3.0]})
    for options in every:
        tables.append(table_of(path, **options))
        assert calls == [("row_of", EPOCHS)], options
        calls.clear()
    for options, table in zip(every, tables, strict=True):
        pd.testing.assert_frame_equal(table_of(path, **options), table, check_exact=True)
        assert calls == [], options
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    for options, table in zip(every, tables, strict=True):
        pd.testing.assert_frame_equal(table_of(path, **options), table, check_exact=True)
    calls.clear()
    Run(path).delete()
    save(path, range(EPOCHS))  # other files with the same content
    table_of(path)
    assert calls == [("row_of", EPOCHS)]


def test_what_the_logits_add_is_not_kept(large, tmp_path):
    save(tmp_path / "run", range(EPOCHS))
    table = table_of(tmp_path / "run", label_smoothing=0.1)
    assert np.isfinite(table["smoothing_loss"]).all()
    file, *_ = sorted((tmp_path / "run" / "val").glob("*.logits.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    assert np.isnan(table_of(tmp_path / "run", label_smoothing=0.1)["smoothing_loss"]).sum() == 1
    file.write_bytes(whole)
    restored = table_of(tmp_path / "run", label_smoothing=0.1)
    pd.testing.assert_frame_equal(restored, table, check_exact=True)


def test_a_copy_with_another_epoch_has_its_own_row(large, tmp_path):
    save(tmp_path / "run", range(EPOCHS))
    table = table_of(tmp_path / "run")
    steps = [replace(one, epoch=100 * one.epoch) for one in Run(tmp_path / "run").checkpoints()]
    copied = confshift.summarize(steps).table
    assert copied["epoch"].tolist() == (100 * table["epoch"]).tolist()
    pd.testing.assert_frame_equal(copied.drop(columns="epoch"), table.drop(columns="epoch"), check_exact=True)


def test_other_code_makes_everything_anew(calls, tmp_path, monkeypatch):
    save(tmp_path / "run", range(EPOCHS))
    confshift.summarize(Run(tmp_path / "run")).table  # noqa: B018
    monkeypatch.setattr(user_cache, "_code", lambda: "another version")
    confshift.summarize(Run(tmp_path / "run")).table  # noqa: B018
    assert calls == [("row_of", EPOCHS)] * 2


@pytest.mark.parametrize("end", [slice(-1), slice(0)])
def test_damaged_values_are_made_anew(calls, tmp_path, end):
    save(tmp_path / "run", range(EPOCHS))
    table = confshift.summarize(Run(tmp_path / "run")).table
    (file,) = (tmp_path / "cache" / "confshift").glob("derived-*")
    file.write_bytes(file.read_bytes()[end])
    pd.testing.assert_frame_equal(confshift.summarize(Run(tmp_path / "run")).table, table, check_exact=True)
    assert calls == [("row_of", EPOCHS)] * 2


def test_without_a_cache_folder_the_numbers_are_the_same(large, tmp_path, monkeypatch):
    save(tmp_path / "run", range(EPOCHS))
    table = confshift.summarize(Run(tmp_path / "run")).table
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pd.testing.assert_frame_equal(confshift.summarize(Run(tmp_path / "run")).table, table, check_exact=True)


@pytest.mark.parametrize("home", ["~", ""])
def test_no_cache_is_made_in_the_present_folder(large, tmp_path, monkeypatch, home):
    save(tmp_path / "run", range(EPOCHS))
    table = table_of(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    before = sorted(Path().rglob("*"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by the specification
    monkeypatch.setattr(user_cache.os.path, "expanduser", lambda path: home)  # of a user without a home
    pd.testing.assert_frame_equal(table_of(tmp_path / "run"), table, check_exact=True)
    assert sorted(Path().rglob("*")) == before


def test_small_runs_and_runs_in_memory_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save(tmp_path / "run", range(EPOCHS))
    table = confshift.summarize(Run(tmp_path / "run")).table
    monkeypatch.setattr(panel, "KEPT_NUMBERS", 100)
    memory = [
        confshift.Checkpoint.from_predictions(one.predictions, epoch=one.epoch)
        for one in Run(tmp_path / "run").checkpoints()
    ]
    again = confshift.summarize(memory).table
    assert not (tmp_path / "cache").exists()
    pd.testing.assert_frame_equal(again.drop(columns="writer"), table.drop(columns="writer"))


def test_a_run_is_only_read(large, tmp_path):
    save(tmp_path / "run", range(EPOCHS))

    def state():
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}

    before = state()
    numbers(tmp_path / "run")
    assert state() == before


def test_values_kept_longest_ago_make_room(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(user_cache, "MOST_DERIVED", 1000)
    for number in range(5):
        user_cache.write_derived(str(number), bytes(300))
        (file,) = (f for f in (tmp_path / "confshift").iterdir() if f.stat().st_mtime_ns > 1e9)
        os.utime(file, ns=(number, number))
    # Each takes 365 bytes with its digest: two fit.
    assert [user_cache.read_derived(str(number)) is not None for number in range(5)] == [False] * 3 + [
        True
    ] * 2


def test_the_kept_row_is_that_of_the_checkpoint(large, tmp_path):
    save(tmp_path / "run", range(EPOCHS))
    history = confshift.summarize(Run(tmp_path / "run"))
    confshift.summarize(Run(tmp_path / "run")).table  # noqa: B018
    (file,) = (tmp_path / "cache" / "confshift").glob("derived-*")
    kept = json.loads(gzip.decompress(file.read_bytes().partition(b"\n")[2]))
    for one, checkpoint in zip(history.main.ones(), history.main.checkpoints, strict=True):
        row = row_of(one)
        assert list(kept[checkpoint.source.digest]) == list(row)
        np.testing.assert_equal(list(kept[checkpoint.source.digest].values()), list(row.values()))


def test_the_commands_take_a_number_of_workers(large, tmp_path, capsys):
    save(tmp_path / "run", range(EPOCHS))
    printed = []
    for jobs in ((), ("--jobs", "2")):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        main(["diagnose", str(tmp_path / "run"), "--json", *jobs], standalone_mode=False)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""
