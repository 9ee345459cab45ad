"""What mkdocs does beside its own work: pages out of the README, pictures, a check of the built site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from readme_pages import ROOT, pages_of_readme
from site_faults import faults


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the findings, in the order of their table."""
    pages = re.findall(r"\]\((\w+)\.md\)", (ROOT / "docs" / "findings" / "index.md").read_text("utf-8"))
    (entry,) = (entry for entry in config.nav or [] if "Findings" in entry)
    entry["Findings"] += [{page: f"findings/{page}.md"} for page in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README's sections as pages, and the pictures and pages of `reports/`."""
    for name, text in pages_of_readme().items():
        files.append(File.generated(config, f"{name}.md", content=text))
    reports = ROOT / "reports"
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
