"""Single files and folders of the runtime: listed, read and written in pieces, removed.

Paths may be absolute or relative to where kernels start: it is the user's machine, and the daemon that asks holds the
agent. Writing goes to a sibling file first and takes the place of the old one in one step.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..process.service import CallFailure, Reply
from .disk.root import STATE_FOLDER
from .pages import WireError
from .service_wire import read_field

__all__ = ["SingleFiles"]

_MOST_ENTRIES = 10_000
_MOST_PIECE = 1 << 20
_MOST_PATH = 4096
# The built-in list leaves such names out, so half a file never travels on.
_PART = ".tmp.0-colab-bridge"
_AHEAD = 8 << 20
_Verb = Callable[[Mapping[str, Any], bytes], Reply]


class SingleFiles:
    """Answers the verbs for single files; everything blocks.

    Args:
        base: Gives the folder against which relative paths are meant.
    """

    def __init__(self, base: Callable[[], Path]) -> None:
        self._base = base
        self._table: dict[str, _Verb] = {
            "list": self._list,
            "stat": self._stat,
            "read": self._read,
            "write": self._write,
            "commit": self._commit,
            "remove": self._remove,
            "mkdir": self._mkdir,
            "digest": self._digest,
        }

    @property
    def verbs(self) -> frozenset[str]:
        """Names of the verbs."""
        return frozenset(self._table)

    def answer(self, verb: str, params: Mapping[str, Any], payload: bytes) -> Reply:
        """Answer a call.

        Raises:
            WireError: the request is odd.
            CallFailure: it cannot be done.
            OSError: likewise, from the disk.
        """
        return self._table[verb](params, payload)

    def _path(self, params: Mapping[str, Any]) -> Path:
        given = read_field(params, "path", str)
        if "\0" in given or len(given) > _MOST_PATH:
            raise WireError("the path is none")
        base = params.get("base")
        start = Path(base) if isinstance(base, str) and base else self._base()
        return Path(os.path.normpath(start / os.path.expanduser(given)))

    def _list(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        path = self._path(params)
        if not path.is_dir():
            return Reply({"path": str(path), "folder": False}, _dump([_row(path)]), compress=True)
        rows: list[dict[str, Any]] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if len(rows) >= _MOST_ENTRIES:
                    break
                rows.append(_row(Path(entry.path)))
        rows.sort(key=lambda row: str(row["name"]))
        return Reply({"path": str(path), "folder": True}, _dump(rows), compress=True)

    def _stat(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        path = self._path(params)
        return Reply({"path": str(path), **_row(path)})

    def _read(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        path, offset = self._path(params), read_field(params, "offset", int)
        length = min(read_field(params, "length", int), _MOST_PIECE)
        with _open_regular(path) as source:
            seen = os.fstat(source.fileno())
            source.seek(offset)
            data = source.read(length)
        return Reply({"size": seen.st_size, "mtime_ns": seen.st_mtime_ns}, data, compress=True)

    def _digest(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        state = blake2b(digest_size=32)
        length = params.get("length")
        left = length if type(length) is int and length >= 0 else -1
        with _open_regular(self._path(params)) as source:
            while left != 0 and (piece := source.read(_MOST_PIECE if left < 0 else min(left, _MOST_PIECE))):
                state.update(piece)
                left -= len(piece) if left > 0 else 0
            size = os.fstat(source.fileno()).st_size
        return Reply({"digest": state.hexdigest(), "size": size})

    def _write(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        """Write a piece beside the file; what was written before a cut is kept, the answer says how much it is."""
        path, offset = self._path(params), read_field(params, "offset", int)
        part = path.with_name(path.name + _PART)
        if part.is_symlink() or path.is_dir():
            raise CallFailure("exists", f"{path} is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        if params.get("restart") is True:
            part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+b") as target:
            size = target.seek(0, os.SEEK_END)
            if payload:
                if offset > size + _AHEAD:
                    raise CallFailure("gap", "a piece before this one is missing")
                target.seek(offset)
                target.write(payload)
                size = max(size, offset + len(payload))
        return Reply({"have": size, "path": str(path)})

    def _commit(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        """Verify what was written and let it take the place of the file."""
        path = self._path(params)
        part = path.with_name(path.name + _PART)
        size = read_field(params, "size", int)
        state = blake2b(digest_size=32)
        with os.fdopen(os.open(part, os.O_RDWR | getattr(os, "O_BINARY", 0)), "r+b") as target:
            target.truncate(size)
            while piece := target.read(_MOST_PIECE):
                state.update(piece)
            os.fsync(target.fileno())
        if state.hexdigest() != params.get("digest"):
            part.unlink(missing_ok=True)
            raise CallFailure("mismatch", "the bytes that arrived are not those that were sent")
        os.chmod(part, stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask(path.parent))
        os.replace(part, path)
        return Reply({"path": str(path), "size": size})

    def _remove(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        path = self._path(params)
        if path == Path(path.anchor) or path == Path.home() or STATE_FOLDER in path.parts:
            raise CallFailure("refused", f"{path} is never removed")
        if path.is_dir() and not path.is_symlink():
            if params.get("recursive") is not True and any(path.iterdir()):
                raise CallFailure("not-empty", f"{path} is a folder that is not empty")
            shutil.rmtree(path)
        else:
            path.unlink()
        return Reply({"path": str(path)})

    def _mkdir(self, params: Mapping[str, Any], payload: bytes) -> Reply:
        path = self._path(params)
        path.mkdir(parents=True, exist_ok=True)
        return Reply({"path": str(path)})


def _open_regular(path: Path) -> Any:
    # Never waits for the writer of a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CallFailure("not-a-file", f"{path} is no regular file")
    return os.fdopen(fd, "rb")


def _umask(folder: Path) -> int:
    """Return the umask as far as the folder shows it: reading the real one would change it for a moment."""
    return 0o077 if not stat.S_IMODE(folder.stat().st_mode) & 0o077 else 0o022


def _row(path: Path) -> dict[str, Any]:
    try:
        seen = path.lstat()
    except OSError as error:
        raise CallFailure("missing", f"there is no {path}") from error
    kind = "folder" if stat.S_ISDIR(seen.st_mode) else "file"
    kind = "link" if stat.S_ISLNK(seen.st_mode) else kind
    return {"name": path.name, "kind": kind, "size": seen.st_size, "mtime": seen.st_mtime}


def _dump(rows: object) -> bytes:
    return json.dumps(rows, separators=(",", ":")).encode("ascii")
