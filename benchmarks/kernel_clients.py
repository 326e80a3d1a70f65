"""Two ways to a kernel, measured with the same yardstick: its server's WebSocket, and the ZMQ sockets of a front end.

Both are bare: blocking, no event loop, only the headers are read. What is measured is the way, not the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import zmq
from jupyter_client.connect import ConnectionFileMixin
from jupyter_client.manager import KernelManager

from benchmarks.direct import BlockingSocket
from benchmarks.errors import BenchmarkError
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage
from colab_bridge.wire.zmq_frames import Signer, split, to_frames

__all__ = ["Execution", "KernelClient", "WebSocketClient", "ZmqClient", "execute", "front_end"]

_TIMEOUT_S = 120.0


class KernelClient(Protocol):
    """Sends a request and returns what comes back, message by message."""

    def send(self, message: RawMessage) -> None:
        """Send a request on shell."""
        ...

    def receive(self) -> RawMessage:
        """Return the next message of any channel."""
        ...


class WebSocketClient:
    """A kernel's WebSocket.

    Args:
        socket: Open, in the v1 framing.
    """

    def __init__(self, socket: BlockingSocket) -> None:
        self._socket = socket

    def send(self, message: RawMessage) -> None:
        """Send a request on shell."""
        self._socket.send(encode_v1(message))

    def receive(self) -> RawMessage:
        """Return the next message of any channel."""
        return decode_v1(self._socket.receive())


class ZmqClient:
    """The sockets of a front end, without checking signatures.

    Args:
        manager: Its kernel, started.
    """

    def __init__(self, manager: ConnectionFileMixin) -> None:
        info: dict[str, Any] = dict(manager.get_connection_info())
        key = info["key"]
        self._signer = Signer(key if isinstance(key, bytes) else str(key).encode())
        self._context = zmq.Context()
        self._shell = self._connect(zmq.DEALER, info, "shell_port")
        self._iopub = self._connect(zmq.SUB, info, "iopub_port")
        self._poller = zmq.Poller()
        self._poller.register(self._shell, zmq.POLLIN)
        self._poller.register(self._iopub, zmq.POLLIN)

    def _connect(self, kind: int, info: dict[str, Any], port: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(0)
        socket.linger = 0
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(f"{info['transport']}://{info['ip']}:{info[port]}")
        return socket

    def send(self, message: RawMessage) -> None:
        """Send a request on shell."""
        self._shell.send_multipart(to_frames([], message, self._signer))

    def receive(self) -> RawMessage:
        """Return the next message of shell or iopub.

        Raises:
            BenchmarkError: there is none for two minutes.
        """
        ready = dict(self._poller.poll(int(_TIMEOUT_S * 1000)))
        if not ready:
            raise BenchmarkError("the kernel says nothing")
        # iopub first: what is published comes before the reply that follows it.
        channel, socket = ("iopub", self._iopub) if self._iopub in ready else ("shell", self._shell)
        _identities, _signature, parts, buffers = split(socket.recv_multipart())
        return RawMessage(channel, parts[0], parts[1], parts[2], parts[3], buffers)

    def wait_ready(self) -> None:
        """Wait until the kernel answers on both sockets: a subscription may take effect after the first answer."""
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            request = _request("kernel_info_request", {})
            self.send(request)
            if self._heard_idle(request.msg_id):
                return
        raise BenchmarkError("the kernel did not become ready")

    def _heard_idle(self, msg_id: str) -> bool:
        patience_s = 60.0  # for the first answer; then what is published must follow at once
        while self._poller.poll(int(patience_s * 1000)):
            message = self.receive()
            if message.parent_id != msg_id:
                continue
            if message.channel == "iopub" and message.content_fields().get("execution_state") == "idle":
                return True
            patience_s = 0.5
        return False

    def close(self) -> None:
        """Close the sockets."""
        self._shell.close()
        self._iopub.close()
        self._context.term()


@contextlib.contextmanager
def front_end(kernel_name: str, cwd: Path, **environ: str) -> Iterator[ZmqClient]:
    """Start a kernel as a front end does, and end it.

    Args:
        kernel_name: Name of its kernelspec.
        cwd: Where it starts.
        **environ: More variables for its environment.
    """
    manager = KernelManager(kernel_name=kernel_name)
    manager.start_kernel(cwd=str(cwd), env={**os.environ, **environ})
    try:
        client = ZmqClient(manager)
        try:
            client.wait_ready()
            yield client
        finally:
            client.close()
    finally:
        manager.shutdown_kernel()
        manager.cleanup_resources()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How one execution went.

    Attributes:
        seconds: From sending the request until reply and idle are both here.
        stdout_characters: Text that it put out.
        messages: Messages that came meanwhile.
    """

    seconds: float
    stdout_characters: int
    messages: int


def execute(client: KernelClient, code: str) -> Execution:
    """Run code and take in all of its output.

    Raises:
        BenchmarkError: it raised something.
    """
    content = {
        "code": code,
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    request = _request("execute_request", content)
    characters = messages = 0
    replied = idle = False
    begun = time.perf_counter()
    client.send(request)
    while not (replied and idle):
        message = client.receive()
        if message.parent_id != request.msg_id:
            continue
        messages += 1
        kind = message.msg_type
        if kind == "stream":
            characters += len(json.loads(message.content)["text"])
        elif kind == "execute_reply":
            replied = True
            _must_be_ok(message)
        elif kind == "status":
            idle = message.content_fields().get("execution_state") == "idle"
    return Execution(seconds=time.perf_counter() - begun, stdout_characters=characters, messages=messages)


def _must_be_ok(reply: RawMessage) -> None:
    content = reply.content_fields()
    if content.get("status") != "ok":
        raise BenchmarkError(f"the code failed: {content.get('ename')}: {content.get('evalue')}")


def _request(msg_type: str, content: dict[str, Any]) -> RawMessage:
    return RawMessage.build("shell", msg_type, content, msg_id=uuid.uuid4().hex, session="bench", username="bench")
