"""The contract between Python and the page's script: the script reads the keys that Python writes."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files

import pytest

from confshift.reporting.page_data import PageData, SampleData

ASSETS = files("confshift.reporting") / "assets"
SCRIPTS = {
    file.name: file.read_text(encoding="utf-8") for file in ASSETS.iterdir() if file.name.endswith(".js")
}


def read_from(owner):
    """Return every key that the scripts read from an object of this name, also by destructuring."""
    keys = set()
    for text in SCRIPTS.values():
        code = re.sub(r"//[^\n]*", "", text)
        keys |= set(re.findall(rf"(?<!spec\.)\b{owner}\.(\w+)", code))
        for inside in re.findall(rf"const {{([^}}]*)}} = this\.{owner}\b(?!\.)", code):
            keys |= set(re.findall(r"(?:^|,)\s*(\w+)", inside))
        for several in re.findall(rf"{{([^{{}}]*)}} = (?:this|data)\.{owner}\b(?!\.)", code):
            keys |= set(re.findall(r"(?:^|,)\s*(\w+)", several))
    return keys


def named(kind):
    return {field.name for field in fields(kind)}


def test_the_script_reads_every_key_of_the_data_and_no_other():
    assert read_from("data") - {"samples"} == named(PageData)


def test_the_script_reads_every_key_of_the_samples_and_no_other():
    assert read_from("samples") - {"length"} == named(SampleData)


def test_every_key_is_explained():
    source = (files("confshift.reporting") / "page_data.py").read_text(encoding="utf-8")
    for name in named(PageData) | named(SampleData):
        assert re.search(rf"^    {name}: .*  # \S", source, re.MULTILINE), name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_the_script_does_no_statistics(script):
    code = re.sub(r"//[^\n]*", "", SCRIPTS[script])
    assert not re.search(r"Math\.(sqrt|cbrt|pow)|\*\*\s*[0-9]|quantile|1\.96", code)
