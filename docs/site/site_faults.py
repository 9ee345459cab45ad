"""What can be wrong with a built site: a dead link, a request to another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser loads by itself, by tag.
RESOURCES = {
    **{"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "embed": "src"},
    "object": "data",
}
STYLE_LOADS = re.compile(r"(?:url\(|@import\s)\s*[\"']?((?:https?:)?//[^\"')]+)")
#: What the theme's script loads where it finds this in a page: a drawing, the numbers of a repository.
BY_CLASS = {"mermaid": "https://unpkg.com/mermaid"}
BY_COMPONENT = {"source": "https://api.github.com"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "modulepreload", "manifest"}


class _Page(HTMLParser):
    """The addresses that a page links to, those that a browser loads by itself, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses in a tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in RESOURCES and values.get(RESOURCES[tag]):
            self.loaded.append(values[RESOURCES[tag]])
        for kind in values.get("class", "").split():
            self.loaded += [BY_CLASS[kind]] if kind in BY_CLASS else []
        if values.get("data-md-component") in BY_COMPONENT:
            self.loaded.append(BY_COMPONENT[values["data-md-component"]])
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong with a built site: a dead link, or a request to another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        here = path.relative_to(site)
        yield from (f"{here} loads {address}" for address in page.loaded if _is_elsewhere(address))
        if path.name == "404.html":  # served at any depth: its addresses are absolute
            continue
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{here} links to {address}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{here} links to {address}: that page has no such anchor"
    for path in [*site.rglob("*.css"), *pages]:
        for address in STYLE_LOADS.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} loads {address}"


def _is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc)
