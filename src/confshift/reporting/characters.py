"""Which characters a terminal and a page can take."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Escape whatever could move a cursor, colour a line or change the direction of writing.

    >>> print(printable("cat\x1b[2J\ndog"))
    cat\x1b[2J\ndog
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def encodable(text: str) -> str:
    r"""Replace what no encoding has: bytes of a path that are not UTF-8, halves of surrogate pairs.

    >>> encodable("r\udcffs") == "r\ufffds"
    True
    """
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
