"""Hostile and odd .npz files: refused in a line, or read as what they are; nothing executed or written."""

from __future__ import annotations

import io
import pickle
import random
import warnings
import zipfile
from collections import Counter

import numpy as np
from small_runs import call

from confshift import ConfshiftError, Predictions
from confshift.storage.npz import read_npz

_HEADERS = (
    "((((((((((",
    "9" * 4000,
    "[" * 2000,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 1000), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3.5), }",
    "{'descr': '<f8', 'fortran_order': 'yes', 'shape': (2, 3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
    "{'descr': '<U4000', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': [('a', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (), }",
    "{'descr': 'x' * 10, 'fortran_order': False, 'shape': (2, 3), }",
    "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (2, 3), }",
    "{'descr': '<f8', 'shape': (2, 3), }",
    "{}",
    "\x00\xff",
    "",
)
_DTYPES = (
    *(
        "<f2",
        "<f4",
        ">f8",
        "<f8",
        "<c8",
        "<i1",
        "<u8",
        ">i4",
        "?",
        "<M8[s]",
        "<m8[ns]",
        "<U3",
        ">U2",
        "|S3",
        "|V4",
    ),
    [("a", "<f8")],
    "(2,)<f4",
)
_NAMES = ("logits", "probabilities", "targets", "sample_ids", "class_names", "notes", "../up", "/abs", "a\nb")
_METHODS = (0, 1, 2, 6, 8, 9, 12, 14, 93, 98, 99, 65535)
_FLAGS = (1, 8, 32, 64, 2048, 8192, 65535)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def hostile_npz(folder, count, seed):
    """Make `count` hostile files, and read each.

    Returns
    -------
    dict
        tried, refused, taken; failures, a list of sentences: an error that is not a ConfshiftError, more than
        a line of it, a file that appeared, a traceback of `confshift add`.
    """
    draw, tally, failures = random.Random(seed), Counter(), []
    path, sprung = folder / "some.npz", folder / "sprung"
    for number in range(count):
        what, content = _attack(draw, sprung)
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = "taken" if isinstance(read_npz(path), Predictions) else "something else"
        except ConfshiftError as error:
            outcome = "refused" if "allow_pickle" not in str(error) else f"bad advice: {error}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if number % 10 == 0:
            code, raw = call("add", folder / f"run-{number}", path, "--epoch", 1)
            outcome = raw or (outcome if code == (2 if outcome == "refused" else 0) else f"exit code {code}")
        if sprung.exists():
            outcome = "something was executed"
            sprung.unlink()
        tally[outcome] += outcome in ("refused", "taken")
        if outcome not in ("refused", "taken"):
            failures.append(f"{number}, {what}: {outcome}")
    extra = [one.name for one in folder.iterdir() if one != path and not one.name.startswith("run-")]
    failures += [f"{name} appeared" for name in extra]
    return {"tried": count, "refused": tally["refused"], "taken": tally["taken"], "failures": failures}


def _attack(draw, sprung):
    """Return what is odd about a file, and its bytes."""
    random_ = np.random.default_rng(draw.randrange(1 << 30))
    sound = {"logits": random_.normal(size=(6, 3)) - 2, "targets": np.arange(6) % 3}
    kind = draw.choice(("bytes", "bytes", "header", "array", "array", "zip", "pickle", "nested"))
    members = {name: _npy(array) for name, array in sound.items()}
    name = draw.choice(_NAMES[:5])
    if kind == "header":
        header = draw.choice(_HEADERS).encode("latin-1") + b"\n"
        version = draw.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
        members[name] = b"\x93NUMPY" + version + size + header + draw.randbytes(draw.randrange(200))
    elif kind == "array":
        members[name] = _npy(_odd_array(draw, random_))
    elif kind == "pickle":
        trap = Trap(sprung)
        odd = np.array([trap], object)
        members[name] = draw.choice(
            (pickle.dumps(trap), _npy(odd, allow_pickle=True), b"\x93NUMPY" + pickle.dumps(trap))
        )
    elif kind == "nested":
        members = draw.choice(({}, {name: _zip(members)}, {**members, draw.choice(_NAMES[5:]): b"x"}))
    raw = bytearray(_zip(members, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))))
    if kind == "pickle" and draw.random() < 0.2:
        raw = bytearray(pickle.dumps(Trap(sprung)))
    if kind == "zip":
        _patch(draw, raw)
    if kind == "bytes":
        _damage(draw, raw)
    return f"{kind} in {name}", bytes(raw)


def _npy(array, **more):
    made = io.BytesIO()
    np.save(made, array, allow_pickle=bool(more))
    return made.getvalue()


def _zip(members, method=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, raw in members.items():
            archive.writestr(f"{name}.npy", raw)
    return made.getvalue()


def _odd_array(draw, random_):
    """Return an array of any dtype and shape, its bytes drawn or special."""
    shape = draw.choice(
        ((6, 3), (6,), (3,), (), (0,), (0, 3), (6, 0), (6, 1), (6, 3, 2), (7, 3), (1, 6), (6, 300))
    )
    dtype = np.dtype(draw.choice(_DTYPES))
    array = np.zeros(shape, dtype)
    if draw.random() < 0.7:
        raw = random_.bytes(array.nbytes)
        array = np.frombuffer(raw, array.dtype).reshape(array.shape) if array.nbytes else array
    elif array.dtype.kind in "fiu":
        array = array + array.dtype.type(draw.choice((0, 1, 120)))
    return array


def _patch(draw, raw):
    """Change the method, the flags, a size or the needed version in the archive's headers."""
    offset, values, width = draw.choice(
        (
            (8, _METHODS, 2),
            (6, _FLAGS, 2),
            (22, (0, 1, 2**31, 2**32 - 1), 4),
            (18, (0, 2**32 - 1), 4),
            (4, (255,), 2),
        )
    )
    value = draw.choice(values).to_bytes(width, "little")
    for sign, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = raw.find(sign)
        while at >= 0:
            raw[at + offset + shift : at + offset + shift + width] = value
            at = raw.find(sign, at + 4)


def _damage(draw, raw):
    for _ in range(draw.choice((1, 1, 2, 5, 30))):
        how, at = draw.choice(("flip", "flip", "cut", "insert")), draw.randrange(len(raw) or 1)
        if how == "flip" and raw:
            raw[at] ^= 1 << draw.randrange(8)
        elif how == "cut" and draw.random() < 0.3:
            del raw[at:]
        elif how == "insert":
            raw[at:at] = draw.randbytes(draw.randrange(1, 9))
