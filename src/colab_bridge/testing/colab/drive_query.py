"""Drive's little languages: search terms and field masks. Pure.

Source: Drive API v3, "Search query terms and operators" and "Return specific fields". What is not here is refused, so
that a client cannot rely on a term that has not been checked against the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["BadQueryError", "matcher", "select"]

Document = Mapping[str, Any]

_STRING: Final = r"'((?:[^'\\]|\\.)*)'"
_IN_PARENTS: Final = re.compile(_STRING + r" in parents")
_COMPARISON: Final = re.compile(r"(name|mimeType|modifiedTime|createdTime) ?(=|!=|contains|>=|<=|>|<) ?" + _STRING)
_TRASHED: Final = re.compile(r"trashed ?(=|!=) ?(true|false)")
_HAS: Final = re.compile(
    r"(appProperties|properties) has \{ ?key ?= ?" + _STRING + r" and value ?= ?" + _STRING + r" ?\}"
)
_TIMES: Final = frozenset({"modifiedTime", "createdTime"})


class BadQueryError(Exception):
    """A search or a field mask that Drive does not understand, or that this emulator does not know."""


def matcher(query: str) -> Callable[[Document], bool]:
    """Return what tells whether a file is found.

    Args:
        query: Terms joined by ``and``; empty finds everything.

    Raises:
        BadQueryError: a term is not understood.
    """
    tests = []
    rest = query.strip()
    while rest:
        test, length = _term(rest)
        tests.append(test)
        rest = rest[length:].strip()
        if rest:
            if not rest.startswith("and "):
                raise BadQueryError(f"Invalid query near: {rest[:40]}")
            rest = rest[4:].strip()
    return lambda document: all(test(document) for test in tests)


def _term(text: str) -> tuple[Callable[[Document], bool], int]:
    if found := _IN_PARENTS.match(text):
        parent = _plain(found[1])
        return (lambda document: parent in document["parents"]), found.end()
    if found := _TRASHED.match(text):
        wanted = (found[2] == "true") == (found[1] == "=")
        return (lambda document: document["trashed"] is wanted), found.end()
    if found := _HAS.match(text):
        member, key, value = found[1], _plain(found[2]), _plain(found[3])
        return (lambda document: document[member].get(key) == value), found.end()
    if found := _COMPARISON.match(text):
        return _comparison(found[1], found[2], _plain(found[3])), found.end()
    raise BadQueryError(f"Invalid query near: {text[:40]}")


def _comparison(member: str, operator: str, value: str) -> Callable[[Document], bool]:
    # Times have one form here, RFC 3339 in UTC, so that their order is that of the texts.
    tests: dict[str, Callable[[str], bool]] = {
        "=": lambda have: have == value,
        "!=": lambda have: have != value,
    }
    if member in _TIMES:
        tests |= {
            ">": lambda have: have > value,
            "<": lambda have: have < value,
            ">=": lambda have: have >= value,
            "<=": lambda have: have <= value,
        }
    else:
        # For names it is a match of the beginning of words; ours begin where a letter or digit follows something else.
        pattern = re.compile(r"(?:^|[\W_])" + re.escape(value), re.IGNORECASE)
        tests["contains"] = lambda have: pattern.search(have) is not None
    if operator not in tests:
        raise BadQueryError(f"Invalid operator {operator} for {member}")
    test = tests[operator]
    return lambda document: test(document[member])


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def select(document: Any, mask: str) -> Any:
    """Return the part of a document that a field mask names.

    Args:
        document: JSON.
        mask: Such as ``id,name`` or ``files(id,owners/emailAddress)``; ``*`` is everything.

    Raises:
        BadQueryError: the mask is malformed.
    """
    tree, rest = _mask(mask)
    if rest:
        raise BadQueryError(f"Invalid field selection {mask}")
    return _selected(document, tree)


_Tree = dict[str, Any]


def _mask(text: str) -> tuple[_Tree, str]:
    """Read a list of fields; return it as a tree, and what follows it."""
    tree: _Tree = {}
    while True:
        found = re.match(r"\s*([A-Za-z0-9_*]+(?:/[A-Za-z0-9_*]+)*)\s*", text)
        if found is None:
            raise BadQueryError(f"Invalid field selection {text[:40]}")
        text = text[found.end() :]
        node = tree
        for name in found[1].split("/"):
            node = node.setdefault(name, {})
        if text.startswith("("):
            inner, text = _mask(text[1:])
            if not text.startswith(")"):
                raise BadQueryError("Invalid field selection: unbalanced parentheses")
            node.update(inner)
            text = text[1:]
        if not text.startswith(","):
            return tree, text
        text = text[1:]


def _selected(document: Any, tree: _Tree) -> Any:
    if not tree or "*" in tree:
        return document
    if isinstance(document, list):
        return [_selected(item, tree) for item in document]
    if not isinstance(document, dict):
        return document
    return {name: _selected(document[name], inner) for name, inner in tree.items() if name in document}
