"""What a scan remembers: for each entry how it looked when its content was read.

The live form is a node for each folder; the saved form is a flat file, sealed with a key and bound to one root. A cache
that is lost, damaged or forged is an empty cache: it costs reading, never correctness.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from hmac import compare_digest
from operator import attrgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, NamedTuple

from ..ignore import FolderRules, Verdict
from ..names import MAX_DEPTH, MAX_PATH_BYTES
from ..tree import EMPTY, Directory, Entry, File, join

if TYPE_CHECKING:
    from .root import Root

__all__ = ["Node", "Noted", "Record", "StatCache", "record_of"]

# (ctime_ns, mtime_ns, inode, mode, size); a ctime of -1 matches nothing, so the entry is looked at again.
Record = tuple[int, int, int, int, int]
NEVER = -1

_MAGIC = b"colab-bridge scan 1\n"
_FOLDER_ROW = struct.Struct("<HI")
_FILE_ROW = struct.Struct("<HqqQIQ32s")
_MAC_BYTES = 32
_PERSON = b"cb-sync-cache-1"


# Returns the signature of an entry; asked for each entry of each look, so it is the form that costs least.
record_of: Callable[[os.stat_result], Record] = attrgetter("st_ctime_ns", "st_mtime_ns", "st_ino", "st_mode", "st_size")


class Noted(NamedTuple):
    """Content that is known for an entry which the scan has not met yet.

    Attributes:
        record: Its signature.
        digest: Its content.
        fresh: It was placed just now, so the signature tells only what the stamps of the file system can.
    """

    record: Record
    digest: bytes
    fresh: bool


class Skipped(NamedTuple):
    """A name that is left out.

    Attributes:
        verdict: Why.
        is_folder: It is a folder, which nobody enters.
        size: Bytes of a file, else 0.
    """

    verdict: Verdict | str
    is_folder: bool
    size: int


class Node:
    """One folder, with everything that the next look at it needs.

    Attributes:
        name: On the disk.
        parent: Node of the folder around it; None for the root.
        path: As it travels.
        disk: As the disk spells it.
        rules: Ignore rules inside.
        room_bytes: Length of the longest name that may travel; -1 where none may, the path is too deep.
        device: Number of the file system.
        inode: Number of the folder.
        records: Signatures of entries that are no folders, by name on the disk.
        folders: Nodes of the folders, by name on the disk.
        skipped: What is left out, by name on the disk.
        others: Names on the disk that are folders without a node: blocked or unknown.
        keys: Names in the tree where they differ from those on the disk.
        budgeted: Size and change time of the files that travel within the budget.
        databases: Signatures of open databases by the name of their main file.
        directory: What the folder is in the tree.
        draft: Entries of the tree that is being made; None while nothing has changed.
        mixed: Names are not all ASCII, or two of them meet, so single names cannot be looked at alone.
        listed: What :meth:`~.platform_folder.Folder.listing` told at the last look at everything in the folder, and
            how many names there were; None before it.
    """

    __slots__ = (
        "budgeted",
        "databases",
        "device",
        "directory",
        "disk",
        "draft",
        "folders",
        "inode",
        "keys",
        "listed",
        "mixed",
        "name",
        "others",
        "parent",
        "path",
        "records",
        "room_bytes",
        "rules",
        "skipped",
    )

    def __init__(self, name: str, parent: Node | None, path: str, rules: FolderRules, seen: tuple[int, int]) -> None:
        self.name = name
        self.parent = parent
        self.path = path
        self.disk: str = name if parent is None or not parent.disk else f"{parent.disk}/{name}"
        self.rules = rules
        self.room_bytes = (
            MAX_PATH_BYTES - len(path.encode("utf-8", "replace")) - 1 if path.count("/") + 2 <= MAX_DEPTH else -1
        )
        self.device, self.inode = seen
        self.records: dict[str, Record] = {}
        self.folders: dict[str, Node] = {}
        self.skipped: dict[str, Skipped] = {}
        self.others: set[str] = set()
        self.keys: dict[str, str] = {}
        self.budgeted: dict[str, tuple[int, int]] = {}
        self.databases: dict[str, tuple[Record, ...]] = {}
        self.directory = EMPTY
        self.draft: dict[str, Entry] | None = {}
        self.mixed = False
        self.listed: tuple[int, int] | None = None

    def touch(self) -> dict[str, Entry]:
        """Return the draft of this folder; those around it are going to change too."""
        node: Node | None = self
        while node is not None and node.draft is None:
            node.draft = dict(node.directory.children)
            node = node.parent
        assert self.draft is not None
        return self.draft

    def at(self, name: str) -> str:
        """Return the path of a name, as the disk spells it."""
        return f"{self.disk}/{name}" if self.disk else name

    def key(self, name: str) -> str:
        """Return the name in the tree of a name on the disk."""
        return self.keys.get(name, name)

    def entry(self, name: str) -> Entry | None:
        """Return what a name on the disk is in the tree now."""
        children = self.directory.children if self.draft is None else self.draft
        return children.get(self.keys.get(name, name))

    def put(self, name: str, entry: Entry) -> None:
        """Set what a name on the disk is in the tree; an equal entry changes nothing."""
        key = self.keys.get(name, name)
        old = (self.directory.children if self.draft is None else self.draft).get(key)
        if old is None or (old is not entry and (old != entry or _size(old) != _size(entry))):
            self.touch()[key] = entry

    def drop(self, name: str) -> None:
        """Forget a name."""
        key = self.keys.pop(name, name)
        children = self.directory.children if self.draft is None else self.draft
        if key in children and not self._has_heir(name, key):
            del self.touch()[key]
        self.records.pop(name, None)
        self.folders.pop(name, None)
        self.others.discard(name)
        self.budgeted.pop(name, None)
        self.databases.pop(name, None)
        if self.skipped.pop(name, None) is not None:
            self.touch()

    def _has_heir(self, name: str, key: str) -> bool:
        """Return whether another name on the disk took over the name in the tree."""
        return self.mixed and any(other != name and self.keys.get(other, other) == key for other in self.known())

    def count(self) -> int:
        """Return how many names are known."""
        return len(self.records) + len(self.folders) + len(self.skipped) + len(self.others)

    def knows(self, name: str) -> bool:
        """Return whether the name was there at the last look."""
        return name in self.records or name in self.folders or name in self.skipped or name in self.others

    def known(self) -> set[str]:
        """Return all names that were there at the last look."""
        return {*self.records, *self.folders, *self.skipped, *self.others}

    def below(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        yield self
        for node in self.folders.values():
            yield from node.below()


def _size(entry: Entry | None) -> int:
    return getattr(entry, "size", 0)


class StatCache:
    """All nodes of one root, and what is known about entries that no scan has met.

    Attributes:
        top: Node of the root; None before the first walk.
        noted: What is known by path, as it travels.
    """

    def __init__(self) -> None:
        self.top: Node | None = None
        self.noted: dict[str, Noted] = {}

    def note(self, path: str, staged: os.stat_result, placed: os.stat_result, digest: bytes) -> None:
        """Tell what was placed, so that the next scan need not read it.

        Args:
            path: As it travels.
            staged: How the file looked after its content was verified, before it was moved.
            placed: How it looks at its place.
            digest: Its content.
        """
        if (staged.st_ino, staged.st_mtime_ns, staged.st_size) == (placed.st_ino, placed.st_mtime_ns, placed.st_size):
            self.noted[path] = Noted(record_of(placed), digest, fresh=True)

    def find(self, path: str) -> tuple[Node | None, str]:
        """Return the node of the folder of a path, and the last name; None where no scan has met the folder."""
        node = self.top
        *parents, name = path.split("/")
        for parent in parents:
            node = None if node is None else node.folders.get(parent)
        return node, name

    def forget_since(self, since_ns: int) -> None:
        """Forget content of files that were written after a time, as long as no scan has met them."""
        self.noted = {path: noted for path, noted in self.noted.items() if noted.record[1] < since_ns}

    def known(self) -> Iterator[tuple[str, Record, bytes]]:
        """Yield path, signature and digest of every file whose content is beyond doubt."""
        for path, noted in self.noted.items():
            if not noted.fresh:
                yield path, noted.record, noted.digest
        if self.top is not None:
            for node in self.top.below():
                yield from _known_in(node)

    def save(self, file: str | os.PathLike[str], key: bytes, root: Root) -> None:
        """Write the cache, in one step.

        Args:
            file: Where.
            key: Key of the pairing.
            root: The root that was scanned.
        """
        target = Path(file)
        body = _MAGIC + _head(root) + b"".join(_rows(self.known()))
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
            try:
                out.write(body)
                out.write(_seal(body, key))
            except BaseException:
                os.unlink(out.name)
                raise
        os.replace(out.name, target)

    @classmethod
    def load(cls, file: str | os.PathLike[str], key: bytes, root: Root) -> StatCache:
        """Return the saved cache; an empty one if it is missing, damaged, forged or of another root."""
        cache = cls()
        try:
            body = Path(file).read_bytes()
        except OSError:
            return cache
        head = _MAGIC + _head(root)
        if not body.startswith(head) or not compare_digest(_seal(body[:-_MAC_BYTES], key), body[-_MAC_BYTES:]):
            return cache
        try:
            cache.noted = dict(_read_rows(memoryview(body)[len(head) : -_MAC_BYTES]))
        except (struct.error, ValueError):
            cache.noted = {}
        return cache


def _known_in(node: Node) -> Iterator[tuple[str, Record, bytes]]:
    for name, record in node.records.items():
        entry = node.entry(name)
        if record[0] != NEVER and isinstance(entry, File) and name not in node.databases:
            yield join(node.path, node.key(name)), record, entry.digest


def _head(root: Root) -> bytes:
    return f"{root.dev} {root.ino} {root.marker}\n".encode()


def _seal(body: bytes, key: bytes) -> bytes:
    return blake2b(body, digest_size=_MAC_BYTES, key=key, person=_PERSON).digest()


def _rows(known: Iterator[tuple[str, Record, bytes]]) -> Iterator[bytes]:
    """Yield a row for each folder, followed by the rows of its files."""
    folder: str | None = None
    rows: list[bytes] = []
    for path, (ctime, mtime, inode, mode, size), digest in known:
        parent, _, name = path.rpartition("/")
        if parent != folder:
            if folder is not None:
                yield _folder_row(folder, rows)
            folder, rows = parent, []
        raw = name.encode("utf-8", "surrogatepass")
        rows.append(_FILE_ROW.pack(len(raw), ctime, mtime, inode, mode, size, digest) + raw)
    if folder is not None:
        yield _folder_row(folder, rows)


def _folder_row(folder: str, rows: list[bytes]) -> bytes:
    raw = folder.encode("utf-8", "surrogatepass")
    return _FOLDER_ROW.pack(len(raw), len(rows)) + raw + b"".join(rows)


def _read_rows(body: memoryview) -> Iterator[tuple[str, Noted]]:
    place = 0
    while place < len(body):
        length, count = _FOLDER_ROW.unpack_from(body, place)
        place += _FOLDER_ROW.size
        folder = str(body[place : place + length], "utf-8", "surrogatepass")
        place += length
        for _ in range(count):
            length, ctime, mtime, inode, mode, size, digest = _FILE_ROW.unpack_from(body, place)
            place += _FILE_ROW.size
            name = str(body[place : place + length], "utf-8", "surrogatepass")
            place += length
            yield join(folder, name), Noted((ctime, mtime, inode, mode, size), digest, fresh=False)


def directory_of(node: Node) -> Directory:
    """Return the folder of a node as it stands, making the new ones out of the drafts."""
    if node.draft is None:
        return node.directory
    draft = node.draft
    for name, below in node.folders.items():
        key = node.keys.get(name, name)
        if below.draft is not None or draft.get(key) is not below.directory:
            draft[key] = directory_of(below)
    made = Directory(draft, has_ignored=bool(node.skipped))
    node.directory = made
    node.draft = None
    return made
