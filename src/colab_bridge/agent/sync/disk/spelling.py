"""Another spelling of a name, on file systems that find both under one.

Where the system takes a rename from ``A`` to ``a`` for no change at all, the object goes through the stage; a note
beside it says where it belongs, so that a crash in between does not look like a deletion.
"""

from __future__ import annotations

import json
import os
from unicodedata import normalize

from .ops import Action, ApplyOp, Code
from .place import Places
from .platform_folder import Folder
from .root import Root
from .stage import SPELLING_NOTE, SPELLING_OBJECT, Stage

__all__ = ["Spelling"]


class Spelling:
    """Changes spellings.

    Args:
        root: The root.
        stage: Its stage.
    """

    def __init__(self, root: Root, stage: Stage) -> None:
        self._root = root
        self._stage = stage
        self._calls = stage.calls

    def change(self, op: ApplyOp, folder: Folder, old: str) -> Code:
        """Carry out a ``RENAME``.

        Args:
            op: The operation.
            folder: Folder of both names.
            old: Name before, as the disk spells it.

        Raises:
            OSError: the name is as it was.
        """
        assert op.action is Action.RENAME
        new = op.path.rpartition("/")[2]
        names = {normalize("NFC", name) for name in self._calls.names(folder)}
        if normalize("NFC", old) not in names:
            return Code.ALREADY if new in names else Code.MISSING
        if new in names:
            return Code.EXISTS
        try:
            self._calls.place(folder, old, folder, new)
        except FileExistsError:
            one, two = self._calls.stat(folder, old), self._calls.stat(folder, new)
            if (one.st_ino, one.st_dev) != (two.st_ino, two.st_dev):
                return Code.EXISTS
            self._calls.rename(folder, old, folder, new)
            if new not in {normalize("NFC", name) for name in self._calls.names(folder)}:
                self._in_two_steps(op, folder, old, new)
        return Code.APPLIED

    def _in_two_steps(self, op: ApplyOp, folder: Folder, old: str, new: str) -> None:
        stage = self._stage.folder
        fd = self._calls.create(stage, SPELLING_NOTE)
        try:
            self._calls.write(fd, json.dumps([op.old_path, op.path]).encode())
        finally:
            os.close(fd)
        try:
            self._calls.place(folder, old, stage, SPELLING_OBJECT)
            try:
                self._calls.place(stage, SPELLING_OBJECT, folder, new)
            except OSError:
                self._calls.place(stage, SPELLING_OBJECT, folder, old)
                raise
        except OSError:
            self.recover()
            raise
        self._calls.unlink(stage, SPELLING_NOTE)

    def recover(self) -> None:
        """Bring back an object that was between two spellings when the process ended.

        Raises:
            OSError: it could not be brought back; it is still in the stage.
        """
        stage = self._stage.folder
        try:
            fd = self._calls.open_file(stage, SPELLING_NOTE)
        except FileNotFoundError:
            return
        try:
            paths = _paths(self._calls.read(fd, 2**16))
        finally:
            os.close(fd)
        places = Places(self._root, self._calls)
        try:
            for path in paths:
                try:
                    folder, name = places.find(path)
                    self._calls.place(stage, SPELLING_OBJECT, folder, name)
                except (FileNotFoundError, FileExistsError, NotADirectoryError):
                    # Not in the stage at all, or its place is taken: what is left there is told as a conflict.
                    continue
        finally:
            places.close()
        self._calls.unlink(stage, SPELLING_NOTE)


def _paths(raw: bytes) -> list[str]:
    try:
        found = json.loads(raw)
    except ValueError:
        # Cut off: then the object has not been moved yet.
        return []
    return [path for path in reversed(found) if isinstance(path, str)] if isinstance(found, list) else []
