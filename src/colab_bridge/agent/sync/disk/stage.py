"""The stage: content that is complete and verified, by digest, on the file system of the root.

Names in the stage say what may be in it:

- ``<digest>``: verified content that only we have written.
- ``<digest>.part``, ``<digest>.map``: a large file under way.
- ``<digest>~<txn>~<n>``: content on its way into the tree. After an exchange the *old* object has this name for a
  moment, so whatever is found under it and is not that content belongs to the user and is never removed blindly.
- ``folder~<txn>~<n>``: the same for folders that take the place of a file.
- ``new~<txn>~<n>``: a folder that grows, see :mod:`.new_folders`; ours alone, it has never stood in the tree.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b

from ..transfer.batches import SMALL_FILE_BYTES
from ..transfer.trail import Trails
from .large_contents import LargeContents
from .new_folders import NEW_FOLDER, GrowingFolders
from .ops import TXN, ApplyOp, link_digest
from .parts import MAP_SUFFIX, PART_SUFFIX, hash_file
from .place import Calls, remove_all
from .root import STATE_FOLDER, Root

__all__ = ["LARGE_BYTES", "SPELLING_NOTE", "SPELLING_OBJECT", "Leftover", "Stage", "WrongContent"]

_CONTENT = re.compile(r"[0-9a-f]{64}")
_LARGE = re.compile(rf"([0-9a-f]{{64}})({re.escape(PART_SUFFIX)}|{re.escape(MAP_SUFFIX)})?")
_WORK = re.compile(rf"([0-9a-f]{{64}}|folder)~({TXN.pattern})~([0-9]{{1,9}})(?:~old)?")
_BUFFER_BYTES = 2**20
LARGE_BYTES = SMALL_FILE_BYTES
"""Contents from this size on outlive the process that fetched them."""
_COPY_SUFFIX = ".copy"
_AHEAD_BYTES = 4 * 2**20
SPELLING_NOTE = "spelling"
"""Note of :mod:`.spelling`; it is looked at before anything else in the stage."""
SPELLING_OBJECT = "spelling-object"


class WrongContent(Exception):
    """Bytes are not what their digest says; nothing was kept."""


@dataclass(frozen=True)
class Leftover:
    """Something in the stage under a working name, after its transaction or its process has ended.

    Attributes:
        name: Name in the stage.
        txn: Transaction, empty when it cannot be told.
        number: Number of the operation in it, -1 when it cannot be told.
        ours: It is the content that it is named after; otherwise it was swapped out of the tree.
        size: Bytes of a file.
    """

    name: str
    txn: str
    number: int
    ours: bool
    size: int = 0


class Stage(LargeContents):
    """Stage of one root.

    Args:
        root: The root.
        key: Key of the pairing for digests, 16 to 64 bytes.
        calls: File-system calls, shared with trash and applier.
        trails: Takes what putting large contents together leaves behind.

    Attributes:
        growing: New folders into which content comes.

    Raises:
        OSError: the folder of the stage is missing or no folder.
    """

    def __init__(self, root: Root, key: bytes, calls: Calls, trails: Trails | None = None) -> None:
        super().__init__(key, calls, root.folder(f"{STATE_FOLDER}/stage"), trails or Trails())
        self._root = root
        self.growing = GrowingFolders(calls, self.folder)
        self._ahead_bytes = 0

    # -- new folders -----------------------------------------------------------------------------------------------

    def expect(self, txn: str, ops: Iterable[ApplyOp]) -> None:
        """Tell which operations the content is for that comes next, so that new folders grow ready to be moved.

        A matter of speed only: content that comes without it, or is needed elsewhere in the end, is placed too.

        Args:
            txn: Name of the transaction that will carry them out.
            ops: Operations of it, or more of them; folders before what is in them.

        Raises:
            ValueError: the name of the transaction is not acceptable.
            OSError: content could not be written.
        """
        # Where the exchange is degraded, a folder could take the place of another one.
        for digest, data in () if self.calls.exchange.degraded else self.growing.expect(txn, ops):
            self._write_new(digest, [data])

    # -- small content ---------------------------------------------------------------------------------------------

    def have(self, digests: Iterable[bytes]) -> set[bytes]:
        """Return which of the digests are here, complete."""
        here = set(self.calls.names(self.folder))
        return {digest for digest in digests if digest.hex() in here or self.growing.has(digest)}

    def put(self, digest: bytes, data: bytes | memoryview) -> None:
        """Keep a small content.

        Raises:
            WrongContent: the bytes have another digest.
            OSError: it could not be written; nothing is kept.
        """
        if blake2b(data, digest_size=32, key=self.key).digest() != digest:
            raise WrongContent
        if not self.growing.put(digest, data):
            self._write_new(digest, [data])
        self._ahead_bytes += len(data)
        if self._ahead_bytes >= _AHEAD_BYTES:
            # The disk works while the next content comes, so that little is left for the moment of durability.
            self._ahead_bytes = 0
            self.calls.begin_commit(self.folder)

    def _write_new(self, digest: bytes, parts: Iterable[bytes | memoryview]) -> None:
        name = digest.hex()
        try:
            fd = self.calls.create(self.folder, name)
        except FileExistsError:
            return
        try:
            for part in parts:
                self.calls.write(fd, part)
            self.calls.written(fd, self.folder)
        except BaseException:
            os.close(fd)
            self.calls.unlink(self.folder, name)
            raise
        os.close(fd)

    def open(self, digest: bytes) -> int:
        """Return a descriptor for reading a complete content.

        Raises:
            FileNotFoundError: it is not here.
        """
        return self.calls.open_file(self.folder, digest.hex())

    def discard(self, digest: bytes) -> None:
        """Remove a complete content, if it is here."""
        self._unlink_if_there(digest.hex())

    # -- copies ----------------------------------------------------------------------------------------------------

    def take_local_copy(self, digest: bytes, path: str) -> bool:
        """Copy a content from a path of the tree.

        Returns:
            Whether the file had that content.

        Raises:
            OSError: it could not be read or written.
        """
        parent, _, name = path.rpartition("/")
        with self._root.folder(parent) as folder:
            fd = self.calls.open_file(folder, folder.disk_name(name))
        try:
            return self.take_copy(digest, fd)
        finally:
            os.close(fd)

    def take_copy(self, digest: bytes, source: int) -> bool:
        """Copy a content from an open file; returns whether it had that content.

        Raises:
            OSError: it could not be read or written.
        """
        hasher = blake2b(digest_size=32, key=self.key)

        def parts() -> Iterable[bytes]:
            while data := self.calls.read(source, _BUFFER_BYTES):
                hasher.update(data)
                yield data

        if self.have_one(digest):
            return True
        self._write_new(digest, parts())
        if hasher.digest() == digest:
            return True
        self.discard(digest)
        return False

    # -- on the way into the tree ----------------------------------------------------------------------------------

    def work_on(self, digest: bytes, txn: str, number: int, *, last: bool) -> str:
        """Give a content the name under which it goes into the tree.

        Args:
            digest: A complete content.
            txn: Transaction.
            number: Number of the operation.
            last: No other operation needs the content; otherwise it is copied.

        Returns:
            The name in the stage.

        Raises:
            FileNotFoundError: the content is not here.
            OSError: it could not be copied.
        """
        name = f"{digest.hex()}~{txn}~{number}"
        if last:
            self.calls.rename(self.folder, digest.hex(), self.folder, name)
            return name
        # Under a working name only whole content may ever be seen, or a crash would look like a user's file.
        half = digest.hex() + _COPY_SUFFIX
        self._unlink_if_there(half)
        source = self.open(digest)
        try:
            fd = self.calls.create(self.folder, half)
            try:
                while data := self.calls.read(source, _BUFFER_BYTES):
                    self.calls.write(fd, data)
                self.calls.written(fd, self.folder)
            except OSError:
                self._unlink_if_there(half)
                raise
            finally:
                os.close(fd)
        finally:
            os.close(source)
        self.calls.rename(self.folder, half, self.folder, name)
        return name

    def link_work(self, target: str, txn: str, number: int) -> str:
        """Make a link that goes into the tree; returns its name in the stage."""
        name = f"{link_digest(target).hex()}~{txn}~{number}"
        self.calls.make_link(self.folder, name, target)
        return name

    def folder_work(self, txn: str, number: int) -> str:
        """Make an empty folder that goes into the tree; returns its name in the stage."""
        name = f"folder~{txn}~{number}"
        self.calls.make_folder(self.folder, name)
        return name

    def is_ours(self, name: str, seen: os.stat_result) -> bool:
        """Return whether the object under a working name is the content that it is named after.

        Raises:
            OSError: it could not be read.
        """
        wanted = name.split("~", 1)[0]
        if stat.S_ISREG(seen.st_mode) and wanted != "folder":
            fd = self.calls.open_file(self.folder, name)
            try:
                return hash_file(self.calls, fd, self.key).hex() == wanted
            finally:
                os.close(fd)
        if stat.S_ISLNK(seen.st_mode):
            return link_digest(self.calls.read_link(self.folder, name)).hex() == wanted
        if stat.S_ISDIR(seen.st_mode) and wanted == "folder":
            with self.calls.child(self.folder, name) as inside:
                return not self.calls.names(inside)
        return False

    def put_back(self, name: str) -> None:
        """Take an object of ours back from its working name: content stays for a later try, the rest is removed.

        Only for what has never stood in the tree, or cannot be written into. A second link (of an exchange without the
        system's help that was cut off) stands in the tree, so that is none of ours any more.
        """
        seen = self.calls.stat(self.folder, name)
        if stat.S_ISDIR(seen.st_mode):
            self.calls.remove_folder(self.folder, name)
        elif stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1:
            self.calls.rename(self.folder, name, self.folder, name.split("~", 1)[0])
        else:
            self.calls.unlink(self.folder, name)

    def working(self, txn: str | None = None) -> list[Leftover]:
        """Return everything under a working name.

        Args:
            txn: Only of this transaction, which has just ended; None for all, after a start.

        Raises:
            OSError: something could not be looked at.
        """
        found: list[Leftover] = []
        for name in sorted(self.calls.names(self.folder)):
            match = _WORK.fullmatch(name)
            if match is None or (txn is not None and match[2] != txn):
                continue
            seen = self.calls.stat(self.folder, name)
            if txn is None and stat.S_ISREG(seen.st_mode) and not seen.st_size:
                # A power cut leaves such ones. Only after a start: a program may be about to write into a young one.
                self.calls.unlink(self.folder, name)
                continue
            ours = not name.endswith("~old") and self.is_ours(name, seen)
            found.append(Leftover(name, match[2], int(match[3]), ours, seen.st_size))
        return found

    def recover(self) -> list[Leftover]:
        """Look through the stage after a start, before anything else is done with it.

        Large files under way are kept, and complete ones that are sound: what is wanted of them need not travel again,
        the rest goes as it grows old. Small contents are removed.

        Returns:
            What has a working name or none that we give; it stays where it is.

        Raises:
            OSError: something could not be looked at.
        """
        found = self.working()
        names = {leftover.name for leftover in found}
        for name in self.calls.names(self.folder):
            if name in names:
                continue
            if _CONTENT.fullmatch(name):
                seen = self.calls.stat(self.folder, name)
                if seen.st_size < LARGE_BYTES or not self.is_ours(name, seen):
                    self.calls.unlink(self.folder, name)
            elif name.startswith("probe-") or name.endswith(_COPY_SUFFIX):
                self.calls.unlink(self.folder, name)
            elif NEW_FOLDER.fullmatch(name):
                remove_all(self.calls, self.folder, name)
            elif not name.endswith((PART_SUFFIX, MAP_SUFFIX)):
                found.append(Leftover(name, "", -1, ours=False))
        return found

    def drop_old(self, keep: Collection[bytes] = (), *, older_than_s: float = 14 * 86_400) -> None:
        """Remove large files, under way or complete, that nobody has gone on with for a while.

        Args:
            keep: Digests that stay.
            older_than_s: Time since the last chunk, or since it was complete.
        """
        limit = time.time() - older_than_s
        names = set(self.calls.names(self.folder))
        for name in sorted(names):
            match = _LARGE.fullmatch(name)
            if match is None or bytes.fromhex(match[1]) in {*keep, *self._parts}:
                continue
            seen = self.calls.stat(self.folder, name)
            is_lone_map = match[2] and match[1] + PART_SUFFIX not in names
            if is_lone_map or max(seen.st_mtime, seen.st_ctime) < limit:
                self._unlink_if_there(name)

    def distrust(self) -> None:
        """Remove all content: some has not reached the disk, though reading it may still give it back from memory."""
        self.close_large()
        for name in self.calls.names(self.folder):
            if _LARGE.fullmatch(name):
                self._unlink_if_there(name)

    def close(self) -> None:
        """Let go of everything; what is here stays."""
        self.close_large()
        self.growing.close()
        self.folder.close()
        self.calls.close()
