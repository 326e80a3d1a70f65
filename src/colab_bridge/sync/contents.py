"""Whole files through a Jupyter server's own file API, for runtimes where no agent can be had.

A mirror of the workspace lies on this machine, and the files service works on the mirror: so all rules, stops and the
trash hold as always. Before each look the mirror takes in what changed on the server, after each exchange the server
gets what changed in the mirror. What is missing then: hidden files (servers refuse them), executable bits, links,
deltas, exchange in one step, and any word of changes before somebody asks.

Source: Jupyter Server REST API, ``/api/contents``.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from binascii import Error as Base64Error
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio.to_thread

from colab_bridge._util.atomic import write_atomic
from colab_bridge.agent.sync.names import check_name
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.sync.inprocess import InProcessCaller
from colab_bridge.sync.remote import RemoteFailure

__all__ = ["ContentsCaller", "has_contents"]

DEGRADED = (
    "no agent here: whole files travel through the server's own file API; hidden files, links and executable bits stay"
)
_LOOKS = frozenset({"hello", "snapshot", "pre", "post"})
_CHANGES = frozenset({"apply", "trash", "commit", "remove", "mkdir"})
_CHUNK_BYTES = 8 << 20
_MOST_BYTES = 256 << 20
_MOST_ENTRIES = 200_000
_AT_ONCE = 4
_STATE_FOLDER = ".colab-bridge"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the server says about a file; another value means another content."""

    modified: str
    size: int


async def has_contents(server: JupyterServer) -> bool:
    """Return whether a server has the file API; gateways have kernels only."""
    try:
        status, answer = await server.ask("GET", "/api/contents/?content=0")
    except ColabBridgeError:
        return False
    return status == 200 and isinstance(answer, dict) and answer.get("type") == "directory"


class ContentsCaller:
    """A :class:`~colab_bridge.sync.remote.Caller` for a server without an agent; one call at a time.

    Args:
        server: The server.
        folder: The workspace, relative to the server's root; empty for the root itself.
        state: Folder here for the mirror and what the service keeps.
    """

    def __init__(self, server: JupyterServer, folder: str, state: Path) -> None:
        self._server = server
        self._folder = folder
        self._mirror = state / "mirror"
        self._mirror.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._service = InProcessCaller(state / "service", state)
        self._lock = anyio.Lock()
        # Of the server's files, and of ours in the mirror when they were equal.
        self._there: dict[str, _Seen] = {}
        self._here: dict[str, tuple[int, int]] = {}
        self._behind = False

    @property
    def folder(self) -> str:
        """The workspace, relative to the server's root."""
        return self._folder

    @property
    def mirror(self) -> str:
        """Where the mirror is, on this machine."""
        return str(self._mirror)

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = 10.0,
        bulk: bool = False,
        compress: bool = False,
    ) -> tuple[Mapping[str, Any], bytes]:
        """See :class:`~colab_bridge.sync.remote.Caller`."""
        verb = method.partition(".")[2]
        given = dict(params or {})
        async with self._lock:
            try:
                await self._before(verb, given)
                changes = bool(payload) if verb in _LOOKS else verb in _CHANGES
                self._behind = self._behind or changes
                result, answer = await self._service.call(method, given, payload, deadline_s=max(deadline_s, 60.0))
                if self._behind:
                    await self._bring_up()
            except ColabBridgeError as error:
                raise RemoteFailure("offline", error.message) from error
            except OSError as error:
                raise RemoteFailure("disk", f"the mirror: {error.strerror or error}") from error
        if verb == "hello":
            return {**result, "degraded": [*result.get("degraded", ()), DEGRADED], "watching": False}, answer
        return result, answer

    async def _before(self, verb: str, given: dict[str, Any]) -> None:
        """Make a call one for the mirror, and bring the mirror up to what the server has."""
        if verb == "hello":
            await self._open()
            given["root"] = str(self._mirror)
        elif "base" in given:
            # Single files: only those of the workspace, for any other path would be one of this machine.
            inside = os.path.relpath(os.path.join(self._mirror, str(given.get("path", ""))), self._mirror)
            if inside.startswith((os.pardir, _STATE_FOLDER)):
                raise RemoteFailure("refused", "without an agent only files of the workspace can be had")
            given |= {"base": str(self._mirror), "path": inside}
        if self._behind:
            await self._bring_up()
        if verb in _LOOKS or verb in {"list", "stat"}:
            await self._take_in()

    async def aclose(self) -> None:
        """Close the mirror and the connection."""
        await self._service.aclose()
        await self._server.aclose()

    # -- the server's side -------------------------------------------------------------------------------------------

    def _url(self, path: str) -> str:
        whole = "/".join(part for part in (self._folder, path) if part)
        return f"/api/contents/{quote(whole, safe='/')}"

    async def _ask(self, method: str, path: str, query: str = "", body: Mapping[str, Any] | None = None) -> Any:
        url = self._url(path) + query
        status, answer = await self._server.ask(method, url, body, most_bytes=2 * _MOST_BYTES)
        if status == 404:
            return None
        if not 200 <= status < 300:
            said = answer.get("message") if isinstance(answer, dict) else ""
            what = path or "the workspace"
            raise RemoteFailure("disk", f"{what}: the server answers {status} {str(said or '')[:120]}")
        return answer if isinstance(answer, dict) else {}

    async def _open(self) -> None:
        """Make sure of the workspace; a server that lost it is another one (S1), so the mirror begins anew."""
        self._there.clear()
        self._here.clear()
        self._behind = False
        if await self._ask("GET", "", "?content=0") is not None:
            return
        await anyio.to_thread.run_sync(shutil.rmtree, self._mirror)
        self._mirror.mkdir(mode=0o700)
        above = ""
        for part in self._folder.split("/"):
            above = f"{above}/{part}" if above else part
            await self._server.ask("PUT", f"/api/contents/{quote(above, safe='/')}", {"type": "directory"})

    async def _list(self) -> tuple[dict[str, _Seen], set[str]]:
        """Return the files and folders of the workspace."""
        files: dict[str, _Seen] = {}
        folders: set[str] = set()
        waiting = [""]
        while waiting:
            batch, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            query = "?content=1&type=directory"
            answers = await asyncio.gather(*(self._ask("GET", path, query) for path in batch))
            for path, answer in zip(batch, answers, strict=True):
                for row in (answer or {}).get("content") or ():
                    name = str(row.get("name", "")) if isinstance(row, dict) else ""
                    # The server names them: nothing that leads out of the mirror.
                    if check_name(name) is not None or name.startswith(".") or len(files) > _MOST_ENTRIES:
                        continue
                    below = f"{path}/{name}" if path else name
                    if row.get("type") == "directory":
                        folders.add(below)
                        waiting.append(below)
                    else:
                        files[below] = _seen(row)
        return files, folders

    async def _take_in(self) -> None:
        """Bring the mirror up to what the server has."""
        files, folders = await self._list()
        for path in folders:
            (self._mirror / path).mkdir(parents=True, exist_ok=True)
        changed = [path for path, seen in files.items() if self._there.get(path) != seen and seen.size <= _MOST_BYTES]
        for start in range(0, len(changed), _AT_ONCE):
            await asyncio.gather(*(self._fetch(path) for path in changed[start : start + _AT_ONCE]))
        self._there = {path: seen for path, seen in files.items() if seen.size <= _MOST_BYTES}
        await anyio.to_thread.run_sync(self._drop, {*files, *folders})

    async def _fetch(self, path: str) -> None:
        answer = await self._ask("GET", path, "?content=1&type=file&format=base64")
        if answer is None:
            return
        try:
            data = base64.b64decode(str(answer.get("content", "")), validate=False)
        except Base64Error as error:
            raise RemoteFailure("disk", f"{path}: the server sends no file") from error
        await anyio.to_thread.run_sync(self._write, path, data)

    def _write(self, path: str, data: bytes) -> None:
        target = self._mirror / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != data:
            write_atomic(target, data, mode=0o644)
        self._here[path] = _stamp(target)

    def _drop(self, kept: set[str]) -> None:
        """Remove from the mirror what the server has no more."""
        for path in self._mirrored(folders=True):
            if path not in kept:
                target = self._mirror / path
                with suppress(OSError):
                    target.rmdir() if target.is_dir() else target.unlink()
                self._here.pop(path, None)

    def _mirrored(self, *, folders: bool = False) -> list[str]:
        """Return the files of the mirror that travel, and its folders if wanted; what is inside comes first."""
        found: list[str] = []
        for folder, names, files in os.walk(self._mirror, topdown=False):
            where = Path(folder).relative_to(self._mirror)
            if any(part.startswith(".") for part in where.parts):
                continue
            wanted = [*files, *(names if folders else ())]
            found += [(where / name).as_posix() for name in wanted if not name.startswith(".")]
        return found

    # -- up ----------------------------------------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        """Bring the server up to what the mirror has; a failure fails the exchange, and the next one does it again."""
        here = await anyio.to_thread.run_sync(self._changed_here)
        for path in here:
            await self._send(path)
        files, folders = set(self._mirrored()), set(self._mirrored(folders=True))
        for path in [path for path in self._there if path not in files]:
            await self._ask("DELETE", path)
            del self._there[path]
            self._here.pop(path, None)
        listed, there = await self._list()
        for path in sorted(folders - files - there):
            await self._ask("PUT", path, body={"type": "directory"})
        for path in sorted(there - folders, reverse=True):
            # One that holds what does not travel stays.
            with suppress(RemoteFailure):
                await self._ask("DELETE", path)
        self._there = {path: listed.get(path, seen) for path, seen in self._there.items()}
        self._behind = False

    def _changed_here(self) -> list[str]:
        paths = self._mirrored()
        return sorted(
            path
            for path in paths
            if not (self._mirror / path).is_symlink() and self._here.get(path) != _stamp(self._mirror / path)
        )

    async def _send(self, path: str) -> None:
        now = await self._ask("GET", path, "?content=0")
        if now is not None and _seen(now) != self._there.get(path):
            # What the mirror has is at home too; the next look takes in what stands there.
            self._there.pop(path, None)
            self._here[path] = _stamp(self._mirror / path)
            raise RemoteFailure("disk", f"{path} changed on the server meanwhile")
        data = await anyio.to_thread.run_sync((self._mirror / path).read_bytes)
        above = ""
        for part in path.split("/")[:-1]:
            above = f"{above}/{part}" if above else part
            if await self._ask("GET", above, "?content=0") is None:
                await self._ask("PUT", above, body={"type": "directory"})
        body: dict[str, Any] = {"type": "file", "format": "base64"}
        answer: Any = None
        count = max(1, -(-len(data) // _CHUNK_BYTES))
        for number in range(count):
            piece = data[number * _CHUNK_BYTES : (number + 1) * _CHUNK_BYTES]
            chunk = {} if count == 1 else {"chunk": -1 if number == count - 1 else number + 1}
            content = base64.b64encode(piece).decode("ascii")
            answer = await self._ask("PUT", path, body={**body, **chunk, "content": content})
        self._there[path] = _seen(answer or {})
        self._here[path] = _stamp(self._mirror / path)


def _seen(row: Mapping[str, Any]) -> _Seen:
    size = row.get("size")
    return _Seen(str(row.get("last_modified"))[:40], size if type(size) is int else 0)


def _stamp(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_mtime_ns, seen.st_size
