"""Predictions from a .npz of another program."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from confshift import ConfshiftError
from confshift.storage.npz import read_npz

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
TARGETS = np.array([0, 2])


def saved(folder, **arrays):
    path = folder / "some.npz"
    np.savez(path, **arrays)
    return path


def test_every_known_array_is_taken_and_others_are_not(tmp_path):
    names, ids = np.array(["a", "b", "c"]), np.array(["y", "x"])
    path = saved(tmp_path, logits=LOGITS, targets=TARGETS, sample_ids=ids, class_names=names, epoch=3)
    read = read_npz(path)
    assert read.class_names == ("a", "b", "c")
    assert read.sample_ids.tolist() == ["x", "y"]  # in the order of the ids
    np.testing.assert_array_equal(read.logits, LOGITS[::-1])
    np.testing.assert_array_equal(read.targets, TARGETS[::-1])


def test_without_ids_and_names_the_order_and_the_index_stand_for_them(tmp_path):
    read = read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS))
    assert (read.id_source, read.class_names) == ("order", ("0", "1", "2"))


def test_probabilities_are_taken_under_their_own_name_only(tmp_path):
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    read = read_npz(saved(tmp_path, probabilities=shares, targets=TARGETS))
    np.testing.assert_allclose(np.exp(read.logits), shares, rtol=1e-12)
    with pytest.raises(ConfshiftError, match="these are probabilities"):
        read_npz(saved(tmp_path, logits=shares, targets=TARGETS))


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"targets": TARGETS}, "holds targets;"),
        ({"logits": LOGITS, "labels": TARGETS}, "holds logits, labels;"),
        (
            {"logits": LOGITS, "probabilities": LOGITS, "targets": TARGETS},
            "holds logits, probabilities, targets;",
        ),
        ({}, "holds nothing;"),
    ],
)
def test_a_missing_or_ambiguous_array_is_refused_and_what_is_there_is_named(tmp_path, arrays, named):
    with pytest.raises(ConfshiftError, match=named):
        read_npz(saved(tmp_path, **arrays))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["logits", "targets", "class_names"])
def test_a_pickle_in_the_file_is_refused_unopened(tmp_path, name):
    sprung = tmp_path / "sprung"
    path = saved(tmp_path, **{"logits": LOGITS, "targets": TARGETS, name: np.array([Trap(sprung)], object)})
    with pytest.raises(ConfshiftError, match=r"some\.npz can't be read .* without objects"):
        read_npz(path)
    assert not sprung.exists()


def test_a_pickle_under_an_unknown_name_is_not_looked_at(tmp_path):
    sprung = tmp_path / "sprung"
    read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS, notes=np.array([Trap(sprung)], object)))
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "odd.npz"
    path.write_bytes(content)
    with pytest.raises(ConfshiftError, match=r"odd\.npz can't be read"):
        read_npz(path)


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "one.npy", LOGITS)
    with pytest.raises(ConfshiftError, match=r"one\.npy can't be read .* numpy\.savez"):
        read_npz(tmp_path / "one.npy")


def test_a_cut_and_a_damaged_file_are_refused(tmp_path):
    path = saved(tmp_path, logits=np.zeros((200, 3)) - 1, targets=np.zeros(200, int))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfshiftError, match="can't be read"):
        read_npz(path)
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ConfshiftError, match="can't be read"):
        read_npz(path)


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    array = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", array)
        archive.writestr("targets.npy", array)
    with pytest.raises(ConfshiftError, match=r"huge\.npz can't be read"):
        read_npz(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfshiftError, match=r"none\.npz can't be read .*No such file"):
        read_npz(tmp_path / "none.npz")
