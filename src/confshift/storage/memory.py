"""How much memory is free: checked before a file of unknown origin is unpacked."""

from __future__ import annotations

from pathlib import Path

from confshift.errors import ConfshiftError

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

_MEMINFO, _STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
_GROUP = Path("/sys/fs/cgroup")
_GIB = 1 << 30
#: Smaller files are read without this check.
_SMALL = 1 << 26


def free_memory() -> int | None:
    """Return the bytes this process may still take; None if the system does not say.

    The least of what the machine has free, what its control group (a container, a batch job) has left, and
    what the limit on the address space leaves.
    """
    limits = [*_machine(), *_group(), *_address_space()]
    return max(0, min(limits)) if limits else None


def _machine() -> list[int]:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        return []


def _group() -> list[int]:
    try:
        limit, used = ((_GROUP / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        return [int(limit) - int(used)]
    except (OSError, ValueError):  # no such group, or "max": no limit
        return []


def _address_space() -> list[int]:
    if resource is None:
        return []
    try:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return []
        return [limit - int(_STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()]
    except (OSError, ValueError, IndexError):
        return []


def check_room(path: Path, size: int) -> None:
    """Refuse a file that takes more memory than is free; small ones are not checked.

    Raises
    ------
    ConfshiftError
        Naming the file and both sizes.
    """
    if size < _SMALL:
        return
    free = free_memory()
    if free is not None and size > free:
        raise ConfshiftError(
            f"{path} is not read: that takes about {size / _GIB:,.1f} GiB of memory, and "
            f"{free / _GIB:,.1f} GiB are free; free some, or read it on a larger machine"
        )
