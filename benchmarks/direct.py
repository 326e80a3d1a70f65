"""A kernel's WebSocket without us: blocking, bare, and as quick as it goes.

It is the alternative that our numbers are held against, so it has no overhead of an event loop, and it acknowledges at
once (an empty PONG after what arrives): without that, Nagle's algorithm in the server costs 40 ms a request.

Source: RFC 6455; jupyter_server, "WebSocket kernel wire protocols".
"""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from benchmarks.errors import BenchmarkError
from benchmarks.product import JupyterAddress
from colab_bridge.wire.jupyter_ws import V1_SUBPROTOCOL

__all__ = ["BlockingSocket", "direct_kernel", "open_channels"]

_RECEIVE_BYTES = 1024 * 1024
_TIMEOUT_S = 120.0


class BlockingSocket:
    """One WebSocket connection.

    Args:
        port: On 127.0.0.1.
        path: With query.
        headers: Request headers.
        subprotocols: Offered ones.
        receive_buffer: Size of the system's receive buffer, for a client that is to be slow; None for the usual one.
    """

    def __init__(
        self,
        port: int,
        path: str,
        headers: dict[str, str],
        *,
        subprotocols: list[str] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._protocol = ClientProtocol(
            parse_uri(f"ws://127.0.0.1:{port}{path}"),
            subprotocols=[Subprotocol(name) for name in subprotocols or []] or None,
            max_size=None,
        )
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._frames: list[Frame] = []
        self._flush()
        while self._protocol.state is State.CONNECTING:
            self._receive()
        if self._protocol.handshake_exc is not None:
            raise BenchmarkError(f"no WebSocket: {self._protocol.handshake_exc}")

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send a binary message."""
        self._protocol.send_binary(data)
        self._flush()

    def receive(self) -> bytes:
        """Return the next message, text as UTF-8.

        Raises:
            BenchmarkError: the connection has ended.
        """
        parts: list[bytes] = []
        while True:
            while not self._frames:
                self._receive()
            frame = self._frames.pop(0)
            if frame.opcode is Opcode.CLOSE:
                raise BenchmarkError("the WebSocket was closed")
            if frame.opcode in (Opcode.PING, Opcode.PONG):
                continue
            parts.append(bytes(frame.data))
            if frame.fin:
                return b"".join(parts)

    def receive_slowly(self, size: int) -> int:
        """Take some raw bytes off the socket and throw them away, as a client does that cannot keep up.

        Returns:
            How many; 0 when nothing is there.
        """
        self._socket.settimeout(0.01)
        try:
            return len(self._socket.recv(size))
        except TimeoutError:
            return 0

    def _receive(self) -> None:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise BenchmarkError("the WebSocket was cut")
        self._protocol.receive_data(data)
        # In a flood the next bytes are here already, and the acknowledgement goes with a later one.
        if self._protocol.state is State.OPEN and len(data) < _RECEIVE_BYTES:
            self._protocol.send_pong(b"")
        self._flush()
        self._frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)


def open_channels(server: JupyterAddress, kernel_id: str, session_id: str) -> BlockingSocket:
    """Connect to the channels of a kernel."""
    return BlockingSocket(
        server.port,
        f"/api/kernels/{kernel_id}/channels?session_id={session_id}",
        {"Authorization": f"token {server.token}"},
        subprotocols=[V1_SUBPROTOCOL],
    )


@contextlib.contextmanager
def direct_kernel(server: JupyterAddress, session_id: str = "bench-direct") -> Iterator[BlockingSocket]:
    """Start a kernel of its own on a server, and end it."""
    kernel_id = str(_call(server, "POST", "/api/kernels", {"name": "python3"})["id"])
    try:
        channels = open_channels(server, kernel_id, session_id)
        try:
            yield channels
        finally:
            channels.close()
    finally:
        _call(server, "DELETE", f"/api/kernels/{kernel_id}")


def _call(server: JupyterAddress, method: str, path: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {server.token}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        raw = answer.read()
    return dict(json.loads(raw)) if raw else {}
