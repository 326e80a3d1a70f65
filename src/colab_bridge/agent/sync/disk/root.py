"""One side's root: held open, marked, never mistaken for another folder (S1, S5).

Our own folder ``.colab-bridge`` lies inside it, so that moves stay on one file system: ``stage``, ``trash``, ``ck``
(cookies of the watcher) and ``root-id``. It never travels.
"""

from __future__ import annotations

import os
import re
import secrets
import stat as modes
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from .platform_folder import Folder, FolderReplaced
from .platform_system import boot_id, open_root

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["STATE_FOLDER", "Folder", "FolderReplaced", "Root", "RootFault", "RootState"]

STATE_FOLDER = ".colab-bridge"
_MARKER = "root-id"
_CLOCK = "clock"
_INSIDE = ("stage", "trash", "ck")
_MARKER_FORM = re.compile(r"[0-9a-f]{32}")
# Our folder must not travel by Git either.
_GIT_FILE = ".gitignore"


class RootFault(Exception):
    """The folder cannot be a root.

    Attributes:
        code: ``home``, ``slash``, ``missing``, ``not_a_folder``, ``link``, ``unreadable``, ``other_device``, ``owner``,
            ``nested`` or ``state``.
        sentence: For people, one line.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class RootState(str, Enum):
    """What stands at the path of an open root now."""

    SAME = "same"
    MISSING = "missing"
    LINK = "link"
    NOT_A_FOLDER = "not_a_folder"
    REPLACED = "replaced"  # another folder, or another device (an unmounted disk shows its empty mount point)
    UNREADABLE = "unreadable"
    UNMARKED = "unmarked"  # the same folder, but its marker is gone or another


class Root:
    """A root that is held open; a context manager.

    Attributes:
        path: Absolute path.
        dev: Number of the file system.
        ino: Number of the folder in it.
        marker: Random id of this root, 32 hex digits; empty when no state was to be made and none was there.
        boot_id: Id of the machine's start; empty where the system tells none.
        state: Our folder inside.
    """

    def __init__(self, path: str, top: Folder) -> None:
        self.path = Path(path)
        self.top = top
        self.dev = top.device
        self.ino = top.inode
        self.marker = ""
        self.boot_id = boot_id()
        self.state = self.path / STATE_FOLDER
        self._clock: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create_state: bool = True, any_owner: bool = False) -> Root:
        """Open a folder as a root.

        Args:
            path: The folder; its last component may not be a link.
            create_state: Make ``.colab-bridge`` where it is missing.
            any_owner: The superuser may use a folder of somebody else; for the runtime, where everything runs as root.

        Raises:
            RootFault: The folder is missing, too wide, unreadable or not what it seems.
        """
        where = os.path.abspath(path)
        seen = _look(where)
        _check_place(where, seen, any_owner=any_owner)
        try:
            top = open_root(where)
        except PermissionError as error:
            raise RootFault("unreadable", f"the folder {where} cannot be read") from error
        except OSError as error:
            raise RootFault("missing", f"the folder {where} cannot be opened: {error.strerror}") from error
        root = cls(where, top)
        try:
            root._take(seen, create_state=create_state)
        except BaseException:
            root.close()
            raise
        return root

    def _take(self, seen: os.stat_result, *, create_state: bool) -> None:
        if (self.dev, self.ino) != (seen.st_dev, seen.st_ino):
            raise RootFault("not_a_folder", f"the folder {self.path} was replaced while it was opened")
        try:
            self.top.names()
        except OSError as error:
            raise RootFault("unreadable", f"the folder {self.path} cannot be read") from error
        try:
            if create_state:
                self._make_state()
            self._open_state()
        except OSError as error:
            text = f"{self.state} cannot be used: {error.strerror or error}"
            raise RootFault("state", text) from error

    def _make_state(self) -> None:
        with suppress(FileExistsError):
            self.top.make_folder(STATE_FOLDER)
        with self._state_folder() as state:
            for name in _INSIDE:
                with suppress(FileExistsError):
                    state.make_folder(name)
                self._check_own(state, name)
            _write_new(state, _GIT_FILE, b"*\n")
            _write_new(state, _CLOCK, b"")
            if not _MARKER_FORM.fullmatch(_read_short(state, _MARKER)):
                # Missing or damaged: a new identity is safe, the other side's content is then only added (S1).
                with suppress(FileNotFoundError):
                    state.remove_file(_MARKER)
                _write_new(state, _MARKER, secrets.token_hex(16).encode())

    def _check_own(self, folder: Folder, name: str) -> None:
        seen = folder.stat(name)
        if not modes.S_ISDIR(seen.st_mode):
            raise RootFault("state", f"{folder.full(name)} is not a folder")
        if seen.st_dev != self.dev:
            raise RootFault("other_device", f"{folder.full(name)} lies on another device than the folder itself")

    def _state_folder(self) -> Folder:
        self._check_own(self.top, STATE_FOLDER)
        return self.top.child(STATE_FOLDER)

    def _open_state(self) -> None:
        try:
            folder = self._state_folder()
        except FileNotFoundError:
            return
        with folder as state:
            found = _read_short(state, _MARKER)
            self.marker = found if _MARKER_FORM.fullmatch(found) else ""
            if os.utime in os.supports_fd:
                with suppress(OSError):
                    self._clock = state.open_file(_CLOCK)

    @property
    def fd(self) -> int | None:
        """Descriptor of the root; None on Windows."""
        return self.top.fd

    def check(self) -> RootState:
        """Return what stands at the path now; nothing may be done unless it is ``SAME``."""
        try:
            seen = os.stat(self.path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return RootState.MISSING
        except OSError:
            return RootState.UNREADABLE
        if modes.S_ISLNK(seen.st_mode):
            return RootState.LINK
        if not modes.S_ISDIR(seen.st_mode):
            return RootState.NOT_A_FOLDER
        if (seen.st_dev, seen.st_ino) != (self.dev, self.ino):
            return RootState.REPLACED
        if not self.marker:
            return RootState.SAME
        try:
            with self._state_folder() as state:
                return RootState.SAME if _read_short(state, _MARKER) == self.marker else RootState.UNMARKED
        except (OSError, RootFault):
            return RootState.UNMARKED

    def folder(self, path: str) -> Folder:
        """Open a folder below the root, component by component, following no link.

        Args:
            path: Relative, ``/`` separated, as it travels (NFC) or as the disk spells it; ``""`` is the root itself.

        Returns:
            A handle of its own, to be closed.

        Raises:
            FileNotFoundError: A component is missing.
            NotADirectoryError: A component is a link or a file.
            ValueError: A component is ``..``, ``.`` or empty.
        """
        names = path.split("/") if path else []
        if not {"", ".", ".."}.isdisjoint(names):
            raise ValueError("no path below the root")
        here = self.top.again()
        for name in names:
            with here as above:
                here = above.child(above.disk_name(name))
        return here

    def now_ns(self) -> int:
        """Return the time as the root's file system stamps it, nanoseconds since 1970.

        A file server has a clock of its own, and stamps are only comparable with stamps.
        """
        if self._clock is not None:
            try:
                # Twice: kernels with fine stamps give a fine one only after somebody looked at the one before.
                os.utime(self._clock)
                os.fstat(self._clock)
                os.utime(self._clock)
                return os.fstat(self._clock).st_ctime_ns
            except OSError:
                # Read-only by now, or full: the machine's own clock is what is left.
                return time.time_ns()
        return time.time_ns()

    def close(self) -> None:
        """Let go of the folder."""
        self.top.close()
        if self._clock is not None:
            os.close(self._clock)
            self._clock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _look(where: str) -> os.stat_result:
    try:
        seen = os.stat(where, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RootFault("missing", f"the folder {where} does not exist") from error
    except OSError as error:
        raise RootFault("unreadable", f"the folder {where} cannot be looked at: {error.strerror}") from error
    if modes.S_ISLNK(seen.st_mode):
        raise RootFault("link", f"{where} is a link; name the folder that it points to")
    if not modes.S_ISDIR(seen.st_mode):
        raise RootFault("not_a_folder", f"{where} is not a folder")
    return seen


def _check_place(where: str, seen: os.stat_result, *, any_owner: bool) -> None:
    """Refuse folders that are too wide to be a project, foreign ones, and a root inside a root."""
    if os.path.dirname(where) == where:
        raise RootFault("slash", f"{where} is a whole file system; choose a project folder")
    home = os.path.realpath(os.path.expanduser("~"))
    real = os.path.realpath(where)
    if home == real or home.startswith(real.rstrip(os.sep) + os.sep):
        raise RootFault("home", f"{where} is your home folder, or holds it; choose a project folder")
    effective = getattr(os, "geteuid", lambda: -1)()
    if effective == 0 and seen.st_uid != 0 and not any_owner:
        raise RootFault("owner", f"{where} belongs to another user; do not run this as root")
    above = os.path.dirname(real)
    while True:
        if os.path.lexists(os.path.join(above, STATE_FOLDER, _MARKER)):
            raise RootFault("nested", f"{where} lies inside the synced folder {above}")
        if os.path.dirname(above) == above:
            return
        above = os.path.dirname(above)


def _read_short(folder: Folder, name: str) -> str:
    try:
        fd = folder.open_file(name)
    except OSError:
        return ""
    try:
        if not modes.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _write_new(folder: Folder, name: str, content: bytes) -> None:
    try:
        fd = folder.create_file(name)
    except FileExistsError:
        return
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
