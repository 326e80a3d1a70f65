"""Has the runtime copy the older version of a large file while the new one is still being read here.

Nothing of the new version leaves this machine before a plan says so: the runtime is only asked to copy what it has.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from colab_bridge.agent.sync.transfer.patch import Copy
from colab_bridge.agent.sync.tree import File, entry_at
from colab_bridge.sync.remote import RemoteFailure, RemoteFiles

__all__ = ["HeadStart"]


class HeadStart:
    """What is copied ahead in one turn, at most one file.

    Args:
        remote: The runtime's side.
    """

    def __init__(self, remote: RemoteFiles) -> None:
        self._remote = remote
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._old = b""

    def foreseen(self, path: str, old: bytes, copy: Copy) -> None:
        """Take note that a file has changed and is likely to have a range of its older version still; any thread."""
        self._loop.call_soon_threadsafe(self._begin, path, old, copy)

    def _begin(self, path: str, old: bytes, copy: Copy) -> None:
        tree = self._remote.tree
        there = entry_at(tree, path) if tree is not None else None
        if self._task is None and isinstance(there, File) and there.digest == old:
            self._task = self._loop.create_task(self._ask(path, old, copy))

    async def _ask(self, path: str, old: bytes, copy: Copy) -> None:
        with suppress(RemoteFailure):  # then it is copied when it is needed
            await self._remote.copy_ahead(path, old, copy)
            self._old = old

    async def take(self, old: bytes) -> bool:
        """Return whether the runtime copies this version ahead; what it has copied is used by the next large file."""
        if self._task is not None:
            await self._task
        found = bool(old) and self._old == old
        if found:
            self._old = b""
        return found

    async def end(self) -> None:
        """Have removed what nobody took."""
        if self._task is not None:
            await self._task
            if self._old:
                with suppress(RemoteFailure):
                    await self._remote.end_ahead()
