"""The ZMQ sockets of one kernel process, driven by the agent's event loop.

ZMQ offers one descriptor a socket, which becomes readable when something *may* have changed, once: so everything is
taken from the socket until it says that there is nothing, and looked at again after each sending, because sending may
have swallowed the sign.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .connection import Connection, Unreachable
from .frames import DELIMITER, FrameFault, Signer, split_zmq

if TYPE_CHECKING:
    import zmq

__all__ = ["KernelSockets", "load_zmq"]

log = logging.getLogger(__name__)

# Messages taken from one socket before others on the loop get their turn.
_TURN_MESSAGES = 100
_TURN_BYTES = 4 * 1024 * 1024
# What is taken at most from a socket whose kernel has ended: a child of it may still hold the socket, and print.
_LAST_MESSAGES = 50_000
_MONITOR_EVENT = struct.Struct("=HI")
_WATCHED = ("shell", "control", "iopub")
_MESSAGES = ("iopub", "shell", "control", "stdin")


def load_zmq() -> ModuleType:
    """Return pyzmq.

    Raises:
        Unreachable: there is none, or it does not work here.
    """
    try:
        import zmq
    except ImportError as error:
        raise Unreachable("the agent's Python has no pyzmq, so that it cannot talk to kernels") from error
    return zmq


class KernelSockets:
    """Connected to one process of one kernel; made anew when that has ended.

    Attributes:
        up: Channels (of shell, control, iopub) that are connected now.
        refused: The kernel does not accept our keys.

    Args:
        context: The process's ZMQ context.
        connection: Where the kernel is.
        identity: Name under which the kernel knows us; what it says to this name finds us again.
        loop: The event loop.
        on_message: Called with channel and parts of each genuine message.
        on_change: Called when ``up`` or ``refused`` has changed.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        connection: Connection,
        identity: bytes,
        loop: asyncio.AbstractEventLoop,
        *,
        on_message: Callable[[str, list[bytes]], None],
        on_change: Callable[[], None],
    ) -> None:
        self.up: set[str] = set()
        self.refused = False
        self._zmq = load_zmq()
        # As plain numbers: combining the library's flags costs more than a small message.
        self._events, self._pollin = int(self._zmq.EVENTS), int(self._zmq.POLLIN)
        self._no_wait = int(self._zmq.DONTWAIT)
        self._loop = loop
        self._signer = Signer(connection.key, connection.digest)
        self._on_message = on_message
        self._on_change = on_change
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        self._monitors: dict[str, zmq.Socket[Any]] = {}
        self._again: set[str] = set()
        self._closed = False
        self._beats_owed = 0
        try:
            for channel in ("iopub", "shell", "control", "stdin", "hb"):
                self._connect(context, connection, channel, identity)
        except self._zmq.ZMQError as error:
            self.close()
            raise Unreachable(f"the kernel's sockets cannot be used: {error.strerror}") from error

    def is_whole(self) -> bool:
        """Look whether the kernel's end of the sockets is still there, now."""
        for channel in _WATCHED:
            self._read_monitor(channel)
        return len(self.up) == len(_WATCHED)

    def send(self, channel: str, parts: Sequence[bytes]) -> None:
        """Sign and send a message; it waits inside ZMQ until the kernel takes it."""
        frames = [DELIMITER, self._signer.sign(parts[:4]), *parts]
        self._sockets[channel].send_multipart(frames, self._no_wait)
        self._look_soon(channel)

    def beat(self) -> bool:
        """Ask the heart of the kernel for a beat; return whether the one that was asked for before has come."""
        heart = self._sockets["hb"]
        answered = self._beats_owed == 0
        try:
            while True:
                heart.recv_multipart(self._zmq.DONTWAIT)
                answered, self._beats_owed = True, 0
        except self._zmq.Again:
            self._beats_owed += 1
        heart.send_multipart([b"", b"ping"], self._zmq.DONTWAIT)
        return answered

    def take_rest(self) -> None:
        """Take what has arrived, now: the kernel has ended, and nothing more comes."""
        for channel in _MESSAGES:
            for _ in range(_LAST_MESSAGES):
                if self._take_one(channel) < 0:
                    break

    def close(self) -> None:
        """Give everything back; what was not sent is dropped. A second call does nothing."""
        self._closed = True
        for channel, monitor in self._monitors.items():
            self._loop.remove_reader(monitor.FD)
            with contextlib.suppress(self._zmq.ZMQError):
                self._sockets[channel].disable_monitor()
            monitor.close(linger=0)
        for socket in self._sockets.values():
            self._loop.remove_reader(socket.FD)
            socket.close(linger=0)
        self._monitors.clear()
        self._sockets.clear()

    # -- making

    def _connect(self, context: zmq.Context[Any], connection: Connection, channel: str, identity: bytes) -> None:
        zmq = self._zmq
        socket = context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
        self._sockets[channel] = socket
        socket.linger = 0
        # The default of 1,000 messages would drop what a flood of output brings above it.
        socket.sndhwm = socket.rcvhwm = 0
        socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 1000
        if ":" in connection.ip and connection.transport == "tcp":
            socket.ipv6 = True
        if connection.public_key:
            socket.curve_publickey = socket.curve_serverkey = connection.public_key
            socket.curve_secretkey = connection.secret_key
        if channel == "iopub":
            socket.subscribe(b"")
        else:
            socket.routing_id = identity
        if channel in _WATCHED:
            self._watch(channel, socket)
        socket.connect(connection.address(channel))
        if channel in _MESSAGES:
            self._loop.add_reader(socket.FD, self._take, channel)
            self._look_soon(channel)

    def _watch(self, channel: str, socket: zmq.Socket[Any]) -> None:
        zmq = self._zmq
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_DISCONNECTED
        monitor = socket.get_monitor_socket(events)
        self._monitors[channel] = monitor
        self._loop.add_reader(monitor.FD, self._read_monitor, channel)
        # The first look makes the descriptor work: before it, events come without a sign.
        self._loop.call_soon(self._read_monitor, channel)

    # -- reading

    def _look_soon(self, channel: str) -> None:
        if channel not in self._again:
            self._again.add(channel)
            self._loop.call_soon(self._look_again, channel)

    def _look_again(self, channel: str) -> None:
        self._again.discard(channel)
        self._take(channel)

    def _take(self, channel: str) -> None:
        taken = 0
        for _ in range(_TURN_MESSAGES):
            if self._closed:
                return
            size = self._take_one(channel)
            if size < 0:
                return
            taken += size
            if taken > _TURN_BYTES:
                break
        self._look_soon(channel)

    def _take_one(self, channel: str) -> int:
        """Take one message and return its size; negative when there is none."""
        socket = self._sockets[channel]
        if not self._has_some(socket):
            return -1
        frames = socket.recv_multipart(self._no_wait)
        try:
            signature, parts = split_zmq(frames)
            if not self._signer.is_genuine(parts[:4], signature):
                raise FrameFault("a ZMQ message with a wrong signature")
        except FrameFault as fault:
            log.warning("message of a kernel dropped", extra={"channel": channel, "why": str(fault)})
            return 0
        self._on_message(channel, parts)
        return sum(map(len, parts))

    def _has_some(self, socket: zmq.Socket[Any]) -> bool:
        """Ask whether there is a message: far cheaper than the exception of a socket that has none."""
        return bool(int(socket.get(self._events)) & self._pollin)

    def _read_monitor(self, channel: str) -> None:
        changed = False
        while not self._closed and self._has_some(monitor := self._monitors[channel]):
            frames = monitor.recv_multipart(self._no_wait)
            changed |= self._note_event(channel, _MONITOR_EVENT.unpack_from(frames[0])[0])
        if changed and not self._closed:
            self._on_change()

    def _note_event(self, channel: str, event: int) -> bool:
        if event == self._zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.up.add(channel)
        elif event == self._zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.refused = True
        elif event == self._zmq.EVENT_DISCONNECTED:
            self.up.discard(channel)
        else:
            return False
        return True
