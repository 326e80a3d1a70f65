"""What every operating system must offer for one open folder; the ways to do it are in the siblings of this module."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .statcache import Record

__all__ = ["Folder", "FolderReplaced"]


class FolderReplaced(OSError):
    """Another folder stands where the one that was looked at has been."""


class Folder(ABC):
    """One open folder; a context manager. Names are single components as the disk spells them, never paths.

    Attributes:
        below: Path relative to the root, ``/`` separated, as the disk spells it; ``""`` is the root.
        device: Number of the file system.
        inode: Number of the folder in it.
    """

    below: str
    device: int
    inode: int

    @property
    @abstractmethod
    def fd(self) -> int | None:
        """Descriptor for calls with ``dir_fd``; None where the system has none."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Absolute path, for calls that cannot take a descriptor."""

    def full(self, name: str) -> str:
        """Return the absolute path of a name, for calls that cannot take a descriptor."""
        return os.path.join(self.path, name)

    @abstractmethod
    def names(self) -> list[str]:
        """Return all names in the folder, undecodable bytes as surrogates, without ``.`` and ``..``.

        Raises:
            OSError: It could not be listed completely.
        """

    def listing(self) -> int:
        """Return one number for all that is listed in the folder: equal lists of names have equal numbers.

        Other lists have other numbers, but for a chance of 1 in 2^64; the numbers mean nothing to another process.

        Raises:
            OSError: It could not be listed completely.
        """
        return hash(tuple(self.names()))

    @abstractmethod
    def differing(self, known: Mapping[str, Record | None]) -> list[tuple[str, os.stat_result]]:
        """Return the names whose signature is not the one that is known, with what stands there; links not followed.

        Raises:
            OSError: One of them is gone or cannot be looked at.
        """

    @abstractmethod
    def stat(self, name: str) -> os.stat_result:
        """Return what stands at a name; links are not followed."""

    @abstractmethod
    def open_file(self, name: str) -> int:
        """Return a descriptor for reading; never follows a link, never waits for the writer of a pipe."""

    @abstractmethod
    def read_link(self, name: str) -> str:
        """Return the text of a link."""

    @abstractmethod
    def child(self, name: str, expected: tuple[int, int] | None = None) -> Folder:
        """Open a folder in this one.

        Args:
            name: Where.
            expected: Device and inode that were seen there; another folder raises :class:`FolderReplaced`.

        Raises:
            NotADirectoryError: A link or a file stands there.
        """

    @abstractmethod
    def again(self) -> Folder:
        """Return a second handle of the same folder."""

    @abstractmethod
    def create_file(self, name: str) -> int:
        """Make an empty file (0600) at a free name and return its descriptor for writing."""

    @abstractmethod
    def make_folder(self, name: str) -> None:
        """Make an empty folder (0700) at a free name."""

    @abstractmethod
    def remove_file(self, name: str) -> None:
        """Remove a file of our own; everybody else's files are moved, never removed."""

    @abstractmethod
    def release(self) -> None:
        """Give the descriptor back for a while; it is opened again, and checked, when it is needed."""

    @abstractmethod
    def close(self) -> None:
        """Close it; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def disk_name(self, name: str) -> str:
        """Return the name as it lies on the disk: a name travels in Unicode form NFC, other forms may lie there.

        The name itself comes back when it is there, or when no other form of it is.
        """
        if name.isascii():
            return name
        try:
            self.stat(name)
        except FileNotFoundError:
            twins = sorted(found for found in self.names() if normalize("NFC", found) == name)
            return twins[0] if twins else name
        return name
