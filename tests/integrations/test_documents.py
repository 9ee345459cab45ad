"""Every section of docs/trainers.md runs, with the real libraries."""

from __future__ import annotations

import re

import pytest
from needed import needed

from test_docs import DOCS
from test_readme import README, parts, run

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("error:::confshift")]

PAGE = (DOCS / "trainers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
#: What each section with a block is about.
LIBRARIES = {
    "transformers": ["transformers", "accelerate", "tensorboard"],
    "lightning": ["lightning", "tensorboard"],
    "ignite": ["ignite"],
    "skorch": ["skorch"],
    "Keras 3 on torch": ["keras"],
    "accelerate, and torch.distributed itself": ["accelerate"],
    "fastai": ["fastai.basics"],
    "Loggers": ["tensorboard", "mlflow", "wandb", "trackio"],
}
SETUP = """
import confshift

def logged_to_tensorboard(folder):
    from pathlib import Path
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    tags = set()
    for path in Path(folder).rglob("events*"):
        events = EventAccumulator(str(path))
        events.Reload()
        tags |= set(events.Tags()["scalars"])
    return tags
"""


def test_each_section_with_a_block_has_its_libraries_and_no_block_is_skipped():
    assert set(LIBRARIES) == {name for name, text in SECTIONS.items() if parts(text)}
    assert "test: skip" not in PAGE


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_block_of_a_section_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for library in LIBRARIES[name]:
        needed(library)  # trackio reads its folder's name when it is imported
    setup = parts(README.read_text(encoding="utf-8"))[0].code  # a small model and its loaders
    run(f"<!-- test: setup\n{SETUP}{setup}-->\n{SECTIONS[name]}", "trainers.md")
