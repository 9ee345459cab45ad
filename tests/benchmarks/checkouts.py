"""Two checkouts of confshift in one run of a benchmark, each in processes of its own, and what these cost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = ROOT / "src"
GB = 1e9
#: How often a process that runs is looked at, in seconds.
_LOOK = 0.02


@contextlib.contextmanager
def sources(given: str | Path) -> Iterator[Path]:
    """Yield the folder that Python imports a checkout from: a checkout, its src folder, or a git revision."""
    for folder in (Path(given), Path(given, "src")):
        if (folder / "confshift" / "__init__.py").is_file():
            yield folder.resolve()
            return
    with tempfile.TemporaryDirectory() as place:
        archive = subprocess.run(
            ["git", "-C", ROOT, "archive", str(given), "src"], stdout=subprocess.PIPE, check=False
        )
        if archive.returncode:
            raise SystemExit(f"{given} is no checkout of confshift and no revision that git knows")
        file = Path(place, "src.tar")
        file.write_bytes(archive.stdout)
        with tarfile.open(file) as packed:
            packed.extractall(place, filter="data")
        yield Path(place, "src")


def environment(source: Path, **more: str | Path) -> dict[str, str]:
    """Return the environment of a process that imports confshift from there, on one thread, from bytecode."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**own, **threads, "PYTHONPATH": str(source), **{name: str(value) for name, value in more.items()}}


@dataclass(frozen=True)
class Cost:
    """What a process took; `over` says which limit ended it, "" where none did."""

    cpu: float  # user and system, in seconds
    wall: float
    peak: float  # of the resident memory in GB, with the pages of files that are mapped
    over: str = ""


def cost_of(
    arguments: list[str | Path], environment: dict[str, str], *, seconds: float, gigabytes: float
) -> Cost:
    """Run Python with arguments and wait for it; it is killed beyond so many CPU seconds or so much memory.

    A process between starts it: Linux counts what was in memory when a process was started as its own.

    Raises
    ------
    SystemExit
        Where it fails: with what it wrote last.
    """
    between = [sys.executable, "-I", "-S", __file__, str(seconds), str(gigabytes), *map(str, arguments)]
    told = subprocess.run(between, env=environment, stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(told)
    if found.pop("failed") and not found["over"]:
        raise SystemExit(f"{arguments} failed:\n{found['written']}")
    del found["written"]
    return Cost(**found)


def _watch(seconds: float, gigabytes: float, arguments: list[str]) -> dict[str, object]:
    """Run Python with arguments; return the fields of Cost, whether it failed, and what it wrote last."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output)
        over = ""
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            if not over and (over := _beyond(process.pid, seconds, gigabytes)):
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(_LOOK)
        wall, (_, status, usage) = time.perf_counter() - start, ended
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        written = output.read()[-3000:].decode(errors="replace")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": wall,
        "peak": unit * usage.ru_maxrss / GB,
        "over": over,
        "failed": process.returncode != 0,
        "written": written,
    }


def _beyond(process: int, seconds: float, gigabytes: float) -> str:
    """Say which limit a process is beyond; "" where none, or where the system has no /proc to look at."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > seconds:
            return f"over {seconds:g} s"
        if int(fields[21]) * os.sysconf("SC_PAGE_SIZE") > gigabytes * GB:
            return f"over {gigabytes:g} GB"
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_watch(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])))
