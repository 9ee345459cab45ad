"""Reads a page back as a browser would, with the standard library's parser only."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page: (tag, attributes), their texts by id, and whether they nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open, self.misnested = [], {}, [], []
        self.all_text, self.inside_a_sentence = [], False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.inside_a_sentence = attributes.get("class") == "word"
        if tag not in VOID:
            self.open.append((tag, attributes.get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.inside_a_sentence = self.elements[-1][1].get("class") == "word" and tag == "a"
        if not self.open or self.open[-1][0] != tag:
            self.misnested.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data):
        for _, identity in self.open:
            if identity:
                self.texts[identity] = self.texts.get(identity, "") + data
        if self.inside_a_sentence:  # a link to the explanation of a word
            self.all_text[-1] += data
        elif not self.open or self.open[-1][0] not in ("script", "style"):
            self.all_text.append(data)

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def count(self, tag):
        return sum(one == tag for one, _ in self.elements)

    @property
    def text(self):
        return " ".join(" ".join(self.all_text).split())

    def json(self, identity):
        """Parse a packed JSON text; NaN and Infinity are not JSON."""

        def refuse(constant):
            raise AssertionError(f"{constant} in {identity}")

        return json.loads(self._unpack(identity), parse_constant=refuse)

    def array(self, identity, dtype):
        return np.frombuffer(self._unpack(identity), dtype)

    def _unpack(self, identity):
        return gzip.decompress(base64.b64decode(self.texts[identity]))
