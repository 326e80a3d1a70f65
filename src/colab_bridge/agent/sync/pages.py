"""Trees on the wire: pages of JSON rows, checked row by row.

Rows stand in tree order (paths compared component by component), so order, absence of duplicates and the presence of
each parent are one comparison with the row before. Everything that arrives is treated as hostile: counts, lengths and
types are checked before anything is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .names import MAX_DEPTH, check_name, check_path, check_target
from .tree import Blocked, Directory, Entry, File, Link, Unknown, Why, walk

__all__ = ["PAGE_ROWS", "TreeReader", "WireError", "row_of", "tree_pages"]

PAGE_ROWS = 10_000
_DIGEST_BYTES = 32
_MAX_SIZE = 2**63 - 1
_BLOCKED = {why.value: why for why in Why}


class WireError(ValueError):
    """No honest agent sends this; the session ends (safety stop S9)."""


def row_of(path: str, entry: Entry) -> list[object]:
    """Return the row for one entry; folders without their content."""
    if isinstance(entry, File):
        return [path, "f", entry.size, entry.digest.hex(), entry.executable]
    if isinstance(entry, Directory):
        return [path, "d", entry.has_ignored]
    if isinstance(entry, Link):
        return [path, "l", entry.target]
    if isinstance(entry, Blocked):
        return [path, "x", entry.why.value, entry.size]
    return [path, "u", entry.detail]


def tree_pages(root: Directory, rows: int = PAGE_ROWS) -> Iterator[list[list[object]]]:
    """Yield the tree as pages of at most ``rows`` rows; the first row is the root's own."""
    page: list[list[object]] = [row_of("", root)]
    for path, entry in walk(root):
        if len(page) >= rows:
            yield page
            page = []
        page.append(row_of(path, entry))
    yield page


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise WireError("a size is no size")
    return value


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise WireError("a text is missing or too long")
    return value


def _entry(row: list[Any]) -> Entry:
    kind, length = row[1], len(row)
    if kind == "f" and length == 5 and isinstance(row[4], bool):
        digest = _text(row[3], _DIGEST_BYTES * 2)
        try:
            raw = bytes.fromhex(digest)
        except ValueError as error:
            raise WireError("a digest is no digest") from error
        if len(raw) != _DIGEST_BYTES or len(digest) != _DIGEST_BYTES * 2:
            raise WireError("a digest has another length")
        return File(raw, _whole(row[2]), row[4])
    if kind == "d" and length == 3 and isinstance(row[2], bool):
        return Directory({}, has_ignored=row[2])
    if kind == "l" and length == 3:
        target = _text(row[2], 4096)
        # A link that cannot travel is not a lie: it may well exist over there.
        return Blocked(Why.LINK_OUTSIDE) if check_target(target) else Link(target)
    if kind == "x" and length == 4 and isinstance(row[2], str) and row[2] in _BLOCKED:
        return Blocked(_BLOCKED[row[2]], _whole(row[3]))
    if kind == "u" and length == 3:
        return Unknown(_text(row[2], 64))
    raise WireError("an entry of an unknown kind")


class TreeReader:
    """Builds a tree out of pages from the other side.

    Args:
        max_entries: More rows than this end the session.

    Names that are hostile, rows out of order, twice, below something that is no folder, or of an unknown kind raise
    :class:`WireError`. Names that are only refused become :class:`Blocked`; unportable ones are kept, because whether
    they may be created is decided with the other side in view.
    """

    def __init__(self, max_entries: int = 200_000) -> None:
        self._max_entries = max_entries
        self._count = 0
        self._root: dict[str, Entry] | None = None
        self._has_ignored = False
        self._names: list[str] = []
        self._open: list[dict[str, Entry] | None] = []

    def feed(self, page: object) -> None:
        """Take in one decoded page.

        Raises:
            WireError: See the class.
        """
        if not isinstance(page, list) or len(page) > PAGE_ROWS:
            raise WireError("a page is no page")
        for row in page:
            if not isinstance(row, list) or len(row) < 3 or not isinstance(row[0], str):
                raise WireError("a row is no row")
            self._count += 1
            if self._count > self._max_entries + 1:
                raise WireError(f"more than {self._max_entries} entries")
            self._row(row)

    def _row(self, row: list[Any]) -> None:
        path = row[0]
        entry = _entry(row)
        if self._root is None:
            if path or not isinstance(entry, Directory):
                raise WireError("the first row is not the root")
            self._root = {}
            self._has_ignored = entry.has_ignored
            self._open = [self._root]
            return
        names = path.split("/")
        fault = check_path(path) if len(path) < 65_536 else None
        if len(path) >= 65_536 or (fault is not None and fault.grade == "hostile"):
            raise WireError("a path that no honest agent sends")
        if names <= self._names or len(names) > len(self._names) + 1 or names[:-1] != self._names[: len(names) - 1]:
            raise WireError("rows are out of order, twice or without their folder")
        del self._open[len(names) :]
        parent = self._open[-1]
        if parent is None:
            raise WireError("something lies below what is no folder")
        if fault is not None and fault.grade == "refused":
            deep = check_name(names[-1]) is None and len(names) > 1
            entry = Blocked(Why.TOO_DEEP if deep or len(names) > MAX_DEPTH else Why.BAD_NAME)
        children: dict[str, Entry] | None = None
        if isinstance(entry, Directory):
            children = {}
            entry = Directory(children, has_ignored=entry.has_ignored)
        elif isinstance(entry, Blocked) and row[1] == "d":
            # A folder with a refused name: what follows inside it is read and dropped.
            children = {}
        parent[names[-1]] = entry
        self._names = names
        self._open.append(children)

    def done(self) -> Directory:
        """Return the tree.

        Raises:
            WireError: No page came.
        """
        if self._root is None:
            raise WireError("a tree without a root")
        return Directory(self._root, has_ignored=self._has_ignored)
