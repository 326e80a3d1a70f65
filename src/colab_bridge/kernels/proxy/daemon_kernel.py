"""The REST calls about the one kernel that this process stands for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import InternalError
from colab_bridge.kernels.proxy.process_events import in_thread

__all__ = ["DaemonKernel", "HeldKernel"]

#: Seconds that getting a machine and a kernel may take, with a wait of a day; the front end is served meanwhile.
ACQUIRE_S = 25 * 3600.0
SAID_S = 2.0


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


class _StoppedError(Exception):
    """Nobody wants the kernel any more that is being asked for."""


class DaemonKernel:
    """Asks for a kernel, interrupts it, gives it up. Every call may start the daemon.

    Args:
        connect: Blocking; returns a client of the running daemon.
        request: Body of ``POST /v1/kernels``.
    """

    def __init__(self, connect: Callable[[], DaemonClient], request: Mapping[str, Any]) -> None:
        self._connect = connect
        self._request = dict(request)
        self._asking: asyncio.Future[HeldKernel | None] | None = None
        self._stop = threading.Event()
        self.held: HeldKernel | None = None

    @property
    def project(self) -> str:
        """Root of the project."""
        return str(self._request.get("project", ""))

    def choose(self, options: Mapping[str, Any]) -> None:
        """Ask for a machine with these options from now on."""
        self._request["options"] = {**(self._request.get("options") or {}), **options}

    async def acquire(self, *, only_held: bool = False) -> HeldKernel | None:
        """Get a kernel; what is under way goes on when this is cancelled, so that :meth:`delete` can undo it.

        Args:
            only_held: Not if that takes a machine that costs; the first cell is time enough for that.

        Returns:
            The kernel; None when it would take such a machine, or when :meth:`stop_waiting` was called.

        Raises:
            ColabBridgeError: the daemon says why not.
        """
        self._stop.clear()
        body = {**self._request, "only_held": True} if only_held else self._request
        self._asking = in_thread(lambda: self._ask(body))
        try:
            self.held = await asyncio.shield(self._asking)
        finally:
            if self._asking.done():
                self._asking = None
        return self.held

    def _ask(self, body: Mapping[str, Any]) -> HeldKernel | None:
        client = self._connect()
        client.on_wait = self._raise_when_stopped
        try:
            answer = client.post("/v1/kernels", body, timeout_s=ACQUIRE_S)
        except _StoppedError:
            return None  # the daemon sees the connection close, and gives up the machine that is waited for
        return None if answer.get("deferred") is True else _held(answer)

    def _raise_when_stopped(self, _waited_s: float) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def stop_waiting(self) -> None:
        """Give up an :meth:`acquire` that is under way."""
        self._stop.set()

    async def said(self, after: int, within_s: float) -> list[tuple[int, str]]:
        """Return what is said while the machine is got: numbers, and lines for people.

        Args:
            after: Number of the last line that was read.
            within_s: Seconds for which we have waited; what was said before is not for us.

        Raises:
            ColabBridgeError: the daemon does not answer.
        """
        query = {"project": self.project, "after": after, "within_s": within_s}
        found = await in_thread(lambda: self._connect().get("/v1/starts", timeout_s=SAID_S, **query))
        lines = found.get("lines")
        return [
            (int(line.get("number") or 0), str(line.get("text")))
            for line in (lines if isinstance(lines, list) else [])
            if isinstance(line, dict)
        ]

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
