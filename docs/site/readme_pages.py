"""Pages of the site that are sections of the README, so that nothing is written twice."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Where the recalibration begins and ends in the README's section "Use", which is split there.
RECALIBRATION, AFTER_IT = "**Hand over the recalibration**", "**Two trainings**"

#: Links of the README, and what they are on the site.
LINKS = {"docs/": "", "#limits": "limits.md", "reports/README.md": "questions.md"}


def sections(text: str) -> dict[str, str]:
    """Return the sections of a page by their titles."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pages_of_readme() -> dict[str, str]:
    """Return the pages that are sections of the README, by name."""
    part = sections((ROOT / "README.md").read_text(encoding="utf-8"))
    use, rest = part["Use"].split(RECALIBRATION)
    recalibration, more = rest.split(AFTER_IT)
    reports = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    pages = {
        "start": f"# Get started\n\n## Install\n{part['Install']}\n## Use\n{use}{AFTER_IT}{more}",
        "recalibration": f"# Recalibration and the honest final number\n\n{RECALIBRATION}{recalibration}",
        "questions": reports.partition("\n## ")[0].replace("](t", "](reports/t"),
    }
    for name, title in {
        "numbers": "What the numbers mean",
        "verdicts": "What the verdicts mean",
        "commands": "The command line",
        "limits": "Limits",
    }.items():
        pages[name] = f"# {title}\n{part[title]}"
    for name, text in pages.items():
        for link, target in LINKS.items():
            text = text.replace(f"]({link}", f"]({target}")
        pages[name] = text
    return pages
