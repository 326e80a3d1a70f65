"""New folders that grow in the stage, and take their place in the tree by one move each.

A first copy, or a package that somebody unpacked, is mostly files in folders that the other side does not have yet.
Their content is written, verified, straight into a copy of the folder in the stage, so no file of it needs a move of
its own: the folder takes its name when everything in it is durable, and only if nobody has that name. Where somebody
has, its files become ordinary staged content, and each is placed alone.

Nothing that grows here has ever stood in the tree, so what a crash leaves of it is removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from .ops import TXN, Action, ApplyOp
from .place import Calls, remove_all, split_path
from .platform_folder import Folder
from .root import STATE_FOLDER

__all__ = ["NEW_FOLDER", "GrowingFolders", "NewFolders"]

NEW_FOLDER = re.compile(rf"new~{TXN.pattern}~[0-9]{{1,9}}")
"""Names of these folders in the stage."""
_TIMES_BY_DESCRIPTOR = os.utime in os.supports_fd
_FILE_MODE = 0o666  # The umask applies, as it does to the folder; the stage lets nobody else in.
_PROGRAM_MODE = 0o777


class NewFolders:
    """The new folders of one transaction.

    Args:
        calls: File-system calls.
        stage: Folder of the stage.
        txn: Name of the transaction.
    """

    def __init__(self, calls: Calls, stage: Folder, txn: str) -> None:
        self.txn = txn
        self._calls = calls
        self._stage = stage
        self._roots: dict[str, str] = {}  # path of a topmost new folder: its name in the stage
        self._made: dict[str, str] = {}  # path of a folder that was made: path of its topmost one
        self._placed: set[str] = set()
        self._wanted: dict[bytes, list[ApplyOp]] = {}
        self._elsewhere: set[bytes] = set()
        self._written: dict[str, tuple[ApplyOp, os.stat_result, str]] = {}  # with the path of the topmost folder
        self._sources: dict[bytes, str] = {}
        self._open: tuple[str, Folder] | None = None

    # -- growing ---------------------------------------------------------------------------------------------------

    def expect(self, ops: Iterable[ApplyOp]) -> list[bytes]:
        """Make the folders that operations need, and remember where the content that comes belongs.

        Args:
            ops: Operations of the transaction, or some more of them; folders before what is in them.

        Returns:
            Content that has come already and is needed outside of these folders too.

        Raises:
            OSError: content that has come already could not be written to another place.
        """
        needed: list[bytes] = []
        for op in ops:
            if op.action is Action.MKDIR and op.expected is None:
                self._make(op.path)
            elif op.action is not Action.WRITE:
                continue
            elif op.expected is None and split_path(op.path)[0] in self._made:
                self._wanted.setdefault(op.digest, []).append(op)
                if op.digest in self._sources:
                    self.put(op.digest, self.read(op.digest))
            else:
                self._elsewhere.add(op.digest)
                if op.digest in self._sources:
                    needed.append(op.digest)
        return needed

    def _make(self, path: str) -> None:
        parent, name = split_path(path)
        top = self._made.get(parent)
        try:
            if top is not None:
                self._calls.make_folder(self._folder(parent), name)
            elif path.split("/", 1)[0].casefold() != STATE_FOLDER:
                grown = f"new~{self.txn}~{len(self._roots)}"
                self._calls.make_folder(self._stage, grown)
                self._roots[path] = grown
                top = path
        except OSError:
            # A twin on a disk that folds names, or no room: the operation itself meets it, and says it.
            return
        if top is not None:
            self._made[path] = top

    def _folder(self, path: str) -> Folder:
        """Return a folder that was made, open until the next call."""
        if self._open is not None:
            if self._open[0] == path:
                return self._open[1]
            self._let_go()
        top = self._made[path]
        here = self._calls.child(self._stage, self._roots[top])
        for name in path[len(top) + 1 :].split("/") if path != top else ():
            with here as above:
                here = self._calls.child(above, name)
        self._open = (path, here)
        return here

    def _let_go(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def put(self, digest: bytes, data: bytes | memoryview) -> bool:
        """Write verified content to its places here.

        Returns:
            Whether it is needed nowhere else.

        Raises:
            OSError: it could not be written; places that were not reached stay wanted.
        """
        waiting = self._wanted.get(digest)
        if waiting is None:
            return False
        here_only = digest not in self._elsewhere
        while waiting:
            try:
                self._write(waiting[-1], data)
            except FileExistsError:
                # A twin on a disk that folds names.
                here_only = False
            waiting.pop()
        del self._wanted[digest]
        return here_only

    def _write(self, op: ApplyOp, data: bytes | memoryview) -> None:
        parent, name = split_path(op.path)
        folder, calls = self._folder(parent), self._calls
        fd = calls.create(folder, name, mode=_PROGRAM_MODE if op.executable else _FILE_MODE)
        # By path, closing a file may change how it looks.
        is_final = folder.fd is not None and _TIMES_BY_DESCRIPTOR
        try:
            try:
                calls.write(fd, data)
                if is_final and op.mtime_ns is not None:
                    calls.utime_open(fd, (op.mtime_ns, op.mtime_ns))
                calls.written(fd, folder)
                seen = calls.stat_open(fd)
            finally:
                os.close(fd)
            if not is_final:
                if op.mtime_ns is not None:
                    calls.utime(folder, name, (op.mtime_ns, op.mtime_ns))
                seen = calls.stat(folder, name)
        except BaseException:
            calls.unlink(folder, name)
            raise
        self._written[op.path] = (op, seen, self._made[parent])
        self._sources.setdefault(op.digest, op.path)

    def read(self, digest: bytes) -> bytes:
        """Return content that has come.

        Raises:
            KeyError: it has not.
            OSError: it cannot be read.
        """
        parent, name = split_path(self._sources[digest])
        fd = self._calls.open_file(self._folder(parent), name)
        parts: list[bytes] = []
        try:
            while part := self._calls.read(fd, 2**20):
                parts.append(part)
        finally:
            os.close(fd)
        return b"".join(parts)

    def has(self, digest: bytes) -> bool:
        """Return whether content has come."""
        return digest in self._sources

    # -- taking place ----------------------------------------------------------------------------------------------

    def fits(self, ops: Sequence[ApplyOp]) -> bool:
        """Return whether operations want everything that has grown here, as it is."""
        by_path = {op.path: op for op in ops if op.expected is None}
        for path, (op, _, _) in self._written.items():
            found = by_path.get(path)
            if found is not op and found != op:
                return False
        made = {path for path, op in by_path.items() if op.action is Action.MKDIR}
        return made.issuperset(self._made)

    def holds(self, op: ApplyOp) -> bool:
        """Return whether what an operation puts into the tree has grown here."""
        if op.expected is not None:
            return False
        if op.action is Action.MKDIR:
            return op.path in self._made
        return op.action is Action.WRITE and op.path in self._written

    def is_topmost(self, op: ApplyOp) -> bool:
        """Return whether the folder of an operation is moved by itself, with all in it."""
        return op.path in self._roots and self.holds(op)

    def is_placed(self, path: str) -> bool:
        """Return whether what has grown for a path stands in the tree now."""
        written = self._written.get(path)
        return (self._made.get(path) if written is None else written[2]) in self._placed

    def place(self, path: str, folder: Folder, name: str) -> None:
        """Move a topmost folder into the tree, to a name that is free.

        Raises:
            FileExistsError: it is not; nothing was changed.
            OSError: nothing was changed.
        """
        # An open folder cannot be moved on every system.
        self._let_go()
        self._calls.place(self._stage, self._roots[path], folder, name)
        self._placed.add(path)

    def look(self, path: str) -> os.stat_result:
        """Return how a file looked when its content was complete; taking its place changes nothing about it."""
        return self._written[path][1]

    def dissolve(self, top: str, name_of: Callable[[ApplyOp], str]) -> None:
        """Move the files of a topmost folder that has not taken its place to the stage, and remove the folder.

        Args:
            top: Path of the folder.
            name_of: Name in the stage for the file of an operation.

        Raises:
            OSError: something could not be moved or removed.
        """
        for path in [path for path, written in self._written.items() if written[2] == top]:
            parent, name = split_path(path)
            op = self._written[path][0]
            self._calls.rename(self._folder(parent), name, self._stage, name_of(op))
            del self._written[path]
            if self._sources.get(op.digest) == path:
                del self._sources[op.digest]
        self._let_go()
        remove_all(self._calls, self._stage, self._roots.pop(top))
        self._made = {path: its for path, its in self._made.items() if its != top}

    def end(self) -> None:
        """Make ordinary staged content of what has not taken its place, and let go of everything.

        Raises:
            OSError: something could not be moved or removed.
        """
        try:
            for top in [path for path in self._roots if path not in self._placed]:
                self.dissolve(top, lambda op: op.digest.hex())
        finally:
            self._let_go()

    def close(self) -> None:
        """Let go of everything; what has grown stays."""
        self._let_go()


class GrowingFolders:
    """The new folders of the one transaction for which content comes at present, if any.

    Args:
        calls: File-system calls.
        stage: Folder of the stage.
    """

    def __init__(self, calls: Calls, stage: Folder) -> None:
        self._calls = calls
        self._stage = stage
        self._new: NewFolders | None = None
        self._lying: set[str] = set()  # what the stage held before: an earlier try has left it there

    def expect(self, txn: str, ops: Iterable[ApplyOp]) -> list[tuple[bytes, bytes]]:
        """Tell operations of a transaction; what has grown for another one becomes ordinary staged content.

        Returns:
            Content that has come already and is needed outside of the new folders too.

        Raises:
            ValueError: the name of the transaction is not acceptable.
            OSError: content could not be read or written.
        """
        if not TXN.fullmatch(txn):
            raise ValueError("no name for a transaction")
        if self._new is not None and self._new.txn != txn:
            self._end()
        if self._new is None:
            self._lying = set(self._calls.names(self._stage))
            self._new = NewFolders(self._calls, self._stage, txn)
        new = self._new
        return [(digest, new.read(digest)) for digest in new.expect(ops)]

    def _end(self) -> None:
        new, self._new = self._new, None
        if new is not None:
            new.end()

    def take(self, txn: str, ops: Sequence[ApplyOp]) -> NewFolders | None:
        """Return what has grown for a transaction; the caller ends it.

        Args:
            txn: Its name.
            ops: All its operations.

        Raises:
            OSError: what has grown for others could not be put back.
        """
        new = self._new
        if new is None or new.txn != txn or not new.fits(ops):
            self._end()
            return None
        self._new = None
        return new

    def put(self, digest: bytes, data: bytes | memoryview) -> bool:
        """Write verified content to its places; see :meth:`NewFolders.put`."""
        if self._new is None or not self._new.put(digest, data):
            return False
        if self._lying and digest.hex() in self._lying:
            self._lying.discard(digest.hex())
            self._calls.unlink(self._stage, digest.hex())
        return True

    def has(self, digest: bytes) -> bool:
        """Return whether content has come to one of its places."""
        return self._new is not None and self._new.has(digest)

    def close(self) -> None:
        """Let go of everything; what has grown stays, and is removed at the next start."""
        if self._new is not None:
            self._new.close()
        self._new = None
