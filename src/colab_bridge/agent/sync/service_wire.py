"""How changes travel: the difference of two trees as rows, operations and their results as rows.

Like whole trees (``pages``) all of it is JSON that is checked row by row; whatever is odd raises
:class:`~.pages.WireError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

from .names import check_path
from .pages import TreeReader, WireError, row_of
from .tree import EMPTY, Directory, Entry, TreeEditor, walk

__all__ = [
    "MAX_ROWS",
    "apply_rows",
    "changed_rows",
    "checked_path",
    "delta_digest",
    "delta_of",
    "entry_of_row",
    "pack_envelope",
    "read_digest",
    "read_field",
    "read_list",
    "unpack_envelope",
]

T = TypeVar("T")

MAX_ROWS = 10_000
_GONE = "-"
_MOST_DIGESTED = 1_000_000


def changed_rows(before: Directory, after: Directory, prefix: str = "") -> Iterator[tuple[str, Entry | None]]:
    """Yield each path whose own row differs between two trees, with its entry afterwards; None where it is gone.

    Costs the folders that differ, not the trees. Parents come before what is in them.
    """
    if before is after:
        return
    for name in sorted({*before.children, *after.children}):
        old, new = before.children.get(name), after.children.get(name)
        path = f"{prefix}/{name}" if prefix else name
        if old is new:
            continue
        if isinstance(old, Directory) and isinstance(new, Directory):
            if old.has_ignored != new.has_ignored:
                yield path, new
            yield from changed_rows(old, new, path)
        elif isinstance(new, Directory):
            yield path, new
            yield from walk(new, path)
        elif new is None:
            if isinstance(old, Directory):
                yield from ((below, None) for below, _ in walk(old, path))
            yield path, None
        else:
            if isinstance(old, Directory):
                yield from ((below, None) for below, _ in walk(old, path))
            if old != new:
                yield path, new


def delta_of(before: Directory, after: Directory, most: int = MAX_ROWS) -> list[list[object]] | None:
    """Return the rows that turn one tree into the other; None when there are more than ``most``."""
    rows: list[list[object]] = []
    if before.has_ignored != after.has_ignored:
        rows.append(["", "d", after.has_ignored])
    for path, entry in changed_rows(before, after):
        if len(rows) >= most:
            return None
        rows.append([path, _GONE] if entry is None else row_of(path, entry))
    return rows


def delta_digest(before: Directory, after: Directory) -> bytes:
    """Return a digest of the rows between two trees: two sides that expect the same need not tell them."""
    rows = delta_of(before, after, _MOST_DIGESTED)
    return blake2b(json.dumps(rows, separators=(",", ":")).encode(), digest_size=32).digest()


def entry_of_row(row: object) -> tuple[str, Entry | None]:
    """Return path and entry of one row of a difference.

    Raises:
        WireError: It is no row, or its path is one that no honest agent sends.
    """
    if not isinstance(row, list) or len(row) < 2 or not isinstance(row[0], str):
        raise WireError("a row is no row")
    path = row[0]
    if path:
        checked_path(path)
    if row[1] == _GONE and len(row) == 2 and path:
        return path, None
    name = path.rpartition("/")[2]
    reader = TreeReader(1)
    if not path:
        reader.feed([row])
        return path, reader.done()
    reader.feed([["", "d", False], [name, *row[1:]]])
    return path, reader.done().children[name]


def checked_path(path: object) -> str:
    """Return a relative path from the other side.

    Raises:
        WireError: It is none, or one that no honest side sends.
    """
    if not isinstance(path, str) or len(path) >= 65_536 or not path:
        raise WireError("a path is no path")
    fault = check_path(path)
    if fault is not None and fault.grade == "hostile":
        raise WireError("a path that no honest agent sends")
    return path


def apply_rows(tree: Directory, rows: object) -> tuple[Directory, list[tuple[str, Entry | None]]]:
    """Return the tree with a difference applied, and the rows as entries.

    Raises:
        WireError: A row is odd, or something would lie below what is no folder.
    """
    if not isinstance(rows, list) or len(rows) > MAX_ROWS:
        raise WireError("a difference is none")
    editor = TreeEditor(tree)
    found: list[tuple[str, Entry | None]] = []
    has_ignored = tree.has_ignored
    folders = {""}  # known to be folders: asking the editor costs the folder each time
    for row in rows:
        path, entry = entry_of_row(row)
        found.append((path, entry))
        if not path:
            has_ignored = isinstance(entry, Directory) and entry.has_ignored
            continue
        parent = path.rpartition("/")[0]
        if entry is not None and parent not in folders:
            if not isinstance(editor.get(parent), Directory):
                raise WireError("something lies below what is no folder")
            folders.add(parent)
        _put(editor, path, entry)
        (folders.add if isinstance(entry, Directory) else folders.discard)(path)
    done = editor.done()
    return (done if done.has_ignored == has_ignored else Directory(done.children, has_ignored=has_ignored)), found


def _put(editor: TreeEditor, path: str, entry: Entry | None) -> None:
    if entry is None:
        editor.remove(path)
        return
    if isinstance(entry, Directory):
        there = editor.get(path)
        # Only the folder's own row: what is in it has rows of its own.
        kept = there.children if isinstance(there, Directory) else EMPTY.children
        editor.put(path, Directory(kept, has_ignored=entry.has_ignored))
        return
    editor.put(path, entry)


def pack_envelope(content: object, blob: bytes | memoryview = b"") -> bytes:
    """Return JSON and bytes in one payload: length of the JSON (u32, big-endian), JSON, bytes."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"".join([len(text).to_bytes(4, "big"), text, blob])


def unpack_envelope(payload: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON object and the bytes of a payload.

    Raises:
        WireError: It is none.
    """
    view = memoryview(payload)
    if len(view) < 4 or (length := int.from_bytes(view[:4], "big")) > len(view) - 4:
        raise WireError("an envelope is cut off")
    try:
        content = json.loads(bytes(view[4 : 4 + length]))
    except (ValueError, RecursionError) as error:
        raise WireError("an envelope holds no JSON") from error
    if not isinstance(content, dict):
        raise WireError("an envelope holds no object")
    return content, view[4 + length :]


def read_digest(value: object) -> bytes:
    """Return a digest from its hex form.

    Raises:
        WireError: It is none.
    """
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise WireError("a digest is no digest")
    return raw


def read_field(values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a value of a request; numbers are never negative.

    Raises:
        WireError: It is missing or of another type.
    """
    value = values.get(name)
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**63):
        raise WireError(f"{name} is missing or odd")
    return value


def read_list(values: Mapping[str, Any], name: str, most: int) -> list[Any]:
    """Return a list of a request or answer; an absent one is empty.

    Raises:
        WireError: It is no list, or too long.
    """
    value = values.get(name) or []
    if not isinstance(value, list) or len(value) > most:
        raise WireError(f"{name} is no list, or too long")
    return value
