"""The agent's folder on the runtime's disk: where it may be, who holds it, how it is found again.

Layout, everything readable by its owner only::

    <base>/colab-bridge/agents/<workspace id>/
        lock             held by the one running agent
        agent.json       how it is reached; its token for loopback TCP
        hints.json       what the latest doorman knows about the machine
        doormen.json     kernels that daemons have made to reach the agent
        agent.log        stderr of the agent
        <service>/       one folder a service
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = [
    "Folder",
    "FolderError",
    "agent_file",
    "candidate_bases",
    "choose",
    "private_folder",
    "read_json",
    "write_json",
]

_WORKSPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_APP_NAME = "colab-bridge"
# Room for a journal to be of use; with less, a place further down the list is taken if it has more.
_ROOM_BYTES = 32 * 1024 * 1024
_FULL = 2
_MOST_FILE_BYTES = 256 * 1024


class FolderError(Exception):
    """There is no place for the agent; the text is one sentence for people."""


def candidate_bases(environ: Mapping[str, str], platform: str = sys.platform) -> list[Path]:
    """Return the folders of the user below which the agent may live, best first; none of them need exist."""
    home = Path(os.path.expanduser("~"))
    temp = Path(tempfile.gettempdir())
    if platform == "win32":
        local = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        return [local, temp]
    if platform == "darwin":
        return [home / "Library" / "Application Support", home / "Library" / "Caches", temp]
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    # The last one is memory: better than no agent where every disk is full or read-only.
    return [data, cache, temp, Path("/dev/shm")]  # noqa: S108  # what is made below is checked: ours, 0700, no link


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can look into, with what is missing above it.

    Raises:
        OSError: it cannot be made, or is a link, or belongs to somebody else.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is no folder")
    if os.name == "posix":
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    return path


def _app_name(base: Path) -> str:
    # In a shared folder (temp) the name must not be one that another user may have taken.
    return _APP_NAME if not _is_shared(base) else f"{_APP_NAME}-{_user_tag()}"


def _is_shared(base: Path) -> bool:
    return base == Path(tempfile.gettempdir()) or base == Path("/dev/shm")  # noqa: S108  # only a name to compare with


def _user_tag() -> str:
    return str(os.geteuid()) if os.name == "posix" else "user"


class Folder:
    """One agent's folder.

    Args:
        path: The folder; made already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    @property
    def agent_file(self) -> Path:
        """How the agent is reached."""
        return self.path / "agent.json"

    @property
    def log_file(self) -> Path:
        """What the agent has to say."""
        return self.path / "agent.log"

    def lock(self) -> bool:
        """Take the folder for this process; False when another process has it.

        Raises:
            OSError: the disk cannot do it.
        """
        # Opened for writing, because NFS needs that for a lock.
        descriptor = os.open(self.path / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        file = open(descriptor, "wb")  # noqa: SIM115  # held as long as the process lives
        if not _lock_file(file):
            file.close()
            return False
        self._lock = file
        return True

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def service_folder(self, name: str) -> Path:
        """Return a service's own folder, made if need be.

        Raises:
            OSError: it cannot be made.
        """
        return private_folder(self.path / name)

    def size_bytes(self) -> int:
        """Return what the files below take."""
        total = 0
        for parent, _folders, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(parent, name)).st_size
        return total


def choose(workspace: str, bases: Sequence[Path]) -> tuple[Folder, list[str]]:
    """Find the agent's folder, or a place for a new one.

    A folder whose agent runs comes first, then one that exists with something in it, then the first with room.

    Args:
        workspace: Id of the workspace.
        bases: Where to look, best first.

    Returns:
        The folder, and a sentence for each thing about it that is not as it should be.

    Raises:
        FolderError: nothing can be written anywhere, or the id is malformed.
    """
    if not _WORKSPACE.fullmatch(workspace):
        raise FolderError("the id of the workspace is malformed")
    found: list[tuple[int, int, Folder]] = []
    reasons: list[str] = []
    for order, base in enumerate(bases):
        # Further places only matter if an agent has been there.
        if any(rank != _FULL for rank, _order, _folder in found) and not _path(base, workspace).exists():
            continue
        try:
            folder = _open(base, workspace)
            if not folder.lock():
                holder = str(read_json(folder.agent_file).get("host", socket.gethostname()))
                if holder == socket.gethostname():
                    return folder, []
                # A home that several machines share: its socket cannot be reached from here.
                reasons.append(f"{base}: in use by an agent on {holder[:50]}")
                continue
            folder.unlock()
            _check_writable(folder.path)
        except OSError as error:
            reasons.append(f"{base}: {error.strerror or error}")
            continue
        found.append((_rank(folder), order, folder))
    if not found:
        raise FolderError(f"no folder on the runtime can be written to ({'; '.join(reasons)})"[:500])
    reasons += [f"{folder.path.parents[2]}: almost full" for rank, _order, folder in found if rank == _FULL]
    _rank_found, order, best = min(found, key=lambda entry: entry[:2])
    return best, _troubles(best, order, reasons)


def _path(base: Path, workspace: str) -> Path:
    return base / _app_name(base) / "agents" / workspace


def agent_file(base: Path, workspace: str) -> Path:
    """Return where an agent below a folder says how it is reached."""
    return Folder(_path(base, workspace)).agent_file


def _open(base: Path, workspace: str) -> Folder:
    path = _path(base, workspace)
    private_folder(path.parents[1])
    private_folder(path.parent)
    return Folder(private_folder(path))


def _rank(folder: Folder) -> int:
    if folder.agent_file.exists():
        return 0
    return 1 if free_bytes(folder.path) >= _ROOM_BYTES else _FULL


def _check_writable(path: Path) -> None:
    """Write a page: a full disk often still makes folders and empty files."""
    probe = path / f"probe-{os.getpid()}"
    try:
        probe.write_bytes(b"\0" * 4096)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _troubles(folder: Folder, order: int, reasons: list[str]) -> list[str]:
    texts = []
    if order:
        because = f" ({reasons[0]})" if reasons else ""
        texts.append(f"the agent keeps its files in {folder.path}, not in the user's data folder{because}"[:300])
    if free_bytes(folder.path) < _ROOM_BYTES:
        texts.append("the runtime's disk is almost full: output cannot be kept there for long")
    return texts


def free_bytes(path: Path) -> int:
    """Return how much the disk has left for this user; 0 when it does not say."""
    try:
        if os.name == "posix":
            state = os.statvfs(path)
            return state.f_bavail * state.f_frsize
        import shutil  # needs more than this process usually loads

        return shutil.disk_usage(path).free
    except OSError:
        return 0


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a small file of ours; empty when it is missing or unreadable."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(_MOST_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a small file of ours, mode 0600.

    Raises:
        OSError: the disk does not take it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(value).encode("ascii"))
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock_file(file: IO[bytes]) -> bool:
        # The lock belongs to the open file: it ends with the process, whatever ends that.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
