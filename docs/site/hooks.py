"""What mkdocs does beside its own work: the pages of reports/, pictures, a check of the built site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from site_faults import faults

ROOT = Path(__file__).parents[2]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the findings, in the order of their table."""
    pages = re.findall(r"\]\((\w+)\.md\)", (ROOT / "docs" / "findings" / "index.md").read_text("utf-8"))
    (entry,) = (entry for entry in config.nav or [] if "Findings" in entry)
    entry["Findings"] += [{page: f"findings/{page}.md"} for page in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what `reports/` holds: its answers as a page, the pictures, the pages of the examples."""
    reports = ROOT / "reports"
    answers = (reports / "README.md").read_text("utf-8").partition("\n## The page in every state")[0]
    files.append(File.generated(config, "questions.md", content=answers.replace("](t", "](../reports/t")))
    for path in [*reports.glob("*.png"), *reports.glob("screens/*.webp"), *reports.glob("t*.html")]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out what only the tests read; find the reports beside the pages."""
    return re.sub(r"^<!-- test: .*?-->\n", "", markdown, flags=re.MULTILINE | re.DOTALL).replace(
        "](../reports/", "](reports/"
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with a dead link or a request to another host."""
    found = list(faults(Path(config.site_dir).resolve()))
    if found:
        raise PluginError("\n".join(found))
