"""Words of apply: operations, what they expect, and what came of them. Pure; both ends use the same form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..names import check_path, check_target
from ..pages import WireError
from ..reasons import Reason
from ..tree import Directory, Entry, File, Link

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "TXN",
    "Action",
    "ApplyOp",
    "Code",
    "DisplacedFile",
    "Expected",
    "Kind",
    "OpResult",
    "expect",
    "fingerprint",
    "folder_fingerprint",
    "link_digest",
    "signature_of",
]

TXN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""Names of transactions."""
_MAX_SIZE = 2**53
_KEYS = frozenset("apedslomx")
_LINK = b"cb-sync-link"
_FOLDER = b"cb-sync-folder"


class Action(str, Enum):
    """Kinds of operations, in the order of a transaction."""

    RENAME = "rename"  # another spelling of the name of a path
    MKDIR = "mkdir"  # a file in its place goes to the trash
    MOVE = "move"  # a whole folder to a free name anywhere; nothing of it goes to the trash
    WRITE = "write"  # a file; what is in its place goes to the trash, a whole folder too
    LINK = "link"  # likewise a symbolic link
    EXEC = "exec"
    DELETE = "delete"  # a file or link, to the trash
    RMDIR = "rmdir"  # only an empty folder


_ACTIONS = {action.value: action for action in Action}


class Kind(str, Enum):
    """What stands at a path."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


class Code(Reason):
    """What came of an operation, with a sentence for people."""

    APPLIED = "applied", "done"
    ALREADY = "already", "it was so already"
    MOVED = "moved", "it was changed at this moment, so nothing was done to it"
    EXISTS = "exists", "something stands there already"
    MISSING = "missing", "it is not there any more"
    NOT_EMPTY = "not-empty", "something is still in the folder"
    NO_PARENT = "no-parent", "the folder that it belongs into is missing"
    IN_THE_WAY = "in-the-way", "a file or a link stands where a folder is needed"
    NO_CONTENT = "no-content", "its content has not arrived"
    NO_SPACE = "no-space", "the disk is full"
    QUOTA = "quota", "the share of the disk that you may use is used up"
    TOO_LARGE = "too-large", "the disk takes no file of this size"
    NO_PERMISSION = "no-permission", "the system does not permit it"
    BUSY = "busy", "another program is using it, or too many files are open"
    OTHER_DEVICE = "other-device", "it lies on another device"
    BAD_NAME = "bad-name", "its name is not possible here"
    FAILED = "failed", "the disk reported an error"


@dataclass(frozen=True)
class Expected:
    """What must stand at a path for an operation to be carried out.

    Attributes:
        kind: What it is.
        digest: Its :func:`fingerprint`.
    """

    kind: Kind
    digest: bytes


def link_digest(target: str) -> bytes:
    """Return the fingerprint of a link, 32 bytes."""
    return blake2b(target.encode("utf-8", "surrogatepass"), digest_size=32, person=_LINK).digest()


def folder_fingerprint(children: Mapping[str, Expected]) -> bytes:
    """Return the fingerprint of a folder from those of what is in it, by NFC name, 32 bytes."""
    state = blake2b(digest_size=32, person=_FOLDER)
    for name in sorted(children):
        raw = name.encode("utf-8", "surrogatepass")
        state.update(children[name].kind.value.encode().ljust(8) + len(raw).to_bytes(4, "big") + raw)
        state.update(children[name].digest)
    return state.digest()


def expect(entry: Entry | None) -> Expected | None:
    """Return what a tree says about a path, in the form in which an operation expects it; None is nothing.

    Raises:
        ValueError: something in it is blocked or unknown; no operation may replace it.
    """
    if entry is None:
        return None
    if isinstance(entry, File):
        return Expected(Kind.FILE, entry.digest)
    if isinstance(entry, Link):
        return Expected(Kind.LINK, link_digest(entry.target))
    if isinstance(entry, Directory):
        return Expected(Kind.FOLDER, fingerprint(entry))
    raise ValueError("nothing may be expected of what cannot be read")


def fingerprint(folder: Directory) -> bytes:
    """Return the fingerprint of a folder: names, kinds and contents at any depth, without executable bits.

    Raises:
        ValueError: something in it is blocked or unknown.
    """
    children = {name: expect(child) for name, child in folder.children.items()}
    return folder_fingerprint({name: child for name, child in children.items() if child is not None})


class _Fields(NamedTuple):
    action: Action
    path: str
    expected: Expected | None
    digest: bytes
    size: int
    executable: bool
    mtime_ns: int | None
    target: str
    old_path: str


class ApplyOp(_Fields):
    """One operation on one side; a tuple, because a first copy makes one for each file, on both sides.

    Attributes:
        action: What.
        path: Path, NFC, relative, ``/`` separated.
        expected: What must stand there; None is nothing. Of ``RENAME`` and ``RMDIR`` only the kind counts, of ``MOVE``
            it is what must stand at the old path.
        digest: Content of ``WRITE``.
        size: Its length in bytes.
        executable: Whether it may be executed.
        mtime_ns: Time of its last change, nanoseconds since 1970; None is now.
        target: Text of ``LINK``.
        old_path: Path before ``RENAME``, in the same folder; path before ``MOVE``.
    """

    __slots__ = ()

    def __new__(
        cls,
        action: Action,
        path: str,
        expected: Expected | None = None,
        digest: bytes = b"",
        size: int = 0,
        executable: bool = False,
        mtime_ns: int | None = None,
        target: str = "",
        old_path: str = "",
    ) -> Self:
        """Refuse what no plan contains.

        Raises:
            ValueError: a path, link target, digest or number is not acceptable.
        """
        _check_path(path)
        if action is Action.WRITE:
            if len(digest) != 32:
                raise ValueError("a digest has another length")
        elif action is Action.LINK:
            if check_target(target) is not None:
                raise ValueError("the text of a link is not acceptable")
        elif action is Action.RENAME:
            _check_path(old_path)
            if old_path.rpartition("/")[0] != path.rpartition("/")[0]:
                raise ValueError("a change of spelling stays in its folder")
        elif action is Action.MOVE:
            _check_path(old_path)
            if f"{path}/".startswith(f"{old_path}/") or f"{old_path}/".startswith(f"{path}/"):
                raise ValueError("a folder is not moved into itself")
        if not 0 <= size < _MAX_SIZE or (mtime_ns is not None and not abs(mtime_ns) < 2**63):
            raise ValueError("a number of an operation is out of bounds")
        return super().__new__(cls, action, path, expected, digest, size, executable, mtime_ns, target, old_path)

    def to_json(self) -> dict[str, Any]:
        """Return the wire form; what has its default is left out."""
        row: dict[str, Any] = {"a": self.action.value, "p": self.path}
        if self.expected is not None:
            row["e"] = [self.expected.kind.value, self.expected.digest.hex()]
        if self.digest:
            row["d"] = self.digest.hex()
        if self.size:
            row["s"] = self.size
        if self.target:
            row["l"] = self.target
        if self.old_path:
            row["o"] = self.old_path
        if self.executable:
            row["x"] = True
        if self.mtime_ns is not None:
            row["m"] = self.mtime_ns
        return row

    @classmethod
    def from_json(cls, row: object) -> Self:
        """Check and read the wire form.

        Raises:
            WireError: it is none.
        """
        if not isinstance(row, dict) or not row.keys() <= _KEYS:
            raise WireError("an operation is no operation")
        get = row.get
        size, mtime, executable = get("s", 0), get("m"), get("x", False)
        if type(size) is not int or (mtime is not None and type(mtime) is not int):
            raise WireError("a number of an operation is no number")
        action, path, digest, target, old_path = get("a", ""), get("p", ""), get("d", ""), get("l", ""), get("o", "")
        if not (type(action) is type(path) is type(digest) is type(target) is type(old_path) is str):
            raise WireError("a field of an operation has another type")
        if type(executable) is not bool:
            raise WireError("a field of an operation has another type")
        try:
            return cls(
                _ACTIONS.get(action) or Action(action),
                path,
                _expected(row["e"]) if "e" in row else None,
                bytes.fromhex(digest),
                size,
                executable,
                mtime,
                target,
                old_path,
            )
        except ValueError as error:
            raise WireError(str(error)) from error


def _check_path(path: str) -> None:
    fault = check_path(path)
    if fault is not None and fault.grade != "unportable":
        raise ValueError("the path of an operation is not acceptable")


def _expected(row: object) -> Expected | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 2 or not all(isinstance(text, str) for text in row):
        raise WireError("what an operation expects is not readable")
    digest = bytes.fromhex(row[1])
    if len(digest) != 32:
        raise WireError("a digest has another length")
    return Expected(Kind(row[0]), digest)


class OpResult(NamedTuple):
    """What came of one operation.

    Attributes:
        path: Its path.
        ok: The path is now as the operation wants it.
        code: What came of it.
        seen: What stands there now, where it was placed.
    """

    path: str
    ok: bool
    code: Code
    seen: os.stat_result | None = None

    @property
    def signature(self) -> tuple[int, int, int, int, int, int] | None:
        """Stamps of what stands there now: mtime_ns, ctime_ns, size, ino, dev, mode."""
        return None if self.seen is None else signature_of(self.seen)

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        return self.code.sentence


@dataclass(frozen=True)
class DisplacedFile:
    """A newer save that was taken out of the tree in the middle of an operation; it belongs into the conflict store.

    Attributes:
        path: Where it stood, empty when that cannot be told.
        kind: What it is.
        location: Where it is now, in the trash; it stays there too.
        trash_id: Its id in the trash.
        size: Bytes, 0 for a folder.
        txn: Transaction.
    """

    path: str
    kind: Kind
    location: Path
    trash_id: str
    size: int
    txn: str


def signature_of(seen: os.stat_result) -> tuple[int, int, int, int, int, int]:
    """Return the stamps by which a change is noticed."""
    return (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino, seen.st_dev, seen.st_mode)
