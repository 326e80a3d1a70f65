"""The plain kernel WebSocket as an upstream: any Jupyter server, nothing installed on it.

What it does beyond carrying messages: it acknowledges at once (see :mod:`.socket_ws`), notices a black hole within
seconds, comes back with the same ``session_id`` so that the server replays, keeps the server's output limit from
dropping output where that can be done, and says when output may have been lost (the table is in :mod:`.link_rules`).

What it does not do: it sends nothing twice, and it invents no message. A message that was written to a connection that
then died may or may not have arrived; :class:`~colab_bridge.kernels.fence.RequestFence` finds out.

Source: Jupyter Server, ``/api/kernels/<id>/channels``; Jupyter messaging protocol 5.4.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import anyio
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from colab_bridge.errors import ColabBridgeError, RuntimeLostError, UserError
from colab_bridge.kernels.control_pings import ControlPings, is_ping_echo
from colab_bridge.kernels.link_rules import LinkEnd, is_output, limit_notice, loss_reason, reconnect_delays
from colab_bridge.kernels.netloc import is_loopback
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.kernels.socket_ws import KernelSocket, open_channels
from colab_bridge.model.runtime import Endpoint
from colab_bridge.ports.upstream import LinkState, UpstreamEvents
from colab_bridge.wire.jupyter_ws import decode, encode
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["MAX_MESSAGE_BYTES", "WebSocketUpstream"]

log = logging.getLogger(__name__)

#: tornado's ``websocket_max_message_size``, which jupyter_server does not change. One byte more kills the connection.
MAX_MESSAGE_BYTES = 10 * 1024 * 1024
#: Framing of either kind: offsets, channel name, JSON keys; generous, because a refusal is better than a dead link.
FRAMING_BYTES = 512
#: What may wait for a link that is down.
MAX_QUEUED_BYTES = 256 * 1024 * 1024

#: Handshake limit once the server knows the kernel, and the most that a starting kernel may take (the server itself
#: waits 60 s for the kernel's first answer before it opens the socket).
OPEN_TIMEOUT_S = 10.0
FIRST_OPEN_TIMEOUT_S = 75.0
#: A connection that lasted this long was a good one: the next wait starts small again.
STABLE_S = 2.0
#: A frame this shortly before a break means that more may have been under way.
IN_FLIGHT_S = 0.25

#: Output without an execution (a thread of the user's) this recently counts as going on.
BACKGROUND_S = 60.0
#: Time for saying goodbye when a connection is given up.
CLOSING_S = 2.0
#: Bytes of an upload that must have been taken over during a ping's wait to count as a sign of life.
UPLOAD_STEP_BYTES = 64 * 1024

#: Seconds of a kernel's silence after which the server is asked whether it still has it, at first and at most.
FIRST_CHECK_S = 3.0
MAX_CHECK_S = 60.0

#: Control pings while busy. Five a second keep 20,000 small outputs complete on a server with default limits; where
#: there is no limit they only watch for drops.
LIMITED_PING_INTERVAL_S = 0.2
UNLIMITED_PING_INTERVAL_S = 1.0


class WebSocketUpstream:
    """A link to one remote kernel over the server's kernel WebSocket; implements ``ports.upstream.Upstream``.

    Args:
        get_endpoint: Returns the way in; asked anew before each connection.
        kernel_id: The server's id of the kernel.
        session_id: Our identity at the server; the same over reconnects, and of nobody else.
        backoff: Makes an iterator of seconds to wait between tries, started anew after a connection that held.
        ping_interval: Seconds between WebSocket pings.
        ping_timeout: Seconds without any sign of life after a ping until the link counts as dead.
    """

    reliable = False

    def __init__(
        self,
        get_endpoint: Callable[[], Awaitable[Endpoint]],
        kernel_id: str,
        session_id: str,
        *,
        backoff: Callable[[], Iterator[float]] = reconnect_delays,
        ping_interval: float = 5.0,
        ping_timeout: float = 8.0,
    ) -> None:
        self._get_endpoint = get_endpoint
        self._kernel_id = kernel_id
        self._session_id = session_id
        self._backoff = backoff
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._queue: deque[RawMessage] = deque()
        self._queued_bytes = 0
        self._writing = False
        self._wake_writer = asyncio.Event()
        self._busy = asyncio.Event()
        self._background_at = float("-inf")
        self._written_bytes = 0
        self._limit_told: str | None = None
        self._pings = ControlPings(session_id)
        self._went_silent = self._gone = False
        self._said_at = self._sent_at = self._checked_at = float("-inf")
        self._check_after_s = FIRST_CHECK_S
        self._told: tuple[LinkState, str] | None = None
        self._connection: KernelSocket | None = None
        self._on_purpose = False

    # -- the port --------------------------------------------------------------------------------------------

    def send(self, message: RawMessage) -> None:
        """Queue a message for the kernel; it goes out as soon as the link is up, in order, at most once.

        Raises:
            UserError: the message is larger than a server takes, or too much waits already.
        """
        size = _queue_size(message)
        if size > MAX_MESSAGE_BYTES:
            raise UserError(
                f"a message of {size / 2**20:.1f} MiB is too large: a Jupyter server takes at most 10 MiB at once",
                hint="write the data to a file in the project, and read that file in the code",
                code="CB-USER-TOOLARGE",
            )
        if self._queued_bytes + size > MAX_QUEUED_BYTES:
            raise UserError(
                "too much waits to be sent while the connection to the kernel is down",
                hint="wait until the connection is back, then send it again",
                code="CB-USER-BACKLOG",
            )
        if self._queue or self._writing or not self._send_now(message):
            self._queue.append(message)
            self._queued_bytes += size
            self._wake_writer.set()

    def _send_now(self, message: RawMessage) -> bool:
        if self._connection is None:
            return False
        data = encode(message, self._connection.subprotocol)
        if not self._connection.send_now(data):
            return False
        self._written_bytes += len(data)
        self._sent_at = asyncio.get_running_loop().time()
        return True

    def reconnect(self) -> None:
        """Make the connection anew, because the kernel was restarted on purpose and is another process now."""
        if self._connection is not None:
            self._on_purpose = True
            self._connection.transport.abort()

    def set_busy(self, busy: bool) -> None:
        """Say whether the kernel executes something: then it is pinged, and a cut may lose output."""
        if busy:
            self._busy.set()
        else:
            self._busy.clear()

    def recorded(self, origin: int) -> None:
        """Do nothing: a server keeps no journal."""

    async def run(self, events: UpstreamEvents) -> None:
        """Keep the link up until cancelled or until the kernel is gone."""
        self._tell(events, LinkState.CONNECTING, "")
        delays = self._backoff()
        last: _Ended | None = None
        open_timeout_s = OPEN_TIMEOUT_S
        while True:
            try:
                endpoint, connection, gap = await self._connect(last, open_timeout_s)
            except RuntimeLostError as error:
                self._tell(events, LinkState.GONE, error.message)
                return
            except ColabBridgeError as error:
                self._tell(events, LinkState.RECONNECTING, error.message)
                if last is None:
                    open_timeout_s = min(open_timeout_s * 2, FIRST_OPEN_TIMEOUT_S)
            else:
                open_timeout_s = OPEN_TIMEOUT_S
                last = await self._serve(endpoint, connection, events, gap)
                if last.end is LinkEnd.GONE:
                    self._tell(events, LinkState.GONE, last.text)
                    return
                if last.lasted_s >= STABLE_S or self._on_purpose:
                    delays = self._backoff()
                if self._on_purpose:
                    continue
            await anyio.sleep(next(delays))

    # -- between connections ---------------------------------------------------------------------------------

    async def _connect(self, last: _Ended | None, timeout_s: float) -> tuple[Endpoint, KernelSocket, str]:
        """Open the next connection, and find out why output may be missing since the last one."""
        others = last is not None and last.active and last.unlimited and await self._others_connected()
        endpoint, connection = await open_channels(self._get_endpoint, self._kernel_id, self._session_id, timeout_s)
        if last is None:
            return endpoint, connection, ""
        gap = loss_reason(
            end=last.end, active=last.active, unlimited=last.unlimited, in_flight=last.in_flight, others=others
        )
        return endpoint, connection, gap

    async def _others_connected(self) -> bool:
        """Ask whether the kernel has a connection: ours is down, so it is another's, or ours was not missed."""
        server = JupyterServer(await self._get_endpoint())
        try:
            kernel = await server.kernel(self._kernel_id)
        finally:
            await server.aclose()
        return kernel is not None and kernel.connections > 0

    def _tell(self, events: UpstreamEvents, state: LinkState, text: str) -> None:
        """Report the state, but not the same reason at each of many tries."""
        if self._told != (state, text) or state is LinkState.CONNECTED:
            self._told = (state, text)
            events.state(state, text)

    # -- one connection --------------------------------------------------------------------------------------

    async def _serve(self, endpoint: Endpoint, connection: KernelSocket, events: UpstreamEvents, gap: str) -> _Ended:
        """Carry messages until the connection ends, and say how it did."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._went_silent = self._on_purpose = False
        self._connection = connection
        self._pings.reconnected()
        try:
            if gap:
                events.gap(gap)
            self._tell(events, LinkState.CONNECTED, "")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, connection)
                tasks.start_soon(self._watch, endpoint, connection)
                interval_s = UNLIMITED_PING_INTERVAL_S if endpoint.unlimited_output else LIMITED_PING_INTERVAL_S
                tasks.start_soon(self._ping_kernel, connection, interval_s)
                end, text = await self._read(connection, events)
                ended_at = loop.time()
                tasks.cancel_scope.cancel()
                # Said at once: what is sent from now on goes over the next connection.
                if end is not LinkEnd.GONE:
                    self._tell(events, LinkState.RECONNECTING, text)
        finally:
            self._connection = None
            with anyio.move_on_after(CLOSING_S, shield=True):
                await connection.close()
        return _Ended(
            end=end,
            text=text,
            active=not self._on_purpose and (self._busy.is_set() or ended_at - self._background_at < BACKGROUND_S),
            unlimited=endpoint.unlimited_output,
            in_flight=not is_loopback(endpoint) or ended_at - connection.last_heard < IN_FLIGHT_S,
            lasted_s=ended_at - started,
        )

    async def _read(self, connection: KernelSocket, events: UpstreamEvents) -> tuple[LinkEnd, str]:
        """Hand on what comes until nothing more will; the callback is synchronous, so a slow one slows the server."""
        while True:
            try:
                data = await connection.recv()
            except ConnectionClosed as error:
                return self._how_it_ended(error)
            try:
                self._receive(decode(data, connection.subprotocol), events)
            except MessageError as error:
                log.warning("unreadable message from the server", extra={"kernel": self._kernel_id, "why": str(error)})
                events.gap("the server sent a message that cannot be read")
            del data  # may be many megabytes, and the next one may be hours away

    def _receive(self, message: RawMessage, events: UpstreamEvents) -> None:
        now = asyncio.get_running_loop().time()
        self._said_at, self._check_after_s = now, FIRST_CHECK_S
        if is_ping_echo(message):
            if reason := self._pings.echo(message):
                events.gap(reason)
            return
        if not self._busy.is_set() and is_output(message):
            self._background_at = now
        if (reason := limit_notice(message)) and message.parent_id != self._limit_told:
            self._limit_told = message.parent_id
            events.gap(reason)
        events.message(message)

    def _how_it_ended(self, error: ConnectionClosed) -> tuple[LinkEnd, str]:
        if self._on_purpose:
            return LinkEnd.BROKEN, "the kernel was restarted"
        if self._gone:
            return LinkEnd.GONE, "the kernel does not exist on the server any more"
        if self._went_silent:
            return LinkEnd.SILENT, f"nothing came from the server for {self._ping_timeout:g} s"
        if error.rcvd is not None:
            return LinkEnd.CLOSED, f"the server closed the connection (code {error.rcvd.code})"
        if error.sent is not None:
            return LinkEnd.FAILED, "the server broke the WebSocket protocol"
        return LinkEnd.BROKEN, "the connection to the server broke"

    async def _write(self, connection: KernelSocket) -> None:
        """Send what is queued. What was handed to an open connection never comes back into the queue."""
        while connection.state is State.OPEN:
            if not self._queue:
                self._wake_writer.clear()
                await self._wake_writer.wait()
                continue
            message = self._queue.popleft()
            self._queued_bytes -= _queue_size(message)
            data = encode(message, connection.subprotocol)
            self._written_bytes += len(data)
            self._sent_at = asyncio.get_running_loop().time()
            self._writing = True
            try:
                await connection.send(data)
            except ConnectionClosed:
                return
            finally:
                self._writing = False

    async def _watch(self, endpoint: Endpoint, connection: KernelSocket) -> None:
        """Cut a connection that shows no sign of life: no byte from the server, and none of ours taken over."""
        loop = asyncio.get_running_loop()
        while True:
            await anyio.sleep(self._ping_interval)
            asked, taken = loop.time(), self._taken_bytes(connection)
            with anyio.move_on_after(self._ping_timeout):
                await self._ping(connection)
                if await self._kernel_is_gone(endpoint):
                    self._gone = True
                    connection.transport.abort()
                    return
                continue
            if connection.last_heard >= asked or self._taken_bytes(connection) - taken > UPLOAD_STEP_BYTES:
                continue
            self._went_silent = True
            connection.transport.abort()
            return

    async def _kernel_is_gone(self, endpoint: Endpoint) -> bool:
        """Ask for the kernel when it owes us a word: a deleted kernel's WebSocket stays open and silent.

        Asked ever less often while a kernel is busy and silent, and never while it is idle, because questions count as
        activity on servers that stop themselves when nobody uses them.
        """
        now = asyncio.get_running_loop().time()
        if not self._busy.is_set() and self._sent_at <= self._said_at:
            return False
        if now - max(self._said_at, self._sent_at, self._checked_at) < self._check_after_s:
            return False
        self._checked_at = now
        self._check_after_s = min(self._check_after_s * 2, MAX_CHECK_S)
        server = JupyterServer(endpoint)
        try:
            return await server.kernel(self._kernel_id) is None
        except ColabBridgeError as error:
            log.info("kernel not checked", extra={"kernel": self._kernel_id, "why": error.message})
            return False
        finally:
            await server.aclose()

    def _taken_bytes(self, connection: KernelSocket) -> int:
        """Return how much the system has taken over from us so far; it grows while an upload makes progress."""
        return self._written_bytes - connection.unsent_bytes

    @staticmethod
    async def _ping(connection: KernelSocket) -> None:
        try:
            await (await connection.ping())
        except ConnectionClosed:
            # The reader reports it; this task ends with the connection.
            await anyio.sleep_forever()

    async def _ping_kernel(self, connection: KernelSocket, interval_s: float) -> None:
        """Send control pings while the kernel is busy; see :mod:`.control_pings`."""
        while True:
            await self._busy.wait()
            await anyio.sleep(interval_s)
            if not self._busy.is_set() or self._pings.saturated:
                continue
            try:
                await connection.send(encode(self._pings.make(), connection.subprotocol))
            except ConnectionClosed:
                return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How one connection ended.

    Attributes:
        end: The kind of end.
        text: Why, for people.
        active: Whether the kernel may have gone on publishing.
        unlimited: Whether its server is known not to limit output.
        in_flight: Whether bytes may have been under way.
        lasted_s: Seconds it was open.
    """

    end: LinkEnd
    text: str
    active: bool
    unlimited: bool
    in_flight: bool
    lasted_s: float


def _queue_size(message: RawMessage) -> int:
    """Return at least the bytes that the message takes on the wire, in either framing."""
    return message.size_bytes + FRAMING_BYTES + 16 * len(message.buffers)
