"""Connections to an agent: what a way there must offer, and the way through the WebSocket of the doorman kernel."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import anyio
from websockets.exceptions import ConnectionClosed

from colab_bridge.errors import TransientError
from colab_bridge.kernels.agent_errors import AgentUnavailableError, one_line
from colab_bridge.kernels.socket_ws import KernelSocket
from colab_bridge.wire.jupyter_ws import decode, encode
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["DOORMAN_TYPE", "MOST_MESSAGE_BYTES", "Dialer", "DoormanSocket", "DoormanWire", "Mode", "Wire"]

Mode = Literal["tunnel", "control"]

DOORMAN_TYPE = "colab_bridge"
#: The doorman sends at most 256 KiB at once. What waits unread in the socket's queue is at most 16 of these.
MOST_MESSAGE_BYTES = 2 * 1024 * 1024
_CHANNELS: dict[Mode, str] = {"tunnel": "stdin", "control": "control"}
_CLOSING_S = 2.0
#: Seconds of silence after which the server is asked for a sign of life, and within which it has to give one.
_ASK_AFTER_S = 4.0


class Wire(Protocol):
    """One connection that carries bytes both ways.

    Attributes:
        why: After the end: what is known about its reason, one line; empty when nothing is.
    """

    why: str

    @property
    def has_room(self) -> bool:
        """Whether everything that was written has left this process, so that ``write_now`` may be called."""
        ...

    def write_now(self, data: bytes) -> None:
        """Send bytes from a callback; only when there is room, and while no ``write`` is under way."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes, in any pieces; empty at the end of the connection."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the transport can take more. A connection that has ended swallows them."""
        ...

    async def aclose(self) -> None:
        """End the connection; short."""
        ...


class Dialer(Protocol):
    """Makes connections to one agent, and starts it where it does not run.

    Attributes:
        mode: How the latest connection went.
        content_hash: Of the agent that it starts.
    """

    mode: Mode

    @property
    def content_hash(self) -> str:  # noqa: D102  # see the class
        ...

    async def dial(self) -> Wire:
        """Return a new connection to the agent, on which nothing has been said yet.

        Raises:
            AgentUnavailableError: no agent can be had on this runtime.
            ColabBridgeError: not this time.
        """
        ...

    def start_over(self) -> None:
        """Look whether the agent runs, and start it where it does not, before the next connection."""
        ...

    async def aclose(self) -> None:
        """Give back what the dialer keeps on the server, for good."""
        ...


class _DoormanDiedError(TransientError):
    """The doorman's process is gone; the server may have started another one under the same id."""


class DoormanSocket:
    """The WebSocket of a doorman kernel, read by one task at a time.

    Args:
        connection: Open; closed by :meth:`aclose`.
        session: Our id in message headers.
    """

    def __init__(self, connection: KernelSocket, session: str) -> None:
        self._connection = connection
        self._session = session
        self._count = 0

    async def execute(self, code: str, timeout_s: float) -> dict[str, Any] | None:
        """Run code silently, and return the JSON object that its variable ``colab_bridge_answer`` holds.

        Returns:
            None when the code leaves no such variable.

        Raises:
            AgentUnavailableError: the code failed, or the kernel answers as no ipykernel does.
            TransientError: no answer came in time, or the connection ended.
        """
        content = {
            "code": code,
            "silent": True,
            "store_history": False,
            "user_expressions": {"answer": "colab_bridge_answer"},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        msg_id = await self._send("shell", "execute_request", content)
        try:
            with anyio.fail_after(timeout_s):
                while True:
                    message = await self._next_if_alive()
                    if message.channel == "shell" and _parent_id(message) == msg_id:
                        return _answer(message)
        except TimeoutError:
            raise TransientError(
                f"the kernel that leads to the agent did not answer within {timeout_s:.0f} s",
                hint="look at the load of the runtime; it is tried again",
            ) from None

    async def knock(self, mode: Mode, timeout_s: float) -> bool:
        """Ask whether a doorman listens on the channel of this mode."""
        await self.send(mode, {"op": "knock"}, b"")
        with anyio.move_on_after(timeout_s):
            while True:
                message = await self.next()
                if is_from_doorman(message, mode) and fields_of(message).get("op") == "here":
                    return True
        return False

    async def send(self, mode: Mode, content: Mapping[str, Any], data: bytes) -> None:
        """Send something to the doorman.

        Raises:
            TransientError: the connection has ended.
        """
        await self._send(_CHANNELS[mode], DOORMAN_TYPE, content, data)

    async def next(self) -> RawMessage:
        """Return the next message of any kind.

        Raises:
            TransientError: the connection has ended, or the kernel has died.
        """
        try:
            data = await self._connection.recv()
            message = decode(data, self._connection.subprotocol)
            if message.channel == "iopub" and _is_death(message):
                raise _DoormanDiedError("the kernel that leads to the agent has died; another one is made")
        except ConnectionClosed as error:
            raise TransientError(_how_it_ended(error)) from None
        except MessageError as error:
            raise TransientError(f"the server sent a message that cannot be read: {error}") from None
        return message

    async def _next_if_alive(self) -> RawMessage:
        """Return the next message, however long it takes as long as the server shows signs of life."""
        while True:
            with anyio.move_on_after(_ASK_AFTER_S):
                return await self.next()
            asked = asyncio.get_running_loop().time()
            with anyio.move_on_after(_ASK_AFTER_S):
                await self._ping()
                continue
            if self._connection.last_heard < asked:
                raise TransientError("nothing came from the server while the agent was brought up")

    async def _ping(self) -> None:
        try:
            await (await self._connection.ping())
        except ConnectionClosed as error:
            raise TransientError(_how_it_ended(error)) from None

    async def aclose(self) -> None:
        """End the connection."""
        with anyio.move_on_after(_CLOSING_S, shield=True):
            await self._connection.close()

    @property
    def has_room(self) -> bool:
        """Whether :meth:`send_now` may be called."""
        return self._connection.has_room

    def send_now(self, mode: Mode, content: Mapping[str, Any], data: bytes) -> None:
        """Send something to the doorman from a callback; only when there is room, and no ``send`` is under way."""
        _msg_id, frame = self._frame(_CHANNELS[mode], DOORMAN_TYPE, content, data)
        self._connection.write_now(frame)

    async def _send(self, channel: str, msg_type: str, content: Mapping[str, Any], data: bytes = b"") -> str:
        msg_id, frame = self._frame(channel, msg_type, content, data)
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise TransientError(_how_it_ended(error)) from None
        return msg_id

    def _frame(self, channel: str, msg_type: str, content: Mapping[str, Any], data: bytes) -> tuple[str, str | bytes]:
        self._count += 1
        msg_id = f"{self._session}_{self._count}"
        buffers = (data,) if data else ()
        message = RawMessage.build(channel, msg_type, content, msg_id=msg_id, session=self._session, buffers=buffers)
        return msg_id, encode(message, self._connection.subprotocol)


class DoormanWire:
    """One connection to the agent, through the doorman.

    Args:
        socket: The doorman's.
        mode: The channel to use.
        ended: Is called when the doorman or its kernel says that there is no agent behind it.
    """

    def __init__(self, socket: DoormanSocket, mode: Mode, ended: Callable[[], None]) -> None:
        self.why = ""
        self._socket = socket
        self._mode: Mode = mode
        self._ended = ended
        self._begun = False

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end."""
        while True:
            try:
                message = await self._socket.next()
            except TransientError as error:
                self.why = error.message
                if isinstance(error, _DoormanDiedError):
                    self._ended()
                return b""
            if not is_from_doorman(message, self._mode):
                continue
            if fields_of(message).get("op") == "closed":
                self.why = one_line(fields_of(message).get("why")) or "the agent hung up"
                self._ended()
                return b""
            data = b"".join(message.buffers)
            if data:
                return data

    @property
    def has_room(self) -> bool:
        """Whether everything that was written has left this process."""
        return self._begun and self._socket.has_room

    def write_now(self, data: bytes) -> None:
        """Send bytes from a callback."""
        self._socket.send_now(self._mode, {}, data)

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the WebSocket can take more."""
        content = {} if self._begun else {"op": "open"}
        self._begun = True
        try:
            await self._socket.send(self._mode, content, data)
        except TransientError as error:
            self.why = self.why or error.message

    async def aclose(self) -> None:
        """End the connection."""
        await self._socket.aclose()


def is_from_doorman(message: RawMessage, mode: Mode) -> bool:
    """Return whether a message came from the doorman's thread."""
    try:
        return message.channel == _CHANNELS[mode] and message.msg_type == DOORMAN_TYPE
    except MessageError:
        return False


def fields_of(message: RawMessage) -> dict[str, Any]:
    """Return the content; empty when it cannot be read."""
    try:
        return message.content_fields()
    except MessageError:
        return {}


def _parent_id(message: RawMessage) -> str:
    try:
        return message.parent_id
    except MessageError:
        return ""


def _is_death(message: RawMessage) -> bool:
    return message.msg_type == "status" and fields_of(message).get("execution_state") in ("restarting", "dead")


def _answer(message: RawMessage) -> dict[str, Any] | None:
    content = fields_of(message)
    if content.get("status") != "ok":
        what = one_line(f"{content.get('ename')}: {content.get('evalue')}")
        raise AgentUnavailableError(f"the kernel that should lead to the agent fails: {what}")
    try:
        entry = content["user_expressions"]["answer"]
        if entry.get("status") == "error":
            return None
        value = json.loads(ast.literal_eval(entry["data"]["text/plain"]))
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, dict):
        raise AgentUnavailableError("the server's Python kernel does not answer as ipykernel does")
    return value


def _how_it_ended(error: ConnectionClosed) -> str:
    if error.rcvd is not None:
        return f"the server closed the connection to the agent (code {error.rcvd.code})"
    if error.sent is not None:
        return "the server sent something that is too long or no WebSocket message"
    return "the connection to the server broke"
