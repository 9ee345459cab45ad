"""Which characters a terminal and a page can take."""

from __future__ import annotations

import re

#: Between a number and its unit or name. format.js has the same pattern.
#: It begins with the space, which is found at once where most places have to be passed over.
_INSIDE_NUMBERS = re.compile(
    r" (?:(?<=\d )(?=(?:nats|%|points)(?!\w))|(?<=\b[Ee]poch )(?=\d)|(?<=\b[Ee]pochs )(?=\d)|(?<=\bT )(?== )"
    r"|(?<=\bT[ \xa0]= )(?=\S))"
)
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


def unbroken(text: str) -> str:
    r"""Keep a number on one line with its unit, or with what it is the number of.

    >>> unbroken("T = 2.1 at epoch 12: 0.33 nats")
    'T\xa0=\xa02.1 at epoch\xa012: 0.33\xa0nats'
    """
    return _INSIDE_NUMBERS.sub("\xa0", text)


def encodable(text: str) -> str:
    r"""Replace what no encoding has: bytes of a path that are not UTF-8, halves of surrogate pairs.

    >>> encodable("r\udcffs") == "r\ufffds"
    True
    """
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
