"""The five ZMQ sockets of a kernel.

The sockets are read by the event loop through ZMQ's own file descriptor, without ``zmq.asyncio``: one callback a
message and no future, which is quicker, and messages of one socket can never overtake each other.

Source: Jupyter messaging protocol 5.4, "Sockets"; JEP 65 for the welcome message; libzmq's ``ZMQ_FD`` (edge-triggered).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Sequence

import zmq

from colab_bridge.errors import TransientError
from colab_bridge.kernels.proxy.connection_file import ConnectionInfo, CurveKeys

__all__ = ["KernelSockets"]

#: Receives the channel and the frames of one message; ``iopub`` frames are subscriptions.
FramesHandler = Callable[[str, list[bytes]], None]

_CHANNELS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.XPUB}
# So many messages of one socket in a row, then the others get their turn: a flood on shell must not delay an interrupt.
_BATCH = 64
# ZMQ connects again after 0.1 s, so a front end that is there at all is connected long before these 10 s are over.
_STDIN_RETRY_S = 0.1
_STDIN_ATTEMPTS = 100
# As plain numbers: combining the library's flags costs more than sending a small frame.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)
_EVENTS = int(zmq.EVENTS)
# Below this size a copy is cheaper than sending without one.
_COPY_BYTES = 1024 * 1024


class KernelSockets:
    """Binds at once, queues what arrives, and hands it over as soon as :meth:`listen` was called.

    Args:
        info: Addresses and encryption keys.

    Raises:
        TransientError: an address is taken or cannot be bound.
    """

    def __init__(self, info: ConnectionInfo) -> None:
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: FramesHandler | None = None
        self._heartbeat: _Heartbeat | None = None
        try:
            for channel, kind in _CHANNELS.items():
                self._sockets[channel] = self._bind(channel, kind, info)
            self._heartbeat = _Heartbeat(info)
        except zmq.ZMQError as error:
            self.close(linger_ms=0)
            raise TransientError(
                f"cannot bind the kernel's sockets on {info.ip}: {error.strerror}",
                hint="start the kernel again; the front end then chooses other ports",
                code="CB-TRANSIENT-040",
            ) from error

    def _bind(self, channel: str, kind: int, info: ConnectionInfo) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        # Without limits: ZMQ drops silently at its default mark of 1000 messages.
        socket.set_hwm(0)
        socket.linger = 0
        if kind == zmq.ROUTER:
            # A front end that comes back under its old identity must replace its dead connection.
            socket.router_handover = 1
            # Replies go to a socket that has just asked. A question on stdin does not, and would be dropped silently.
            socket.router_mandatory = int(channel == "stdin")
        else:
            # Otherwise the second front end that subscribes to the same topic gets no welcome.
            socket.xpub_verbose = 1
        encrypt(socket, info.curve)
        socket.bind(info.address(channel))
        return socket

    def listen(self, handler: FramesHandler) -> None:
        """Hand over every message from now on, and those that came before; call it from the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        for channel, socket in self._sockets.items():
            self._loop.add_reader(_descriptor(socket), self._drain, channel)
            self._loop.call_soon(self._drain, channel)

    def _drain(self, channel: str) -> None:
        socket = self._sockets.get(channel)
        if socket is None or self._handler is None or self._loop is None:
            return
        for _ in range(_BATCH):
            if not _has_some(socket):
                return
            self._handler(channel, socket.recv_multipart(_NOBLOCK))
        # The descriptor signals once for all that is waiting, so nobody else would call us for the rest.
        self._loop.call_soon(self._drain, channel)

    def send(self, channel: str, frames: Sequence[bytes | memoryview], *, attempts: int = _STDIN_ATTEMPTS) -> None:
        """Queue a message for sending; never blocks, since the queues have no limit.

        Args:
            channel: The socket.
            frames: Identities (ROUTER) or topic (iopub) first.
            attempts: How often a question to a front end that is not there is tried again.
        """
        socket = self._sockets.get(channel)
        if socket is None:
            return
        try:
            # Without a copy each frame costs a turn of a thread of pyzmq's, which only pays for large ones.
            copy = sum(map(len, frames)) < _COPY_BYTES
            for frame in frames[:-1]:
                socket.send(frame, _NOBLOCK_MORE, copy=copy)
            socket.send(frames[-1], _NOBLOCK, copy=copy)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._send_later(channel, frames, attempts)
        # Sending may swallow the descriptor's signal for a message that has just arrived.
        if self._loop is not None and _has_some(socket):
            self._loop.call_soon(self._drain, channel)

    def _send_later(self, channel: str, frames: Sequence[bytes | memoryview], attempts: int) -> None:
        """Wait for the front end: its stdin socket may connect later than the shell socket that made the kernel ask."""
        if self._loop is not None and attempts > 0:
            again = functools.partial(self.send, channel, frames, attempts=attempts - 1)
            self._loop.call_later(_STDIN_RETRY_S, again)

    def close(self, *, linger_ms: int) -> None:
        """Close all sockets; what is queued gets up to ``linger_ms`` milliseconds to leave."""
        sockets, self._sockets = self._sockets, {}
        for socket in sockets.values():
            if self._loop is not None:
                self._loop.remove_reader(_descriptor(socket))
            socket.close(linger=linger_ms)
        self._context.term()
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None


class _Heartbeat:
    """Sends every ping back from a thread of its own, so that a busy event loop does not look like a dead kernel."""

    def __init__(self, info: ConnectionInfo) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        try:
            encrypt(self._socket, info.curve)
            self._socket.bind(info.address("hb"))
        except zmq.ZMQError:
            self._socket.close()
            self._context.term()
            raise
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated):
            zmq.proxy(self._socket, self._socket)
        self._socket.close()

    def close(self) -> None:
        """End the thread."""
        self._context.term()
        self._thread.join(timeout=1.0)


def _has_some(socket: zmq.Socket[bytes]) -> bool:
    """Ask whether there is a message: far cheaper than the exception of a socket that has none."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.get(zmq.FD))


def encrypt(socket: zmq.Socket[bytes], keys: CurveKeys | None) -> None:
    """Make a socket the server side of CurveZMQ; nothing happens without keys."""
    if keys is not None:
        socket.curve_secretkey = keys.secret
        socket.curve_publickey = keys.public
        socket.curve_server = True
