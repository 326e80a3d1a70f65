"""Stays connected to a kernel whatever becomes of its processes, and says what became of them.

A server restarts a kernel with the same id, file and ports, on a request or because its process died, and tells nobody
but its own WebSocket clients. So the process is watched: by its sockets, which close with it, and by the system's list
of processes, because a forked child may hold the sockets open. Where that list cannot be seen, the kernel's heartbeat
counts.

After each connection the kernel is asked something on the control channel until anything comes on iopub: only then is
it certain that nothing that it publishes is missed, and only then may requests go out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .connection import Connection, Unreachable, find_file, read_file
from .frames import fields
from .processes import KernelProcess, can_see_processes, find_process, is_running
from .sockets import KernelSockets

if TYPE_CHECKING:
    import zmq

__all__ = ["KernelLink", "LinkEvents", "own_header"]

log = logging.getLogger(__name__)

_CHANNELS = {"shell", "control", "iopub"}
#: Seconds that a connection file, or an answer of an invisible process, may take to come.
APPEAR_S = 10.0
#: Seconds after which a kernel without a process is called dead; a restart takes less to make another one.
DIED_S = 1.0
DIED_UNSEEN_S = 10.0
DIED_STUCK_S = 30.0
#: Seconds after which a connected kernel that says nothing counts as listened to: it may be unable to answer now.
QUIET_S = 2.0
_NUDGE_S = 0.25
_WATCH_S = 1.0
_BEAT_S = 3.0
_SILENT_BEATS = 4


class LinkEvents(Protocol):
    """Who is told; on the event loop."""

    def message(self, channel: str, parts: list[bytes]) -> None:
        """Take a message of the kernel, of the process that was announced last."""

    def joined(self, *, first: bool, other: bool) -> None:
        """Learn that the kernel can be talked to.

        Args:
            first: For the first time in this agent's life.
            other: By a process that is not the one before.
        """

    def cut(self) -> None:
        """Learn that the kernel cannot be talked to now; why is not known yet."""

    def died(self, text: str) -> None:
        """Learn that there is no process any more; another one may come. Told once."""

    def unreachable(self, text: str) -> None:
        """Learn that no way to the kernel exists; tried again after :meth:`KernelLink.want`."""

    def fenced(self) -> None:
        """Learn that the kernel is done with all that was sent on shell before :meth:`KernelLink.fence`."""


def own_header(msg_type: str, msg_id: str) -> bytes:
    """Return the header of a message that the agent makes itself."""
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": msg_id,
        "username": "colab-bridge",
        "date": datetime.now(timezone.utc).isoformat(),
        "version": "5.3",
    }
    return json.dumps(header).encode("ascii")


class KernelLink:
    """The way to one kernel.

    Attributes:
        path: Its connection file, once found.
        process: The process that was joined last, None where it cannot be seen.
        identity: Name under which the kernel knows this agent, and the next one.
        is_dead: The kernel's process has ended, and none has come in its place.

    Args:
        kernel: The server's id of it.
        loop: The event loop.
        context: Returns the ZMQ context.
        folders: Returns the folders in which its connection file may be.
        in_thread: Runs something that blocks.
        events: Who is told.
    """

    def __init__(
        self,
        kernel: str,
        *,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[], zmq.Context[Any]],
        folders: Callable[[], Sequence[Path]],
        in_thread: Callable[..., Awaitable[Any]],
        events: LinkEvents,
    ) -> None:
        self.path: Path | None = None
        self.process: KernelProcess | None = None
        self.identity = secrets.token_hex(16).encode("ascii")
        self.is_dead = False
        self._kernel = kernel
        self._loop = loop
        self._context = context
        self._folders = folders
        self._in_thread = in_thread
        self._events = events
        self._sockets: KernelSockets | None = None
        self._connection: Connection | None = None
        self._joined_once = False
        self._joined = False
        self._tag = secrets.token_hex(12)
        self._heard = False
        self._up_since = 0.0
        self._nudged_at = 0.0
        self._early: list[tuple[str, list[bytes]]] = []
        self._change = asyncio.Event()
        self._wanted = asyncio.Event()
        self._fence: set[str] | None = None
        self._fence_count = 0

    # -- what the kernel's owner does

    def want(self) -> None:
        """Try again to find a kernel that was not reachable or has died."""
        self._wanted.set()
        self._change.set()

    def is_whole(self) -> bool:
        """Return whether a message that is sent now goes to a process that is there.

        The end of a process is known here before it is told: what is sent in between would be lost.
        """
        if self._sockets is None or not self._sockets.is_whole():
            return False
        # Where processes can be seen, the end of one is known before its sockets tell of it.
        return self.process is None or is_running(self.process)

    def send(self, channel: str, parts: Sequence[bytes]) -> None:
        """Send a message; only between ``joined`` and ``cut``."""
        assert self._sockets is not None
        self._sockets.send(channel, parts)

    def fence(self) -> None:
        """Ask something on shell, whose answer says that the kernel is done with everything before."""
        self._fence = {"shell", "iopub"}
        self._fence_count += 1
        self._ask("shell", f"{self._tag}-fence-{self._fence_count}")

    async def run(self) -> None:
        """Stay connected until cancelled."""
        try:
            if self.is_dead:
                await self._wanted.wait()
            while True:
                self._wanted.clear()
                try:
                    await self._join()
                except Unreachable as error:
                    self._close()
                    self._events.unreachable(str(error))
                    await self._wanted.wait()
                    continue
                await self._stay()
                self._leave()
        finally:
            self._close()

    # -- joining

    async def _join(self) -> None:
        started = time.monotonic()
        while True:
            self._change.clear()
            waited = time.monotonic() - started
            connection = self._look_up()
            process = await self._find(connection)
            self._judge(connection, process, waited)
            if connection is not None:
                self._connect(connection)
                if self._is_listening():
                    break
            await self._wait_for_change(_pause(waited))
        self._finish_join(process)

    def _look_up(self) -> Connection | None:
        folders = [*self._folders(), *([self.path.parent] if self.path else [])]
        path = find_file(self._kernel, folders)
        if path is None:
            return None
        self.path = path
        try:
            return read_file(path)
        except Unreachable as error:
            # It may be in the middle of being written; if not, time decides.
            log.info("connection file unusable", extra={"kernel": self._kernel, "why": str(error)})
            return None

    async def _find(self, connection: Connection | None) -> KernelProcess | None:
        # A dead kernel may stay so for days: the list of processes is only worth its price when something answers.
        if connection is None or (self.is_dead and not self._is_up()):
            return None
        found = await self._in_thread(find_process, connection.path.name, self.process)
        return found if isinstance(found, KernelProcess) else None

    def _judge(self, connection: Connection | None, process: KernelProcess | None, waited: float) -> None:
        """Say that the kernel has died, or give up, when it is time."""
        known = self._joined_once or self.process is not None
        if self._sockets is not None and self._sockets.refused:
            raise Unreachable("the kernel does not accept the keys of its connection file")
        if known and not self.is_dead and self._has_died(process, waited):
            self.is_dead = True
            self._events.died("the kernel's process has ended")
        if connection is None and waited >= (DIED_S if known else APPEAR_S):
            raise Unreachable(f"no connection file of the kernel {self._kernel} can be read on the runtime")
        if connection is not None and process is None and not known and not self._is_up() and waited >= APPEAR_S:
            raise Unreachable("the kernel does not answer from the runtime: it runs on another machine, or has ended")

    def _has_died(self, process: KernelProcess | None, waited: float) -> bool:
        if process is None and self.process is not None:
            return waited >= DIED_S
        if process is None:
            return waited >= DIED_UNSEEN_S and not self._is_up()
        # Something is there that looks like the kernel; what never opens its sockets is a child that was left behind.
        return process != self.process and waited >= DIED_STUCK_S and not self._is_up()

    def _connect(self, connection: Connection) -> None:
        if self._connection is not None and self._connection.stamp != connection.stamp:
            self._close()
        if self._sockets is None:
            self._connection = connection
            self._heard, self._up_since, self._nudged_at = False, 0.0, 0.0
            self._sockets = KernelSockets(
                self._context(),
                connection,
                self.identity,
                self._loop,
                on_message=self._take,
                on_change=self._change.set,
            )

    def _is_up(self) -> bool:
        return self._sockets is not None and bool(self._sockets.up)

    def _is_listening(self) -> bool:
        """Return whether nothing that the kernel publishes can be missed from now on; ask it something if not."""
        now = time.monotonic()
        if self._sockets is None or not self._sockets.up:
            self._up_since = 0.0
            return False
        self._up_since = self._up_since or now
        whole = self._sockets.up >= _CHANNELS
        quiet = now - self._up_since >= QUIET_S
        if whole and (self._heard or quiet):
            return True
        if whole and now - self._nudged_at >= _NUDGE_S:
            self._nudged_at = now
            self._ask("control", f"{self._tag}-{secrets.token_hex(4)}")
        return False

    def _ask(self, channel: str, msg_id: str) -> None:
        if self._sockets is not None:
            self._sockets.send(channel, [own_header("kernel_info_request", msg_id), b"{}", b"{}", b"{}"])

    def _finish_join(self, process: KernelProcess | None) -> None:
        first, before = not self._joined_once, self.process
        other = self.is_dead or (before is not None and process is not None and before != process)
        if not first and before is None and process is None:
            other = True  # invisible processes: a connection that breaks is the only sign of a new one
        self.process, self.is_dead = process, False
        self._joined = self._joined_once = True
        self._events.joined(first=first, other=other)
        early, self._early = self._early, []
        for channel, parts in early:
            self._events.message(channel, parts)

    async def _wait_for_change(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._change.wait(), timeout_s)
        except asyncio.TimeoutError:
            return

    # -- staying

    async def _stay(self) -> None:
        """Return when the process has ended or the connection is gone."""
        watched = can_see_processes() and self.process is not None
        beat_at, silent = 0.0, 0
        while self._sockets is not None and self._sockets.up >= _CHANNELS:
            self._change.clear()
            # No event tells of the end of a process that is not our child, if a child of its own holds the sockets.
            await self._wait_for_change(_WATCH_S)
            if watched:
                if self.process is not None and not is_running(self.process):
                    return
            elif self._sockets is not None and time.monotonic() - beat_at >= _BEAT_S:
                beat_at = time.monotonic()
                silent = 0 if self._sockets.beat() else silent + 1
                if silent > _SILENT_BEATS:
                    return

    def _leave(self) -> None:
        if self._sockets is not None:
            self._sockets.take_rest()
        self._close()
        self._events.cut()

    def _close(self) -> None:
        self._joined = False
        self._fence = None
        self._early.clear()
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    # -- messages

    def _take(self, channel: str, parts: list[bytes]) -> None:
        if channel == "iopub" and not self._heard:
            self._heard = True
            self._change.set()
        if self._tag.encode() in parts[1]:
            self._take_own(channel, parts)
        elif channel == "iopub" and b'"iopub_welcome"' in parts[0]:
            return  # for whoever has subscribed: this agent
        elif self._joined:
            self._events.message(channel, parts)
        else:
            self._early.append((channel, parts))

    def _take_own(self, channel: str, parts: list[bytes]) -> None:
        """Look at an answer to a question of our own; nobody else sees it."""
        if self._fence is None or f"-fence-{self._fence_count}".encode() not in parts[1]:
            return
        if channel == "iopub" and fields(parts[3]).get("execution_state") != "idle":
            return
        self._fence.discard(channel)
        if not self._fence:
            self._fence = None
            self._events.fenced()


def _pause(waited: float) -> float:
    """Return for how long to wait before looking again: a restart is quick, and a dead kernel may stay so for days."""
    if waited < 3.0:
        return 0.05
    return 0.25 if waited < 15.0 else 2.0
