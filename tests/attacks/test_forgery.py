"""Runs forged with right checksums, short form of tests/benchmarks/attacks.py."""

from forgery import forgery


def test_whatever_a_forged_run_holds_every_reader_ends_in_an_answer_or_an_error_of_ours(tmp_path):
    figures = forgery(tmp_path, 40, seed=1)
    assert figures["failures"] == []
    assert figures["tried"] == figures["refused"] + figures["taken"] == 40
    assert min(figures["refused"], figures["taken"]) > 10
