"""The files service of the agent driven in this process: for a folder on this machine, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from colab_bridge.agent.process.service import CallFailure
from colab_bridge.agent.sync.service import FilesService
from colab_bridge.sync.remote import RemoteFailure

__all__ = ["InProcessCaller"]

T = TypeVar("T")


class InProcessCaller:
    """A :class:`~colab_bridge.sync.remote.Caller` and the peer of the service that it calls.

    Args:
        folder: For what the service keeps.
        cwd: Folder against which relative paths are meant.
        service: The service; a new one when omitted.

    Attributes:
        on_notify: Called with the service's notifications.
    """

    def __init__(self, folder: Path, cwd: Path, service: FilesService | None = None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.loop = asyncio.get_running_loop()
        self.service = service or FilesService()
        self.on_notify: Callable[[str, Mapping[str, Any]], None] | None = None
        self._cwd = cwd
        self._thread = anyio.CapacityLimiter(1)
        self.service.start(self)

    # -- as a caller -------------------------------------------------------------------------------------------------

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
        try:
            async with asyncio.timeout(deadline_s):
                reply = await self.service.call(verb, params or {}, payload, deadline_s)
        except CallFailure as failure:
            raise RemoteFailure(failure.code, failure.message, failure.data) from failure
        except TimeoutError as error:
            raise RemoteFailure("deadline", "no answer in time") from error
        return reply.result, reply.payload

    async def aclose(self) -> None:
        """End the service."""
        await self.service.stop()

    # -- as the service's peer ---------------------------------------------------------------------------------------

    def notify(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", *, bulk: bool = False
    ) -> bool:
        """See :class:`~colab_bridge.agent.process.service.Peer`."""
        if self.on_notify is not None:
            self.on_notify(method, params or {})
        return self.on_notify is not None

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """See :class:`~colab_bridge.agent.process.service.Peer`."""
        return await anyio.to_thread.run_sync(partial(function, *args), limiter=self._thread)

    def hints(self) -> Mapping[str, str]:
        """See :class:`~colab_bridge.agent.process.service.Peer`."""
        return {"cwd": str(self._cwd)}

    def disk_room(self) -> int:
        """See :class:`~colab_bridge.agent.process.service.Peer`."""
        return 1 << 40

    def linked(self) -> bool:
        """See :class:`~colab_bridge.agent.process.service.Peer`."""
        return True
