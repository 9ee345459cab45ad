"""A cluster of dask's, by joblib's backend: the numbers of one process, also where a worker is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import joblib
import numpy as np
import pytest
from needed import needed

from confshift import ConfshiftError, Run
from confshift.workers import count_workers, map_in_order
from test_docs import DOCS
from test_readme import run
from test_workers import OLD_RUN, assert_same, numbers, save

distributed = needed("distributed")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Start two workers, each a process with one thread."""
    folder = str(tmp_path_factory.mktemp("dask"))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def use_cache(folder):
    os.environ["XDG_CACHE_HOME"] = folder


def test_a_cluster_gives_the_same_bits(client, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = numbers(OLD_RUN)
    client.run(use_cache, str(tmp_path / "of-workers"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    with joblib.parallel_config("dask"):
        assert count_workers() == 2
        assert_same(numbers(OLD_RUN), expected)
    kept = (tmp_path / "of-workers" / "confshift").glob("derived-*")
    assert len(list(kept)) == len(Run(OLD_RUN))  # the workers did make the fits


def test_a_cluster_adds_files(client, tmp_path):
    save(tmp_path / "run", range(4))
    for one in Run(tmp_path / "run").checkpoints():
        saved = {"logits": one.predictions.logits, "targets": one.predictions.targets}
        np.savez(tmp_path / f"{one.epoch:g}.npz", **saved)
    with joblib.parallel_config("dask"):
        together = Run(tmp_path / "together").add(tmp_path)
    assert together["metrics"].tolist() == Run(tmp_path / "alone").add(tmp_path)["metrics"].tolist()
    assert Run(tmp_path / "together").verify()["sound"].all()


def end_once(item, folder):
    """End the worker at the first try of an item; without a folder at every try."""
    if item == 2 and (folder is None or not (folder / "tried").exists()):
        if folder is not None:
            (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_work_of_a_killed_worker_is_done_by_another(client, tmp_path):
    with joblib.parallel_config("dask"):
        assert map_in_order(partial(end_once, folder=tmp_path), list(range(4))) == [0, 1, 2, 3]


def test_work_that_kills_every_worker_is_an_error(client):
    with (
        joblib.parallel_config("dask"),
        pytest.raises(ConfshiftError, match=r"KilledWorker.*Use fewer workers on a machine"),
    ):
        map_in_order(partial(end_once, folder=None), list(range(4)))


def wait_for_others(item, folder):
    if item == 0:
        raise ConfshiftError("item=0 can't be used; leave it out")
    (folder / "begun" / str(item)).touch()
    while not (folder / "go").exists():
        time.sleep(0.01)


def test_after_an_error_no_worker_begins_anything_more(client, tmp_path):
    (tmp_path / "begun").mkdir()
    with joblib.parallel_config("dask"), pytest.raises(ConfshiftError, match="leave it out") as raised:
        map_in_order(partial(wait_for_others, folder=tmp_path), list(range(20)))
    assert raised.value  # as in a notebook, which keeps the last error
    (tmp_path / "go").touch()
    while any(client.processing().values()):
        time.sleep(0.01)
    assert len(list((tmp_path / "begun").iterdir())) < 10


def test_a_cluster_that_is_closed_meanwhile_is_an_error(tmp_path):
    (tmp_path / "begun").mkdir()

    def close():
        while not any((tmp_path / "begun").iterdir()):
            time.sleep(0.01)
        cluster.close()

    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(ConfshiftError, match=r"CancelledError.*is kept. Use fewer workers"):
            map_in_order(partial(wait_for_others, folder=tmp_path), list(range(1, 4)))
        closing.join()


def test_every_block_of_the_page_about_workers_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run((DOCS / "workers.md").read_text(encoding="utf-8"), "workers.md")
