"""Single files and folders to and from a runtime: streamed, resumable, verified, with progress."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import anyio.to_thread

from colab_bridge.agent.sync.disk.root import STATE_FOLDER
from colab_bridge.agent.sync.names import check_name, shown
from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.sync.remote import Caller, RemoteFailure

__all__ = ["FileMover"]

_PIECE = 1 << 20
_AT_ONCE = 4
_MOST_FILES = 100_000
_CALL_S = 60.0
# The built-in list of the sync leaves such names out, so half a file never travels on.
_PART = ".tmp.0-colab-bridge"

Tell = Callable[[str, int, int], None]
"""Told (path, bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMover:
    """Moves files between this machine and one runtime.

    Attributes:
        caller: The way to the files service.
        base: Folder on the runtime against which relative paths are meant; empty for the service's own.
        tell: Told how a file gets on.
    """

    caller: Caller
    base: str = ""
    tell: Tell | None = None

    async def _ask(
        self, verb: str, path: str, payload: bytes = b"", *, bulk: bool = False, **params: Any
    ) -> tuple[Mapping[str, Any], bytes]:
        try:
            return await self.caller.call(
                f"files.{verb}",
                {"path": path, "base": self.base, **params},
                payload,
                deadline_s=_CALL_S,
                bulk=bulk,
            )
        except RemoteFailure as error:
            raise _as_error(error) from error

    # -- looking -----------------------------------------------------------------------------------------------------

    async def entries(self, path: str) -> dict[str, Any]:
        """Return what is at a path: a file's row, or the rows of a folder.

        Raises:
            UserError: there is nothing.
        """
        result, payload = await self._ask("list", path or ".")
        rows = json.loads(payload)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TransientError("the runtime's answer makes no sense", hint="try again")
        entries = [
            {
                "name": shown(str(row.get("name", ""))),
                "kind": str(row.get("kind", ""))[:10],
                "size": _number(row.get("size")),
                "mtime": _number(row.get("mtime")),
            }
            for row in rows
        ]
        return {"path": shown(str(result.get("path", ""))), "folder": result.get("folder") is True, "entries": entries}

    async def remove(self, path: str, *, recursive: bool) -> None:
        """Remove a file, or a folder; one with content only if asked for.

        Raises:
            UserError: there is nothing, or a folder that is not empty.
        """
        await self._ask("remove", path, recursive=recursive)

    # -- up ----------------------------------------------------------------------------------------------------------

    async def upload(self, source: Path, target: str) -> list[str]:
        """Copy a file, or a folder with everything in it, to the runtime.

        Args:
            source: Absolute path here.
            target: Path there; for a folder that exists already, the source goes into it.

        Returns:
            Paths there, relative to the target for a folder.

        Raises:
            UserError: the source is missing, or something is in the way.
            TransientError: the link failed; a second try goes on where this one ended.
        """
        if not source.exists():
            raise UserError(f"there is no {source}", hint="Give a file or a folder that exists.")
        target = await self._target_there(source.name, target)
        if source.is_dir():
            return await self._upload_folder(source, target)
        await self._upload_file(source, target)
        return [target]

    async def _target_there(self, name: str, target: str) -> str:
        if target in {"", "."} or target.endswith("/"):
            return posixpath.join(target, name)
        try:
            result, _ = await self._ask("stat", target)
        except UserError:
            return target
        return posixpath.join(target, name) if result.get("kind") == "folder" else target

    async def _upload_folder(self, source: Path, target: str) -> list[str]:
        files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.is_symlink()]
        await self._ask("mkdir", target)
        done: list[str] = []
        for path in files[:_MOST_FILES]:
            there = posixpath.join(target, path.relative_to(source).as_posix())
            await self._upload_file(path, there)
            done.append(there)
        return done

    async def _upload_file(self, source: Path, target: str) -> None:
        size = source.stat().st_size
        digest = await _in_thread(_digest_of, source, -1)
        begun, _ = await self._ask("write", target, offset=0)
        have = min(_number(begun.get("have")), size)
        # Only whole pieces are trusted; the last one of a cut may have holes in front of it.
        have -= have % (_PIECE * 2 * _AT_ONCE)
        if have and not await self._same_start(source, target, have):
            have = 0
        if not have:
            await self._ask("write", target, offset=0, restart=True)
        done = have

        async def send(offset: int) -> None:
            nonlocal done
            data = await _in_thread(_piece_of, source, offset)
            await self._ask("write", target, data, offset=offset, bulk=True)
            done += len(data)
            self._say(target, done, size)

        await _in_order([partial(send, offset) for offset in range(have, size, _PIECE)])
        await self._ask("commit", target, size=size, digest=digest)

    async def _same_start(self, source: Path, target: str, have: int) -> bool:
        answer, _ = await self._ask("digest", target + _PART, length=have)
        return bool(answer.get("digest") == await _in_thread(_digest_of, source, have))

    # -- down --------------------------------------------------------------------------------------------------------

    async def download(self, source: str, target: Path) -> list[str]:
        """Copy a file, or a folder with everything in it, from the runtime.

        Args:
            source: Path there.
            target: Absolute path here; for a folder that exists already, the source goes into it, of ``.`` its content.

        Returns:
            Paths here.

        Raises:
            UserError: the source is missing, a name is not possible here, or something is in the way.
            TransientError: the link failed; a second try goes on where this one ended.
        """
        listing = await self.entries(source)
        name = posixpath.basename(posixpath.normpath(source))
        if target.is_dir() and name != ".":
            if check_name(name) is not None:
                raise UserError(f"{shown(name)!r} is no possible name here", hint="Name the file here too.")
            target = target / name
        if not listing["folder"]:
            await self._download_file(source, target)
            return [str(target)]
        return await self._download_folder(source, target)

    async def _download_folder(self, source: str, target: Path) -> list[str]:
        done: list[str] = []
        waiting = [(source, target)]
        while waiting and len(done) < _MOST_FILES:
            there, here = waiting.pop()
            here.mkdir(parents=True, exist_ok=True)
            for row in (await self.entries(there))["entries"]:
                # The runtime names the files: nothing that leads out of the folder, and no links.
                if check_name(row["name"]) is not None or row["kind"] == "link" or row["name"] == STATE_FOLDER:
                    continue
                path = (posixpath.join(there, row["name"]), here / row["name"])
                if row["kind"] == "folder":
                    waiting.append(path)
                else:
                    await self._download_file(*path)
                    done.append(str(path[1]))
        return done

    async def _download_file(self, source: str, target: Path) -> None:
        if target.is_dir() or target.is_symlink():
            raise UserError(f"{target} is in the way", hint="Name another file.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + _PART)
        facts, _ = await self._ask("digest", source)
        size, digest = _number(facts.get("size")), str(facts.get("digest", ""))
        have = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
        have -= have % _PIECE
        if have > size or (have and not await self._same_start_there(source, part, have)):
            have = 0
        for offset in range(have, size, _PIECE * _AT_ONCE):
            offsets = range(offset, min(size, offset + _PIECE * _AT_ONCE), _PIECE)
            calls = [self._ask("read", source, offset=o, length=_PIECE, bulk=True) for o in offsets]
            pieces = [payload for _, payload in await asyncio.gather(*calls)]
            await _in_thread(_write_at, part, offset, pieces)
            self._say(source, min(size, offset + _PIECE * _AT_ONCE), size)
        await _in_thread(_finish, part, target, size, digest)

    async def _same_start_there(self, source: str, part: Path, have: int) -> bool:
        answer, _ = await self._ask("digest", source, length=have)
        return bool(answer.get("digest") == await _in_thread(_digest_of, part, have))

    def _say(self, path: str, done: int, size: int) -> None:
        if self.tell is not None:
            self.tell(path, done, size)


def _digest_of(path: Path, length: int) -> str:
    state = blake2b(digest_size=32)
    left = length
    with path.open("rb") as source:
        while left != 0 and (piece := source.read(_PIECE if left < 0 else min(left, _PIECE))):
            state.update(piece)
            left -= len(piece) if left > 0 else 0
    return state.hexdigest()


def _piece_of(path: Path, offset: int) -> bytes:
    with path.open("rb") as source:
        source.seek(offset)
        return source.read(_PIECE)


def _write_at(part: Path, offset: int, pieces: Iterable[bytes]) -> None:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(part, flags, 0o600), "r+b") as target:
        target.seek(offset)
        for piece in pieces:
            target.write(piece)


def _finish(part: Path, target: Path, size: int, digest: str) -> None:
    """Verify a file that has come down and let it take its place."""
    if size == 0:
        _write_at(part, 0, [])
    with part.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
    if _digest_of(part, -1) != digest:
        part.unlink(missing_ok=True)
        raise ConflictError(f"{target.name} changed on the runtime while it was copied", hint="Try again.")
    part.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o644)
    os.replace(part, target)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(partial(function, *args))


async def _in_order(calls: list[Callable[[], Any]]) -> None:
    """Run calls in their order, a few at a time; the first failure ends all."""
    for start in range(0, len(calls), _AT_ONCE):
        await asyncio.gather(*(call() for call in calls[start : start + _AT_ONCE]))


def _number(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 2**62 else 0


def _as_error(error: RemoteFailure) -> ColabBridgeError:
    text = shown(error.text)
    if error.code in {"missing", "exists", "not-a-file", "not-empty", "refused", "bad-request"}:
        hint = "Add --recursive to remove it with everything in it." if error.code == "not-empty" else "colab-bridge ls"
        return UserError(text, hint=hint)
    if error.code == "disk":
        return UserError(f"the runtime's disk: {text}", hint="colab-bridge ls")
    return TransientError(f"the runtime's files cannot be reached: {text}", hint="Try again; see: colab-bridge status")
