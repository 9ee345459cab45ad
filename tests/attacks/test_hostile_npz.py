"""Two hundred hostile .npz files, short form of tests/benchmarks/attacks.py."""

from hostile_npz import hostile_npz


def test_every_hostile_npz_ends_in_a_line_or_in_sound_predictions(tmp_path):
    figures = hostile_npz(tmp_path, 200, seed=1)
    assert figures["failures"] == []
    assert figures["refused"] + figures["taken"] == figures["tried"] == 200
    assert figures["refused"] > 100
