"""Whether what stands somewhere is what an operation expects: by stamps where they prove it, by content otherwise."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from unicodedata import normalize

from .ops import Expected, Kind, folder_fingerprint, link_digest, signature_of
from .parts import hash_file
from .place import Calls
from .platform_folder import Folder

__all__ = ["Known", "Looker", "Stamps"]

Known = Callable[[str], "tuple[tuple[int, int, int, int, int, int], bytes] | None"]
"""Path to (stamps, digest) as the last scan trusted them; None when it did not, or the file is racy."""
_SMALL_BYTES = 2**20

Stamps = dict[str, "list[int]"]
"""Size, mtime_ns and inode of an object, or of the files in it, by path."""


class Looker:
    """Compares objects on the disk with expectations.

    Args:
        calls: File-system calls.
        key: Key of the pairing.
        known: What the last scan knows, see :data:`Known`.
    """

    def __init__(self, calls: Calls, key: bytes, known: Known | None) -> None:
        self._calls = calls
        self._key = key
        self._known = known

    @staticmethod
    def is_kind(seen: os.stat_result, kind: Kind) -> bool:
        """Return whether an object is of a kind; special files are of none."""
        if kind is Kind.FILE:
            return stat.S_ISREG(seen.st_mode)
        return stat.S_ISLNK(seen.st_mode) if kind is Kind.LINK else stat.S_ISDIR(seen.st_mode)

    @classmethod
    def kind_of(cls, seen: os.stat_result) -> Kind | None:
        """Return the kind of an object; None for special files."""
        return next((kind for kind in Kind if cls.is_kind(seen, kind)), None)

    def stamps(self, folder: Folder, name: str) -> Stamps:
        """Return by what a later write into an object, or into a file in it, will be noticed.

        Raises:
            OSError: it could not be looked at.
        """
        found: Stamps = {}
        self._stamps(folder, name, "", found)
        return found

    def _stamps(self, folder: Folder, name: str, path: str, found: Stamps) -> None:
        seen = self._calls.stat(folder, name)
        if not stat.S_ISDIR(seen.st_mode):
            # Without ctime, which every rename moves.
            found[path] = [seen.st_size, seen.st_mtime_ns, seen.st_ino]
            return
        with self._calls.child(folder, name) as inside:
            for one in sorted(self._calls.names(inside)):
                self._stamps(inside, one, f"{path}/{one}", found)

    def proven(self, path: str, seen: os.stat_result, expected: Expected) -> bool:
        """Return whether the stamps alone prove that a file at a path has the expected content."""
        if self._known is None or expected.kind is not Kind.FILE:
            return False
        known = self._known(path)
        return known is not None and known == (signature_of(seen), expected.digest)

    def refuted(self, path: str, seen: os.stat_result, expected: Expected) -> bool:
        """Return whether an object is certainly not what is expected; cheap, and no content is read."""
        if not self.is_kind(seen, expected.kind):
            return True
        known = self._known(path) if self._known is not None and expected.kind is Kind.FILE else None
        return known is not None and known[0] == signature_of(seen) and known[1] != expected.digest

    def is_expected(self, folder: Folder, name: str, expected: Expected, before: os.stat_result | None = None) -> bool:
        """Return whether the object is what is expected.

        Args:
            folder: Where it is now.
            name: Its name there.
            expected: What it should be.
            before: How it looked when its stamps proved it; moving it has changed none of them but ctime. Small files
                are read all the same, it costs less than a thought about clocks.

        Raises:
            OSError: it could not be read.
        """
        seen = self._calls.stat(folder, name)
        if not self.is_kind(seen, expected.kind):
            return False
        if before is not None and seen.st_size > _SMALL_BYTES and _same_but_moved(seen, before):
            return True
        return self.fingerprint(folder, name, expected.kind) == expected.digest

    def fingerprint(self, folder: Folder, name: str, kind: Kind) -> bytes:
        """Return the fingerprint of an object, by its content.

        Raises:
            OSError: it could not be read.
        """
        if kind is Kind.LINK:
            return link_digest(self._calls.read_link(folder, name))
        if kind is Kind.FOLDER:
            with self._calls.child(folder, name) as inside:
                return self._folder(inside, None)
        fd = self._calls.open_file(folder, name)
        try:
            return hash_file(self._calls, fd, self._key)
        finally:
            os.close(fd)

    def is_moved(self, folder: Folder, name: str, path: str, expected: Expected) -> bool:
        """Return whether a folder is what is expected of the one that stood at another path a moment ago.

        The stamps by which the last scan knew its files are proof enough: moving the folder changed none of them, and
        what they do not tell stays where it is.

        Args:
            folder: Where it is now.
            name: Its name there.
            path: Where it stood.
            expected: What stood there.

        Raises:
            OSError: it could not be looked at.
        """
        with self._calls.child(folder, name) as inside:
            return expected == Expected(Kind.FOLDER, self._folder(inside, path))

    def _folder(self, folder: Folder, path: str | None) -> bytes:
        """Return the fingerprint of an open folder; given its old path, by stamps where these prove content."""
        children: dict[str, Expected] = {}
        for name in self._calls.names(folder):
            seen = self._calls.stat(folder, name)
            kind = self.kind_of(seen)
            shown = normalize("NFC", name)
            if kind is None or shown in children:
                # Special files and twins stand in no tree, so the folder is none that could be expected.
                return b""
            below = None if path is None else f"{path}/{shown}"
            known = self._known(below) if below is not None and kind is Kind.FILE and self._known is not None else None
            if known is not None and known[0] == signature_of(seen):
                children[shown] = Expected(kind, known[1])
            elif kind is Kind.FOLDER:
                with self._calls.child(folder, name) as inside:
                    children[shown] = Expected(kind, self._folder(inside, below))
            else:
                children[shown] = Expected(kind, self.fingerprint(folder, name, kind))
        return folder_fingerprint(children)


def _same_but_moved(one: os.stat_result, two: os.stat_result) -> bool:
    return (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns, one.st_mode) == (
        two.st_ino,
        two.st_dev,
        two.st_size,
        two.st_mtime_ns,
        two.st_mode,
    )
