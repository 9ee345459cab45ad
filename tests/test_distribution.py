"""What is installed with the package, under which licences, and what its archives hold."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
#: Words of licences; those of the last line bind code that only uses theirs.
LICENCES = ("BSD", "MIT", "Apache", "PSF", "MPL", "Zlib", "CC0", "BSL", "GPL", "EUPL", "Proprietary")
BINDING = {"GPL", "EUPL", "Proprietary"}


def listed(title):
    """Return a table of docs/dependencies.md: by package its licence and what it is for, or who wants it."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"## {title}\n\n\|.*\n\|--.*\n((?:\|.*\n)*)", text)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    return {name: (licence, role) for name, licence, role in rows}


DECLARED, BROUGHT = listed("Declared by confshift"), listed("Installed with them")
TRAINERS = listed("Trainers, and workers of a cluster")


def required(name):
    """Return what a package requires here, without extras."""
    found = map(Requirement, importlib.metadata.requires(name) or [])
    return {
        canonicalize_name(one.name) for one in found if not one.marker or one.marker.evaluate({"extra": ""})
    }


def licences_of(name):
    """Return the words of licences that a package's own description holds."""
    about = importlib.metadata.metadata(name)
    classified = [one for one in about.get_all("Classifier") or [] if one.startswith("License")]
    written = about.get("License-Expression") or " ".join([(about.get("License") or "")[:80], *classified])
    return {word for word in LICENCES if word in written}


def declared_here():
    """Return the packages that pyproject.toml declares for users, read without a parser of Python 3.11."""
    (tables,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PYPROJECT, re.DOTALL | re.MULTILINE)
    extras = re.findall(r"^(?:images|parquet) = \[(.*?)\]", PYPROJECT, re.MULTILINE)
    return {Requirement(one).name for one in re.findall(r'"([^"]+)"', "".join([tables, *extras]))}


def test_what_is_declared_is_listed():
    assert set(DECLARED) == declared_here()


def test_what_is_installed_with_it_is_listed_with_who_wants_it():
    found, new = set(), set(DECLARED)
    while new:
        found |= new
        new = set().union(*map(required, new)) - found
    assert found - set(DECLARED) <= set(BROUGHT)
    for name in found & set(BROUGHT):
        wanted_by = re.sub(r"\(.*?\)", "", BROUGHT[name][1]).replace(",", " ").split()
        assert [one for one in wanted_by if one in found and name in required(one)], name


def test_each_trainer_is_an_extra_that_is_listed():
    extras = {}
    for extra in ("dask", "transformers", "lightning", "ignite", "skorch", "keras"):
        (packages,) = re.findall(rf"^{extra} = \[(.*?)\]", PYPROJECT, re.MULTILINE)
        extras |= {Requirement(one).name: extra for one in re.findall(r'"([^"]+)"', packages)}
    assert {name: extra for name, (_, extra) in TRAINERS.items()} == extras


@pytest.mark.parametrize("name", TRAINERS)
def test_the_licence_of_a_trainer_is_that_which_it_states(name):
    try:
        stated = licences_of(name)
    except importlib.metadata.PackageNotFoundError:
        if os.environ.get("TRAINERS_REQUIRED"):
            raise
        pytest.skip(f"{name} is not installed: pip install -e '.[trainers]'")
    assert {word for word in LICENCES if word in TRAINERS[name][0]} <= stated


@pytest.mark.parametrize("name", [*DECLARED, *BROUGHT])
def test_a_licence_is_that_which_the_package_states_and_binds_nobody(name):
    licence = {**DECLARED, **BROUGHT}[name][0]
    ours = {word for word in LICENCES if word in licence}
    assert ours
    assert not ours & BINDING
    try:
        stated = licences_of(name)
    except importlib.metadata.PackageNotFoundError:
        assert "(" in BROUGHT[name][1], f"{name} is not installed, and the list does not say when it is"
        return
    assert ours <= stated
    assert not stated & BINDING


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist, and the wheel that is built from what it unpacks to."""
    if importlib.util.find_spec("hatchling") is None:
        message = "this test builds the package: pip install hatchling"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("built")

    def build(kind, source):
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (archive,) = folder.glob("*.tar.gz" if kind == "sdist" else "*.whl")
        return archive

    sdist = build("sdist", ROOT)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return sdist, build("wheel", folder / sdist.name.removesuffix(".tar.gz"))


def tracked(*folders):
    """Return the files below folders of the repository that are no litter."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    paths = {path.relative_to(ROOT) for path in found}
    return {path.as_posix() for path in paths if not {"__pycache__", "runs"} & {*path.parts}}


def test_the_sdist_holds_what_a_build_and_the_tests_need_and_no_pages(built):
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked("src", "tests", "examples", "docs") <= names
    assert {name.split("/")[0] for name in names} == {
        *("src", "tests", "examples", "docs", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"),
        *("CONTRIBUTING.md", "constraints.txt", "pyproject.toml", "PKG-INFO", ".gitignore"),
    }
    assert sdist.stat().st_size < 8_000_000


def test_a_wheel_builds_from_the_sdist_and_holds_the_package_and_its_licence(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("confshift/")}
    assert package == {name.removeprefix("src/") for name in tracked("src")}
    (folder,) = {name.split("/")[0] for name in names - package}
    assert f"{folder}/licenses/LICENSE" in names
