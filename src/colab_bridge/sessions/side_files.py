"""Files that code on a runtime takes from the user's machine, or leaves there, at the user's word."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final
from unicodedata import normalize

from colab_bridge.agent.sync.names import check_name
from colab_bridge.errors import UserError
from colab_bridge.wire.colab_side import UPLOAD_PIECE_BYTES

__all__ = ["DOWNLOADS", "Incoming", "picked_files", "pieces_of", "safe_name"]

#: Folder in the project that takes what ``files.download()`` brings.
DOWNLOADS: Final = "downloads"

#: Ours in each project; the file sync never looks into it, so that it does not take up what is not whole.
_OWN_FOLDER: Final = ".colab-bridge"

_TAKEN: Final = 1000


def picked_files(answer: str, project: Path) -> list[Path]:
    """Read what a user typed when asked for files.

    Args:
        answer: Paths separated by ``;``; relative ones count from the project's root, ``~`` is the home folder.
        project: The project's root.

    Returns:
        Files that exist; none for an empty answer.

    Raises:
        UserError: one of them is no readable file.
    """
    found = []
    for text in filter(None, (part.strip().strip("\"'") for part in answer.split(";"))):
        path = (project / Path(text).expanduser()).resolve()
        if not path.is_file() or not os.access(path, os.R_OK):
            raise UserError(f"{text} is no file that can be read", hint="give its path, or nothing to cancel")
        found.append(path)
    return found


def pieces_of(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Iterate over the names and pieces of files, read as they are asked for.

    Raises:
        OSError: a file cannot be read any more.
    """
    for path in files:
        with path.open("rb") as file:
            piece = file.read(UPLOAD_PIECE_BYTES)
            yield path.name, piece  # an empty file is one empty piece
            while piece := file.read(UPLOAD_PIECE_BYTES):
                yield path.name, piece


def safe_name(name: str) -> str:
    """Return the name under which a file of a runtime is kept: one that every system can hold, in no other folder.

    Args:
        name: As the runtime says; hostile.
    """
    last = normalize("NFC", name).replace("\\", "/").rpartition("/")[2].lstrip(".")
    return last if last and check_name(last) is None else "download"


class Incoming:
    """A file on its way here: written beside its place, moved there when it is whole.

    Nothing that exists is overwritten: a name that is taken gets a number.

    Args:
        project: The project's root; it goes to the folder :data:`DOWNLOADS` there, made when absent.
        name: As the runtime says; hostile.
        size_bytes: Size as the runtime says; more is not taken.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, project: Path, name: str, size_bytes: int) -> None:
        folder = project / DOWNLOADS
        parts = project / _OWN_FOLDER
        for needed in (folder, parts):
            needed.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=parts, prefix="download-", suffix=".part")
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._part = Path(part)
        self._folder = folder
        self._name = safe_name(name)
        self._left = size_bytes

    def write(self, data: bytes) -> None:
        """Append a piece.

        Raises:
            ValueError: it is more than was announced.
            OSError: the disk does not take it.
        """
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("the runtime sends more than it announced")
        self._file.write(data)

    def finish(self) -> Path:
        """Put the whole file into its place and return that.

        Raises:
            ValueError: the file is not whole.
            OSError: it cannot be put there.
        """
        if self._left:
            raise ValueError("the runtime sent less than it announced")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        stem, dot, ending = self._name.partition(".")
        for number in range(_TAKEN):
            place = self._folder / (self._name if not number else f"{stem} ({number}){dot}{ending}")
            try:
                # Reserves the name in one step; a name that is taken in the meantime is never replaced.
                place.touch(mode=0o600, exist_ok=False)
            except FileExistsError:
                continue
            os.replace(self._part, place)
            return place
        raise FileExistsError(f"{self._name} and {_TAKEN} names like it are taken")

    def abandon(self) -> None:
        """Remove what has come; calling it after the end is no error."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)
