"""Runs forged with right checksums: any value of any type in any field, any number in any column."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import numpy as np
from small_runs import EPOCHS, SAMPLES, attempt, call, copied, judge, make_run, overwrite, read

import confshift
from confshift import ConfshiftError
from confshift.storage import arrays, record
from confshift.storage.signed_json import decode, encode

_letters = st.characters(exclude_categories=[])  # halves of characters too
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**63), 10**300, 10**400, -(10**400)]),
    st.floats(),
    st.sampled_from(
        ["", "x", "val", "000001.json", "\ud800", "../../etc/passwd", "nan", "1", "a\0b", "é" * 400]
    ),
    st.text(_letters, max_size=4),
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(_letters, max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
) | st.integers(1, 300).map(lambda depth: _nested(depth))


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


#: One forgery in so many is also shown to the command line.
_SHOWN = 20
#: Where a value is put: a field of the record, or of what is in it.
_PLACES = st.sampled_from(
    [
        *[
            (name,)
            for name in ("split", "epoch", "fingerprint", "metadata", "beta", "sequence", "generation")
        ],
        *[
            (name,)
            for name in ("gaps", "shards", "id_source", "ignored_samples", "duplicate_samples", "schema")
        ],
        *[
            (name,)
            for name in ("source_dtype", "writer", "written", "versions", "logged", "checks", "surprise")
        ],
        *[("shards", 0, name) for name in ("rank", "encoding", "logits", "columns", "rows", "surprise")],
        *[
            ("shards", 0, "rows", name)
            for name in ("task", "label_names", "group_names", "total_rows", "surprise")
        ],
        *[
            ("shards", 0, which, name)
            for which in ("logits", "columns")
            for name in ("name", "size", "offset", "header_crc", "dtype", "shape", "crcs", "surprise")
        ],
        *[("logged", name) for name in ("loss", "lr", "x")],
        *[("metadata", name) for name in ("lr", "learning_rate", "class_weights", "x")],
        *[("checks", name) for name in ("modes", "repeatable", "alone", "head", "buffers")],
        *[
            ("checks", check, name)
            for check in ("modes", "repeatable", "alone", "head")
            for name in (
                "status",
                "reason",
                "modules",
                "count",
                "difference",
                "mean_squared_norm",
                "in_features",
            )
        ],
        ("versions", "confshift"),
    ]
)
_gaps = st.lists(
    st.fixed_dictionaries({"split": _values, "epoch": _values, "reason": _values}), min_size=1, max_size=3
)
_class_weights = st.lists(_scalars, min_size=4, max_size=4)
_records = st.one_of(
    st.tuples(_PLACES, _values),
    st.tuples(st.just(("gaps",)), _gaps),
    st.tuples(st.just(("metadata", "class_weights")), _class_weights),
    st.tuples(
        st.just(("checks", "head")),
        st.dictionaries(
            st.sampled_from(["status", "bias", "zero_weights", "in_features", "mean_squared_norm"]), _scalars
        ),
    ),
)
_special = st.sampled_from(
    [0, 1, -1, 3, 4, 7, 2**31 - 1, -(2**31), 0.5, 1e-300, 1e300, 1.2, np.nan, np.inf, -np.inf]
)
_columns = st.tuples(
    st.sampled_from(record.columns_dtype("<i8", groups=True).names[1:]),
    _special,
    st.sampled_from(["one", "some", "all"]),
    st.integers(0, 2**31),
)
_logits = st.tuples(
    st.sampled_from(["<f2", "<f4", "<f8", "<u2", "<i4"]),
    st.sampled_from(
        [(SAMPLES, 4), (SAMPLES, 3), (SAMPLES - 1, 4), (SAMPLES, 1), (0, 4), (SAMPLES * 4,), (SAMPLES, 4, 1)]
    ),
    _special,
    st.sampled_from(["float16", "float32", "float64", "bfloat16"]),
)
_ids = st.sampled_from(["equal", "descending", "not UTF-8", "numbers", "long", "empty"])
_names = st.lists(st.text(_letters, max_size=3), min_size=3, max_size=5) | _values
_forgeries = st.one_of(
    st.tuples(st.just("record"), _records),
    st.tuples(st.just("record"), _records),
    st.tuples(st.just("columns"), _columns),
    st.tuples(st.just("logits"), _logits),
    st.tuples(st.just("ids"), _ids),
    st.tuples(st.just("names"), st.tuples(st.sampled_from(["run.json", "class_names.json", "both"]), _names)),
)


def forgery(folder, count, seed, *, pages=0):
    """Forge one thing in a run `count` times, and read and judge the run each time.

    Returns
    -------
    dict
        tried; refused (the forged checkpoint is not used), taken; failures, a list of sentences: an error
        that is not a ConfshiftError.
    """
    tally, failures = Counter(), []
    path = make_run(folder / "run")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_forgeries)
    def attack(forged):
        number = tally["tried"]
        tally["tried"] += 1
        copy = copied(path, number)
        try:
            _FORGERS[forged[0]](copy, forged[1])
            used = _used(copy)
            tally["taken" if used else "refused"] += 1
            if used:
                judge(copy)
            if number % _SHOWN == 0:
                code, raw = call("diagnose", copy, "--json")
                if raw or code not in (0, 2):
                    raise AssertionError(f"confshift diagnose --json: {raw or code}")
            if pages and number % pages == 0:
                code, raw = call("report", copy, "-o", folder / "page.html")
                if raw or code not in (0, 2):
                    failures.append(f"report of {forged!r:.300}: {raw or code}")
        except Exception as error:
            failures.append(f"{forged!r:.300}: {type(error).__name__}: {error}")
        finally:
            shutil.rmtree(copy)

    attack()
    return {**tally, "failures": failures}


def _used(path):
    """Read everything; tell whether the forged checkpoint is among what can be used."""
    names, found, _ = read(path)
    attempt(lambda: (len(confshift.Run(path)), confshift.Run(path).epochs_of("val")))
    return not isinstance(names, ConfshiftError) and len(found) == EPOCHS + 1


def _file(path):
    return path / "val" / "000003.json"


def _forge_record(path, forged):
    (*way, last), value = forged
    file = _file(path)
    content = decode(file.read_bytes(), file)
    place = content
    for step in way:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[last] = value
    overwrite(file, encode(content))


def _forge_arrays(path, *, columns=None, logits=None, encoding=None):
    """Write other arrays in the place of a checkpoint's own, with right checksums."""
    file = _file(path)
    kept = record.read_record(file.read_bytes(), file)
    shard = kept.shards[0]
    for name, array in (("columns", columns), ("logits", logits)):
        if array is not None:
            old = getattr(shard, name)
            (file.parent / old.name).unlink()
            shard = replace(shard, **{name: arrays.write_array(file.parent / old.name, array)})
    shard = replace(shard, encoding=encoding or shard.encoding)
    overwrite(file, replace(kept, shards=(shard,)).to_bytes())


def _rows(path):
    file = _file(path)
    return arrays.read_array(
        file.parent, record.read_record(file.read_bytes(), file).shards[0].columns
    ).copy()


def _forge_columns(path, forged):
    name, value, which, seed = forged
    rows = _rows(path)
    chosen = {
        "one": np.arange(SAMPLES) == seed % SAMPLES,
        "some": np.random.default_rng(seed).random(SAMPLES) < 0.3,
        "all": np.ones(SAMPLES, bool),
    }[which]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "tied":
            rows["tied"].view(np.uint8)[chosen] = seed % 256
        elif rows[name].dtype.kind == "i" and not abs(value) <= 2**31 - 1:
            rows[name][chosen] = seed % 50
        else:
            rows[name][chosen] = value
    _forge_arrays(path, columns=rows)


def _forge_logits(path, forged):
    dtype, shape, value, encoding = forged
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.full(shape, value).astype(dtype)
    _forge_arrays(path, logits=array, encoding=encoding)


def _forge_ids(path, what):
    rows = _rows(path)
    if what == "equal":
        rows["sample_id"] = rows["sample_id"][0]
    elif what == "descending":
        rows["sample_id"] = rows["sample_id"][::-1].copy()
    elif what == "empty":
        rows["sample_id"] = b""
    elif what == "not UTF-8":
        rows["sample_id"] = [b"\xff%02d" % number for number in range(SAMPLES)]
    else:
        dtype = record.columns_dtype("<i8" if what == "numbers" else "|S4000", groups=True)
        other = np.zeros(SAMPLES, dtype)
        for name in dtype.names[1:]:
            other[name] = rows[name]
        other["sample_id"] = (
            range(SAMPLES) if what == "numbers" else [b"%09d" % one for one in range(SAMPLES)]
        )
        rows = other
    _forge_arrays(path, columns=rows)


def _forge_names(path, forged):
    which, names = forged
    for file in ("run.json", "class_names.json"):
        if which in (file, "both"):
            overwrite(path / file, encode({"class_names": names, "versions": {}}))


_FORGERS = {
    "record": _forge_record,
    "columns": _forge_columns,
    "logits": _forge_logits,
    "ids": _forge_ids,
    "names": _forge_names,
}
