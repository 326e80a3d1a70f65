"""Patterns in gitignore syntax: one line to a rule, many rules to one matcher.

Source: gitignore(5). Two known differences: ``?`` and ``[...]`` take one character (Git takes one byte), and patterns
are compared in Unicode form NFC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from unicodedata import normalize

__all__ = ["Matcher", "Rule", "escape_pattern", "parse_rules"]

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_NAMES_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file.

    Attributes:
        text: The line as it was written.
        negated: It starts with ``!``: what it matches is included again.
        folders_only: It ends with ``/``.
        anchored: It has a slash before its end, so it is compared with the whole path below the file's folder.
        pattern: What is left for matching.
    """

    text: str
    negated: bool
    folders_only: bool
    anchored: bool
    pattern: str


def _without_trailing_spaces(line: str) -> str:
    end = len(line)
    while end and line[end - 1] == " ":
        backslashes = len(line[: end - 1]) - len(line[: end - 1].rstrip("\\"))
        if backslashes % 2:
            break
        end -= 1
    return line[:end]


def parse_rules(text: str) -> list[Rule]:
    """Return the rules of an ignore file in their order; comments and empty lines are left out."""
    rules = []
    for raw in text.lstrip("\ufeff").split("\n"):
        line = raw.removesuffix("\r")
        if line.startswith("#"):
            continue
        pattern = normalize("NFC", _without_trailing_spaces(line))
        shown = pattern
        negated = pattern.startswith("!")
        pattern = pattern[1:] if negated else pattern
        folders_only = pattern.endswith("/")
        pattern = pattern[:-1] if folders_only else pattern
        anchored = "/" in pattern
        pattern = pattern.removeprefix("/")
        if pattern:
            rules.append(
                Rule(text=shown, negated=negated, folders_only=folders_only, anchored=anchored, pattern=pattern)
            )
    return rules


def escape_pattern(path: str) -> str:
    """Return the pattern that matches exactly this text."""
    escaped = re.sub(r"([\\*?\[])", r"\\\1", path)
    return escaped[:-1] + "\\ " if escaped.endswith(" ") else escaped


class _Unmatchable(Exception):
    """The pattern can match nothing."""


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """Translate the bracket expression after ``[``; return it and the place behind it."""
    place = start
    negated = pattern[place : place + 1] in {"!", "^"}
    place += negated
    parts: list[str] = []
    first = True
    while first or pattern[place : place + 1] != "]":
        first = False
        if place >= len(pattern):
            raise _Unmatchable
        if pattern.startswith("[:", place) and (end := pattern.find(":]", place + 2)) >= 0:
            if (members := _CLASSES.get(pattern[place + 2 : end])) is None:
                raise _Unmatchable
            parts.append(members)
            place = end + 2
            continue
        low, place = _bracket_letter(pattern, place)
        if pattern[place : place + 1] == "-" and pattern[place + 1 : place + 2] not in {"]", ""}:
            high, place = _bracket_letter(pattern, place + 1)
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            parts.append(re.escape(low))
    inside = "".join(parts)
    # A slash is never matched by a bracket in a path, whatever is in it.
    if negated:
        return f"[^{inside}/]", place + 1
    return (f"(?!/)[{inside}]" if inside else "(?!)"), place + 1


def _bracket_letter(pattern: str, place: int) -> tuple[str, int]:
    if pattern[place] == "\\":
        place += 1
        if place >= len(pattern):
            raise _Unmatchable
    return pattern[place], place + 1


class _Translation:
    """One pattern on its way to a regular expression that does not backtrack over stars of one component."""

    def __init__(self, pattern: str, group: str) -> None:
        self.pattern = pattern
        self.group = group
        self.out: list[str] = []
        self.chunks = [""]
        self.marks = 0

    def flush(self) -> None:
        """End a component. Between two stars the leftmost place is as good as any, so it is taken for good."""
        first, *rest = self.chunks
        self.out.append(first)
        if rest:
            for chunk in rest[:-1]:
                if chunk:
                    self.marks += 1
                    name = f"{self.group}_{self.marks}"
                    self.out.append(f"(?=(?P<{name}>[^/]*?{chunk}))(?P={name})")
            self.out.append("[^/]*" + rest[-1])
        self.chunks = [""]

    def stars(self, place: int) -> int:
        """Translate a run of stars; return the place behind it."""
        pattern, end = self.pattern, place
        while end < len(pattern) and pattern[end] == "*":
            end += 1
        whole = (place == 0 or pattern[place - 1] == "/") and (end == len(pattern) or pattern[end] == "/")
        if end - place < 2 or not whole:
            self.chunks.append("")
            return end
        if end == len(pattern):
            # a/**: everything inside, not the folder itself
            self.chunks[-1] += ".+"
            return end
        self.chunks[-1] += "(?:[^/]+/)*"
        return end + 1

    def run(self) -> str:
        pattern, place = self.pattern, 0
        while place < len(pattern):
            letter = pattern[place]
            if letter == "*":
                place = self.stars(place)
                continue
            place += 1
            if letter == "/":
                self.chunks[-1] += "/"
                self.flush()
            elif letter == "?":
                self.chunks[-1] += "[^/]"
            elif letter == "[":
                piece, place = _bracket(pattern, place)
                self.chunks[-1] += piece
            else:
                if letter == "\\":
                    if place >= len(pattern):
                        raise _Unmatchable
                    letter, place = pattern[place], place + 1
                self.chunks[-1] += re.escape(letter)
        self.flush()
        return "".join(self.out)


def _literal(pattern: str) -> str | None:
    """Return the text a pattern stands for when it has no wildcard, else None."""
    if not any(letter in pattern for letter in "*?[\\"):
        return pattern
    if any(letter in re.sub(r"\\.", "", pattern) for letter in "*?[\\"):
        return None
    return re.sub(r"\\(.)", r"\1", pattern)


_NO_PIECES: Mapping[int, Mapping[str, int]] = MappingProxyType({})


class _Finder:
    """The highest number of a rule whose pattern matches a text; most patterns cost one look into a dictionary."""

    def __init__(self, *, fold: bool) -> None:
        self._flags = re.IGNORECASE if fold else 0
        self._exact: dict[str, int] = {}
        # By the letter where they end or begin: most names have none of these letters there.
        self._tails: dict[str, dict[int, dict[str, int]]] = {}
        self._heads: dict[str, dict[int, dict[str, int]]] = {}
        self._wild: dict[str | None, list[tuple[int, str]]] = {}
        self._compiled: dict[str | None, tuple[re.Pattern[str], dict[int, int]]] = {}

    def add(self, number: int, pattern: str, *, is_name: bool) -> None:
        literal = _literal(pattern)
        if literal is not None:
            self._exact[literal] = number
            return
        tail = _literal(pattern[1:]) if is_name and pattern.startswith("*") else None
        head = _literal(pattern[:-1]) if is_name and pattern.endswith("*") and pattern[-2:] != "\\*" else None
        if tail:
            self._tails.setdefault(tail[-1], {}).setdefault(len(tail), {})[tail] = number
        elif head:
            self._heads.setdefault(head[0], {}).setdefault(len(head), {})[head] = number
        else:
            start = pattern[0] if is_name else pattern.split("/", 1)[0]
            first = _literal(start) if start != "\\" else None
            self._wild.setdefault(first, []).append((number, pattern))

    def find(self, text: str, first: str) -> int:
        """Return the number, -1 when nothing matches; ``first`` is the first letter of a name or part of a path."""
        best = self._exact.get(text, -1)
        for length, tails in self._tails.get(text[-1:], _NO_PIECES).items():
            if len(text) >= length:
                best = max(best, tails.get(text[-length:], -1))
        for length, heads in self._heads.get(text[:1], _NO_PIECES).items():
            best = max(best, heads.get(text[:length], -1))
        if self._wild:
            for bucket in (None, first):
                if bucket in self._wild:
                    best = max(best, self._search(bucket, text))
        return best

    def _search(self, bucket: str | None, text: str) -> int:
        ready = self._compiled.get(bucket)
        if ready is None:
            ready = self._compiled[bucket] = self._compile(self._wild.get(bucket, []))
        found = ready[0].fullmatch(text)
        return ready[1][found.lastindex] if found and found.lastindex else -1

    def _compile(self, rules: list[tuple[int, str]]) -> tuple[re.Pattern[str], dict[int, int]]:
        # The last rule decides, so it comes first; lastindex is the outer group, because that one closes last.
        pieces, numbers, groups = [], {}, 0
        for number, pattern in sorted(rules, reverse=True):
            try:
                translation = _Translation(pattern, f"r{number}")
                piece = translation.run()
            except _Unmatchable:
                continue
            pieces.append(f"({piece})")
            numbers[groups + 1] = number
            groups += 1 + translation.marks
        return re.compile("|".join(pieces) or "(?!)", self._flags | re.DOTALL), numbers


class Matcher:
    """All rules of one ignore file, ready to be asked.

    Args:
        rules: In the order of the file.
        fold: Compare without regard to case.
    """

    def __init__(self, rules: Iterable[Rule], *, fold: bool = False) -> None:
        self.rules = tuple(rules)
        self._fold = fold
        self._names = (_Finder(fold=fold), _Finder(fold=fold))
        self._paths = (_Finder(fold=fold), _Finder(fold=fold))
        self._has_paths = any(rule.anchored for rule in self.rules)
        self._seen: dict[tuple[str, bool], int] = {}
        for number, rule in enumerate(self.rules):
            pattern = rule.pattern.casefold() if fold else rule.pattern
            group = self._paths if rule.anchored else self._names
            group[rule.folders_only].add(number, pattern, is_name=not rule.anchored)

    def match(self, path: str, name: str, *, is_folder: bool) -> Rule | None:
        """Return the last rule that matches, or None.

        Args:
            path: Relative to the folder of the ignore file.
            name: Last component of the path.
            is_folder: The path is a folder (a link to one is not).
        """
        best = self._seen.get((name, is_folder), -2)
        if best == -2:
            best = self._best(self._names, name, name[:1], is_folder=is_folder)
            if len(self._seen) >= _NAMES_REMEMBERED:
                self._seen.clear()
            self._seen[name, is_folder] = best
        if self._has_paths:
            best = max(best, self._best(self._paths, path, path.split("/", 1)[0], is_folder=is_folder))
        return self.rules[best] if best >= 0 else None

    def _best(self, finders: tuple[_Finder, _Finder], text: str, first: str, *, is_folder: bool) -> int:
        if self._fold:
            text, first = text.casefold(), first.casefold()
        best = finders[False].find(text, first)
        return max(best, finders[True].find(text, first)) if is_folder else best
