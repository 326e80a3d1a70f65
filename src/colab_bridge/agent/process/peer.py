"""What one service is given: its folder, its thread, a way to tell the daemon something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["ServicePeer"]

T = TypeVar("T")


class ServicePeer:
    """See :class:`~.service.Peer`.

    Args:
        name: Of the service; names its thread.
        folder: The service's own folder.
        loop: The process's loop.
        notify: Tells the daemon something.
        hints: Returns what the latest doorman knows.
        disk_room: Returns what may still be written.
        linked: Returns whether a daemon is connected.
    """

    def __init__(
        self,
        *,
        name: str,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[str, Mapping[str, Any] | None, bytes, bool], bool],
        hints: Callable[[], Mapping[str, str]],
        disk_room: Callable[[], int],
        linked: Callable[[], bool],
    ) -> None:
        self.folder = folder
        self.loop = loop
        self._name = name
        self._notify = notify
        self._hints = hints
        self._disk_room = disk_room
        self._linked = linked
        self._thread: ThreadPoolExecutor | None = None

    def notify(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", *, bulk: bool = False
    ) -> bool:
        """Tell the daemon something; False when it was dropped."""
        return self._notify(method, params, payload, bulk)

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function in the service's one worker thread."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        return await self.loop.run_in_executor(self._thread, function, *args)

    def hints(self) -> Mapping[str, str]:
        """Return what the latest doorman knows about the machine."""
        return self._hints()

    def linked(self) -> bool:
        """Return whether a daemon is connected now."""
        return self._linked()

    def disk_room(self) -> int:
        """Return how many bytes may still be written."""
        return self._disk_room()

    def close(self) -> None:
        """End the thread when it has done what it does."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
