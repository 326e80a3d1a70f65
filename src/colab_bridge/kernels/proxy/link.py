"""The WebSocket to the daemon: one after the other, with a cursor, so that nothing is missed or seen twice.

Source: docs/design/daemon-api.md, "The channels WebSocket".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from colab_bridge.client.address import Address
from colab_bridge.client.daemon import segment
from colab_bridge.errors import ColabBridgeError, RuntimeLostError
from colab_bridge.kernels.prompt_receive import PromptConnection
from colab_bridge.kernels.prompt_send import send_promptly
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.process_events import say
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["ChannelLink", "LinkEvents"]

_SEQ = struct.Struct("<Q")
_SEQ_AND_LENGTH = struct.Struct("<QQ")
# Messages that overtook others and have not come again; somebody who types makes three for each key.
_MOST_EARLY = 1000
_CLOSE_NO_KERNEL = 4404
_CLOSE_KERNEL_GONE = 4410
_CLOSE_DAEMON_STOPS = 1012
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 2.0
# How often an orderly stopped daemon is looked for; one small file is read.
_LOOK_S = 1.0
# On loopback a dead peer is noticed at once; pings only find a daemon that hangs, and a laptop's sleep must not count.
_PING_S = 30.0
_PING_TIMEOUT_S = 120.0


class LinkEvents(Protocol):
    """What the link reports, from the event loop."""

    def received(self, message: RawMessage) -> None:
        """Take one message of the kernel."""

    def state_changed(self, state: str, text: str) -> None:
        """Take the kernel's state as the daemon sees it."""

    def lost(self, text: str) -> None:
        """Take the daemon's word that output may be missing from here on."""

    def gap(self, first: int, last: int) -> None:
        """Take the daemon's word that it does not have these numbers any more."""

    def link_up(self) -> None:
        """Messages flow."""

    def link_down(self) -> None:
        """The connection is lost and will be made again."""


class ChannelLink:
    """Keeps a connection to the channels of one kernel.

    Args:
        kernel_id: The daemon's id.
        after: Number in the record after which messages are wanted.
        reach: Returns the daemon's address; starts a daemon when none runs and its argument is true.
        outbox: What must be sent again after each connect.
        events: Receives everything.
    """

    def __init__(
        self,
        kernel_id: str,
        after: int,
        reach: Callable[[bool], Awaitable[Address]],
        outbox: Outbox,
        events: LinkEvents,
    ) -> None:
        self._kernel_id = kernel_id
        self._after = after
        self._reach = reach
        self._outbox = outbox
        self._events = events
        self._writer: _Writer | None = None
        self._wanted = asyncio.Event()
        self._stopped_on_purpose = False
        self._delay_s = 0.0
        self._batched = False
        self._begun: list[bytes] = []  # of a message that goes on in the next frames
        self._missing = 0
        self._early: OrderedDict[str, None] = OrderedDict()

    def send(self, message: RawMessage) -> None:
        """Send a message that the outbox holds already; without a connection the outbox alone keeps it."""
        self._wanted.set()
        if self._writer is not None:
            self._writer.send(message)

    async def run(self) -> None:
        """Relay until cancelled.

        Raises:
            RuntimeLostError: the kernel does not exist any more.
        """
        while True:
            try:
                # A daemon that the user has stopped is started again only when somebody needs it.
                address = await self._reach(not self._stopped_on_purpose or self._needed())
                await self._converse(address)
                self._events.link_down()
            except (ColabBridgeError, OSError, WebSocketException) as error:
                self._fail_if_gone(error)
            await self._pause()

    def _needed(self) -> bool:
        return self._wanted.is_set() or self._outbox.executing is not None

    async def _pause(self) -> None:
        delay, self._delay_s = self._delay_s, min(max(self._delay_s * 2, _FIRST_DELAY_S), _LONGEST_DELAY_S)
        if self._stopped_on_purpose:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _LOOK_S)
        else:
            await asyncio.sleep(delay)

    def _fail_if_gone(self, error: Exception) -> None:
        if isinstance(error, InvalidStatus) and error.response.status_code in (404, 410):
            raise _gone("") from error
        if isinstance(error, RuntimeLostError):
            raise error

    async def _converse(self, address: Address) -> None:
        url = f"ws://{address.host}/v1/kernels/{segment(self._kernel_id)}/channels?after={self._after}&batch=1"
        async with connect(
            url,
            additional_headers={"Authorization": f"Bearer {address.token}"},
            compression=None,
            max_size=None,
            proxy=None,
            open_timeout=10,
            close_timeout=0.5,
            ping_interval=_PING_S,
            ping_timeout=_PING_TIMEOUT_S,
            create_connection=functools.partial(PromptConnection, self._take),  # type: ignore[arg-type]  # any factory
        ) as websocket:
            self._writer = writer = _Writer(websocket)
            for message in self._outbox.unanswered():
                writer.send(message)
            writing = asyncio.create_task(writer.run())
            try:
                await websocket.wait_closed()
            finally:
                self._writer = None
                writing.cancel()
        self._judge_close(websocket.close_code, websocket.close_reason or "")

    def _judge_close(self, code: int | None, reason: str) -> None:
        if code in (_CLOSE_NO_KERNEL, _CLOSE_KERNEL_GONE):
            raise _gone(reason)
        self._stopped_on_purpose = code == _CLOSE_DAEMON_STOPS
        self._wanted.clear()

    def _take(self, frame: str | bytes) -> None:
        try:
            if isinstance(frame, str):
                self._take_text(json.loads(frame))
            else:
                self._take_messages(frame)
        except (ValueError, RecursionError) as error:
            say(f"an unreadable message of the daemon was dropped: {error}")

    def _take_messages(self, frame: bytes) -> None:
        if not self._batched:
            (seq,) = _SEQ.unpack_from(_enough(memoryview(frame), 0, _SEQ.size))
            self._take_message(seq, memoryview(frame)[_SEQ.size :])
        elif self._begun:
            self._go_on(frame)
        else:
            self._take_batch(frame)

    def _go_on(self, part: bytes) -> None:
        """Take the next part of a large message."""
        self._begun.append(part)
        self._missing -= len(part)
        if self._missing <= 0:
            whole = b"".join(self._begun)
            self._begun.clear()
            self._take_batch(whole)

    def _take_batch(self, frame: bytes) -> None:
        """Take whole messages; the last one may go on in the next frames."""
        view, position = memoryview(frame), 0
        while position < len(view):
            seq, length = _SEQ_AND_LENGTH.unpack_from(_enough(view, position, _SEQ_AND_LENGTH.size))
            begin = position + _SEQ_AND_LENGTH.size
            if begin + length > len(view):
                self._begun.append(frame[position:])
                self._missing = begin + length - len(view)
                return
            position = begin + length
            self._take_message(seq, view[begin:position])

    def _take_message(self, seq: int, data: memoryview) -> None:
        if seq <= self._after:
            return
        self._after = seq
        try:
            message = decode_v1(data)
            if not self._early or message.msg_id not in self._early:
                self._events.received(message)
        except (ValueError, RecursionError) as error:
            say(f"an unreadable message of the kernel was dropped: {error}")

    def _take_text(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise MessageError("not an object")
        kind, text = value.get("type"), str(value.get("text", ""))
        if kind == "attached":
            self._attached(value)
        elif kind == "state":
            self._events.state_changed(str(value.get("state")), text)
        elif kind == "lost":
            self._events.lost(text)
        elif kind == "gap":
            self._events.gap(_number(value, "first"), _number(value, "last"))
        elif kind == "early":
            self._take_early(str(value.get("message", "")))

    def _take_early(self, text: str) -> None:
        """Take a message that overtakes others; it comes again in its place, and then it is known."""
        message = decode_v1(base64.b64decode(text))
        self._early[message.msg_id] = None
        if len(self._early) > _MOST_EARLY:
            self._early.popitem(last=False)
        self._events.received(message)

    def _attached(self, value: dict[str, Any]) -> None:
        self._delay_s = 0.0
        self._stopped_on_purpose = False
        self._batched = value.get("batch") is True
        self._begun.clear()
        next_seq = _number(value, "next_seq")
        if next_seq <= self._after:
            # The record is shorter than what we have seen of it: the machine itself crashed, not only the daemon.
            self._after = next_seq - 1
            self._events.lost("the daemon's record ended earlier than what was shown")
        self._events.link_up()
        self._events.state_changed(str(value.get("state")), "")


class _Writer:
    """Sends in order: at once where the connection keeps up, else from a task.

    Whatever cannot be written stays in the outbox and goes through the next connection.
    """

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._writing = False

    def send(self, message: RawMessage) -> None:
        frame = encode_v1(message)
        if self._writing or not self._waiting.empty() or not send_promptly(self._websocket, frame):
            self._waiting.put_nowait(frame)

    async def run(self) -> None:
        """Task root: send what could not be sent at once, until the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await self._waiting.get()
                self._writing = True
                await self._websocket.send(frame)
                self._writing = False


def _enough(view: memoryview, position: int, size: int) -> memoryview:
    if position + size > len(view):
        raise MessageError("shorter than it claims")
    return view[position : position + size]


def _number(value: dict[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise MessageError(f"'{name}' is no number")
    return number


def _gone(reason: str) -> RuntimeLostError:
    return RuntimeLostError(
        reason or "the kernel does not exist any more", hint="restart the kernel in the front end", code="CB-LOST-040"
    )
