"""One function of many items: in this process, or by the workers that the caller set up with joblib."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from confshift.errors import ConfshiftError

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_workers() -> int:
    """Return how many workers `joblib.parallel_config` gives at present; 0 where nobody called it."""
    joblib = sys.modules.get("joblib")  # who has not imported it has not set up anything
    if joblib is None:
        return 0
    count = int(joblib.effective_n_jobs(None))
    return count if count > 1 or _cluster() is not None else 0


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], *, share_memory: bool = False
) -> list[Result]:
    """Return the function of each item, in order.

    Parameters
    ----------
    function : callable
        Of this package, so that another process can import it; its arguments and results can be pickled.
    items : sequence
    share_memory : bool
        The work reads or fills memory of this process: its threads do it, whatever workers were set up.

    Raises
    ------
    ConfshiftError
        Where a worker process ended before its work was done.
    """
    if len(items) < 2 or not count_workers():
        return [function(item) for item in items]
    import joblib

    cluster = None if share_memory else _cluster()
    try:
        if cluster is not None:
            return _mapped_by(cluster, function, items)
        parallel = joblib.Parallel(**(_threads(joblib) if share_memory else {}))
        return list(parallel(joblib.delayed(_alone)(function, item) for item in items))
    except _losses() as error:
        remedy = "fewer workers, --jobs or joblib.parallel_config(n_jobs=...), or none"
        if cluster is not None:
            remedy = "fewer workers on a machine, or give each more memory: n_workers, memory_limit"
        raise ConfshiftError(
            "a worker process ended before its work was done: it was killed or closed, or the memory was "
            f"full ({type(error).__name__}); what others had finished is kept. Use {remedy}"
        ) from error


def _threads(joblib: Any) -> dict[str, Any]:
    """Return how joblib is to use threads: of itself it takes one, where processes were set up."""
    count = count_workers()
    # The workers of a cluster are not the processors of this machine.
    return {"require": "sharedmem", "n_jobs": count if _cluster() is None else min(count, joblib.cpu_count())}


def _mapped_by(cluster: Any, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    # joblib's own way to a cluster waits forever for the result of a worker that was lost.
    futures = cluster.map(partial(_alone, function), items, pure=False)
    try:
        return list(cluster.gather(futures))
    except BaseException:
        with suppress(Exception):  # the cluster was closed
            cluster.cancel(futures)  # what has not begun is not to begin any more
        raise


def _cluster() -> Any:
    """Return dask's client, where the caller set up joblib for its workers; else None."""
    from joblib.parallel import get_active_backend

    return getattr(get_active_backend()[0], "client", None)


def _losses() -> tuple[type[Exception], ...]:
    """Return what is raised where a worker is lost."""
    distributed = sys.modules.get("distributed")
    of_clusters = () if distributed is None else (distributed.KilledWorker, CancelledError)
    return (BrokenProcessPool, *of_clusters)


def _alone(function: Callable[[Item], Result], item: Item) -> Result:
    with _ONE_THREAD:
        return function(item)


class _OneThread:
    """Has numpy's matrix products made by one thread while any worker of this process is at work.

    Workers would wait for each other's threads, and the last bits of a product depend on their number.
    """

    def __init__(self) -> None:
        self._lock, self._entered = threading.Lock(), 0
        self._limits: Any = None

    def __enter__(self) -> None:
        import threadpoolctl  # which joblib's users have, as scikit-learn does

        with self._lock:
            if not self._entered:
                self._limits = threadpoolctl.threadpool_limits(1, user_api="blas")
            self._entered += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                self._limits.restore_original_limits()


_ONE_THREAD = _OneThread()
