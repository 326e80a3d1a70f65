"""Versions kept outside the tree: what lost its path, what waits for review, what a crash left behind.

Copies lie below one folder of the state directory, mode 0600, under names that mean nothing to any program
(:mod:`colab_bridge.sync_core.store_names`). They are verified and durable before anything replaces their path, and
never pruned without asking.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

from colab_bridge.agent.sync.disk.ops import DisplacedFile, Kind
from colab_bridge.agent.sync.tree import Entry, File, Link
from colab_bridge.errors import ConflictError, TransientError, UserError
from colab_bridge.sync.base import KeptCopy, SyncStore
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.store_names import stored_path

__all__ = ["CopyStore", "displaced_pieces", "file_pieces", "open_pieces"]

_PIECE = 1 << 20
DEFAULT_LIMIT_BYTES = 1 << 30


def file_pieces(path: Path) -> Iterator[bytes]:
    """Yield the content of a regular file in pieces of 1 MiB; a link is not followed.

    Raises:
        OSError: it cannot be read, or is a link.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        while piece := source.read(_PIECE):
            yield piece


def open_pieces(fd: int) -> Iterator[bytes]:
    """Yield the content of an open file from its start, in pieces of 1 MiB."""
    os.lseek(fd, 0, os.SEEK_SET)
    while piece := os.read(fd, _PIECE):
        yield piece


def displaced_pieces(displaced: DisplacedFile) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield path and content of every file and link in something that was taken out of the tree."""
    name = displaced.path or displaced.location.name
    if displaced.kind is Kind.FOLDER:
        for folder, _, files in os.walk(displaced.location):
            for file in files:
                path = Path(folder) / file
                yield f"{name}/{path.relative_to(displaced.location).as_posix()}", _pieces_of(path)
    else:
        yield name, _pieces_of(displaced.location)


def _pieces_of(path: Path) -> Iterable[bytes]:
    return [os.fsencode(path.readlink())] if path.is_symlink() else file_pieces(path)


class CopyStore:
    """The conflict store and the quarantine of one pair of folders.

    Args:
        folder: Where copies lie; made 0700 when absent.
        store: Remembers them.
        key: Key of the digests.
        limit_bytes: Most bytes of all unresolved conflict copies.
    """

    def __init__(self, folder: Path, store: SyncStore, key: bytes, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder = folder
        self._store = store
        self._key = key
        self._limit = limit_bytes

    def has(self, kind: str, path: str, digest: bytes) -> bool:
        """Return whether exactly this version is kept already."""
        return any((c.kind, c.path, c.digest) == (kind, path, digest) for c in self._store.copies(resolved=True))

    def room_for(self, size: int) -> bool:
        """Return whether a copy of this size still fits."""
        return size + sum(copy.size for copy in self._store.copies()) <= self._limit

    def keep_entry(
        self, kind: str, path: str, side: Side, entry: Entry, pieces: Iterable[bytes], *, txn: str, now: float
    ) -> KeptCopy:
        """Keep the version that an entry names; a link as the text of its target.

        Raises:
            ConflictError: the bytes are not those of the entry (it changed meanwhile).
        """
        if isinstance(entry, Link):
            return self.keep(kind, path, side, [entry.target.encode("utf-8", "surrogatepass")], txn=txn, now=now)
        if not isinstance(entry, File):
            raise ConflictError(f"{path} is no file", hint="sync again")
        return self.keep(kind, path, side, pieces, txn=txn, now=now, digest=entry.digest)

    def keep(
        self,
        kind: str,
        path: str,
        side: Side,
        pieces: Iterable[bytes],
        *,
        txn: str,
        now: float,
        digest: bytes | None = None,
    ) -> KeptCopy:
        """Write a copy, durably, and remember it.

        Args:
            kind: One of :class:`~colab_bridge.sync.base.CopyKind`.
            path: Path that the version had.
            side: Where it was.
            pieces: Its bytes.
            txn: Transaction that takes the path away from it.
            now: Unix seconds.
            digest: What the bytes must be; None where nobody knows.

        Raises:
            ConflictError: the bytes are others.
            TransientError: no space, or the disk fails.
        """
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        stored = stored_path(moment, f"{txn}-{secrets.token_hex(3)}", path)
        target = self._folder / stored
        try:
            found, size = self._write(target, pieces)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise TransientError(
                f"a version of {path!r} cannot be kept: {error.strerror or error}",
                hint=f"Make room on the disk of {self._folder}.",
            ) from error
        if digest is not None and found != digest:
            target.unlink(missing_ok=True)
            raise ConflictError(f"{path!r} changed while it was copied", hint="sync again")
        copy = KeptCopy(
            id=f"c-{found.hex()[:6]}{secrets.token_hex(2)}",
            kind=kind,
            at=now,
            path=path,
            side=side,
            digest=found,
            size=size,
            stored=stored,
        )
        self._store.add_copy(copy)
        return copy

    def _write(self, target: Path, pieces: Iterable[bytes]) -> tuple[bytes, int]:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = blake2b(key=self._key, digest_size=32)
        size = 0
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            for piece in pieces:
                state.update(piece)
                size += len(piece)
                copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())
        if os.name == "posix":  # Windows cannot open folders; NTFS keeps names in its own journal
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return state.digest(), size

    def find(self, wanted: str) -> KeptCopy:
        """Return the newest kept version with this id or path.

        Raises:
            UserError: there is none.
        """
        for copy in self._store.copies(resolved=True):
            if wanted in (copy.id, copy.path):
                return copy
        raise UserError(f"no kept version is called {wanted[:120]!r}", hint="See all: colab-bridge sync conflicts")

    def path_of(self, copy: KeptCopy) -> Path:
        """Return where the bytes of a copy are."""
        return self._folder / copy.stored

    def resolve(self, copy: KeptCopy, now: float) -> None:
        """Count a copy as dealt with; its bytes stay."""
        self._store.resolve_copy(copy.id, now)
