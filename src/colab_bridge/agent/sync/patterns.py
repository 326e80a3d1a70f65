"""Patterns in gitignore syntax: one line to a rule, many rules to one matcher.

Source: gitignore(5). Two known differences: ``?`` and ``[...]`` take one character (Git takes one byte), and patterns
are compared in Unicode form NFC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
_ENDS_REMEMBERED = 10_000


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


def _edges(pattern: str) -> tuple[str, str, str]:
    """Return what a pattern without a slash says about every name that it matches.

    Returns:
        Regular expressions for the first and for the last letter (empty: any letter), and the longest text in it.

    Raises:
        _Unmatchable: it can match nothing.
    """
    letters: list[str] = []  # one expression for each letter, empty for a star
    texts = [""]
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if letter == "*":
            letters.append("")
            texts.append("")
        elif letter == "?":
            letters.append("[^/]")
            texts.append("")
        elif letter == "[":
            piece, place = _bracket(pattern, place)
            letters.append(piece)
            texts.append("")
        else:
            if letter == "\\":
                if place >= len(pattern):
                    raise _Unmatchable
                letter, place = pattern[place], place + 1
            letters.append(re.escape(letter))
            if letter.isascii():
                texts[-1] += letter
            else:
                # Without regard to case, another letter may stand for this one.
                texts.append("")
    return letters[0], letters[-1], max(texts, key=len)


@dataclass(frozen=True, slots=True)
class _Wild:
    """A pattern with wildcards at other places than its beginning or its end alone.

    Attributes:
        number: Number of its rule.
        first: Expression for the first letter; empty is any.
        last: Likewise for the last one.
        text: In every name that it matches.
        match: Returns None for a name that it does not match.
    """

    number: int
    first: str
    last: str
    text: str
    match: Callable[[str], object]

    def may_have(self, first: str, last: str, flags: int) -> bool:
        """Return whether a name with these letters at its ends may match."""
        return _may_be(self.first, first, flags) and _may_be(self.last, last, flags)


def _may_be(wanted: str, letter: str, flags: int) -> bool:
    if wanted in {"", re.escape(letter)}:
        return True
    is_set = wanted[0] in "[("
    return is_set and re.fullmatch(wanted, letter, flags) is not None


_Pieces = tuple[tuple[int, dict[str, int]], ...]
_Ends = tuple[_Pieces, _Pieces, tuple[_Wild, ...]]
_UNKNOWN: _Ends = ((), (), ())


class _Names:
    """The highest number of a rule without a slash whose pattern matches a name.

    A name costs two looks into dictionaries: as a whole, and by its first and its last letter, which tell the few
    patterns that may match it.
    """

    def __init__(self, *, fold: bool) -> None:
        self._fold = fold
        self._flags = (re.IGNORECASE if fold else 0) | re.DOTALL
        self._exact: dict[str, int] = {}
        # By the letter where they end or begin: most names have none of these letters there.
        self._tails: dict[str, dict[int, dict[str, int]]] = {}
        self._heads: dict[str, dict[int, dict[str, int]]] = {}
        self._wild: list[_Wild] = []
        self._ends: dict[str, _Ends | None] = {}

    def add(self, number: int, pattern: str) -> None:
        """Take a rule; later ones have higher numbers."""
        literal = _literal(pattern)
        if literal is not None:
            self._exact[literal] = number
            return
        tail = _literal(pattern[1:]) if pattern.startswith("*") else None
        head = _literal(pattern[:-1]) if pattern.endswith("*") and pattern[-2:] != "\\*" else None
        if tail:
            self._tails.setdefault(tail[-1], {}).setdefault(len(tail), {})[tail] = number
        elif head:
            self._heads.setdefault(head[0], {}).setdefault(len(head), {})[head] = number
        else:
            try:
                expression = re.compile(_Translation(pattern, f"r{number}").run(), self._flags)
                self._wild.append(_Wild(number, *_edges(pattern), expression.fullmatch))
            except _Unmatchable:
                return

    def find(self, name: str) -> int:
        """Return the number, -1 when nothing matches."""
        best = self._exact.get(name, -1)
        letters = name[:1] + name[-1:]
        ends = self._ends.get(letters, _UNKNOWN)
        if ends is _UNKNOWN:
            ends = self._learn(letters)
        if ends is None:
            return best
        tails, heads, wild = ends
        for length, texts in tails:
            if len(name) >= length:
                best = max(best, texts.get(name[-length:], -1))
        for length, texts in heads:
            best = max(best, texts.get(name[:length], -1))
        anyway = self._fold and not name.isascii()
        for rule in wild:
            if rule.number > best and (anyway or rule.text in name) and rule.match(name):
                return rule.number
        return best

    def _learn(self, letters: str) -> _Ends | None:
        """Return what may match names with these two letters at their ends."""
        first, last = letters[:1], letters[-1:]
        tails, heads = tuple(self._tails.get(last, {}).items()), tuple(self._heads.get(first, {}).items())
        wild = tuple(rule for rule in reversed(self._wild) if rule.may_have(first, last, self._flags))
        ends = (tails, heads, wild) if tails or heads or wild else None
        if len(self._ends) >= _ENDS_REMEMBERED:
            self._ends.clear()
        self._ends[letters] = ends
        return ends


class _Paths:
    """The highest number of a rule with a slash whose pattern matches a path."""

    def __init__(self, *, fold: bool) -> None:
        self._flags = re.IGNORECASE if fold else 0
        self._exact: dict[str, int] = {}
        # By the first component; None where a wildcard is in it.
        self._wild: dict[str | None, list[tuple[int, str]]] = {}
        self._compiled: dict[str | None, tuple[re.Pattern[str], dict[int, int]]] = {}
        self._firsts: set[str] = set()

    def add(self, number: int, pattern: str) -> None:
        """Take a rule; later ones have higher numbers."""
        literal = _literal(pattern)
        if literal is not None:
            self._exact[literal] = number
            self._firsts.add(literal.split("/", 1)[0])
            return
        start = pattern.split("/", 1)[0]
        first = _literal(start) if start != "\\" else None
        self._wild.setdefault(first, []).append((number, pattern))
        if first is not None:
            self._firsts.add(first)

    def speaks_of(self, first: str) -> bool:
        """Return whether a path with this first component may match."""
        return None in self._wild or first in self._firsts

    def find(self, path: str) -> int:
        """Return the number, -1 when nothing matches."""
        best = self._exact.get(path, -1)
        if self._wild:
            for bucket in (None, path.split("/", 1)[0]):
                if bucket in self._wild:
                    best = max(best, self._search(bucket, path))
        return best

    def _search(self, bucket: str | None, path: str) -> int:
        ready = self._compiled.get(bucket)
        if ready is None:
            ready = self._compiled[bucket] = self._compile(self._wild.get(bucket, []))
        found = ready[0].fullmatch(path)
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
        # For all names, and for those of folders only.
        self._names = (_Names(fold=fold), _Names(fold=fold))
        self._paths = (_Paths(fold=fold), _Paths(fold=fold))
        self._has_paths = False
        for number, rule in enumerate(self.rules):
            pattern = rule.pattern.casefold() if fold else rule.pattern
            if rule.anchored:
                self._paths[rule.folders_only].add(number, pattern)
                self._has_paths = True
            else:
                self._names[rule.folders_only].add(number, pattern)

    def asks_paths_in(self, folder: str) -> bool:
        """Return whether a path in a folder may matter, and not only the name: see :meth:`match`.

        Args:
            folder: Path of the folder relative to that of the ignore file; empty is the same one.
        """
        if not self._has_paths or not folder:
            return self._has_paths
        first = folder.split("/", 1)[0]
        first = first.casefold() if self._fold else first
        return any(paths.speaks_of(first) for paths in self._paths)

    def match(self, path: str | None, name: str, *, is_folder: bool) -> Rule | None:
        """Return the last rule that matches, or None.

        Args:
            path: Relative to the folder of the ignore file; None where :meth:`asks_paths_in` says that it is no matter.
            name: Last component of the path.
            is_folder: The path is a folder (a link to one is not).
        """
        text = name.casefold() if self._fold else name
        best = self._names[False].find(text)
        if is_folder:
            best = max(best, self._names[True].find(text))
        if path is not None:
            path = path.casefold() if self._fold else path
            best = max(best, self._paths[False].find(path))
            if is_folder:
                best = max(best, self._paths[True].find(path))
        return self.rules[best] if best >= 0 else None
