"""The REST calls about the one kernel that this process stands for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import InternalError
from colab_bridge.kernels.proxy.process_events import in_thread

__all__ = ["DaemonKernel", "HeldKernel"]

#: Seconds that getting a machine and a kernel may take; the front end is served meanwhile.
ACQUIRE_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKernel:
    """The kernel that the daemon gave us.

    Attributes:
        id: The daemon's id of it.
        after: Number in its record after which messages concern us.
        at_work: It was found again, and is busy with what an earlier window started.
    """

    id: str
    after: int
    at_work: bool


class DaemonKernel:
    """Asks for a kernel, interrupts it, gives it up. Every call may start the daemon.

    Args:
        connect: Blocking; returns a client of the running daemon.
        request: Body of ``POST /v1/kernels``.
    """

    def __init__(self, connect: Callable[[], DaemonClient], request: Mapping[str, Any]) -> None:
        self._connect = connect
        self._request = dict(request)
        self._asking: asyncio.Future[HeldKernel] | None = None
        self.held: HeldKernel | None = None

    async def acquire(self) -> HeldKernel:
        """Get a kernel; what is under way goes on when this is cancelled, so that :meth:`delete` can undo it.

        Raises:
            ColabBridgeError: the daemon says why not.
        """
        self._asking = in_thread(lambda: _held(self._connect().post("/v1/kernels", self._request, timeout_s=ACQUIRE_S)))
        try:
            self.held = await asyncio.shield(self._asking)
        finally:
            if self._asking.done():
                self._asking = None
        return self.held

    async def interrupt(self) -> None:
        """Interrupt what the kernel executes; nothing happens without a kernel.

        Raises:
            ColabBridgeError: it could not be done.
        """
        if self.held is not None:
            path = f"/v1/kernels/{segment(self.held.id)}/interrupt"
            await in_thread(lambda: self._connect().post(path, {}))

    async def delete(self, *, restart: bool = False) -> None:
        """End the kernel, also one that is only being started.

        Args:
            restart: Tells the daemon that a new one will be asked for at once.

        Raises:
            ColabBridgeError: it could not be done.
        """
        held = self.held or (await self._asking if self._asking is not None else None)
        if held is not None:
            path = f"/v1/kernels/{segment(held.id)}"
            await in_thread(lambda: self._connect().delete(path, restart=True if restart else None))


def _held(answer: Any) -> HeldKernel:
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str) or not answer["id"]:
        raise InternalError("the daemon's answer names no kernel", hint="colab-bridge daemon logs")
    reattached = bool(answer.get("reattached", False))
    next_seq = answer.get("next_seq", 1)
    after = next_seq - 1 if reattached and isinstance(next_seq, int) else 0
    return HeldKernel(id=answer["id"], after=after, at_work=reattached and answer.get("state") == "busy")
