"""A server on loopback that answers with exactly the bytes that a test has written down."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Reply = Callable[[socket.socket], None]


def document(value: Any, status: int = 200) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunk(*values: Any) -> bytes:
    body = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


class ScriptedServer:
    """Answers each request line with the reply that was set for it; a list of replies is used up one after another."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.replies: dict[str, list[bytes | Reply]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        # A listener that is only closed would leave accept() waiting on some systems.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5)

    def write_address(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        value = {
            "schema": 1,
            "pid": 1,
            "create_time": 1.0,
            "port": self.port,
            "token": "t0k",
            "version": "0",
            "started_at": 1,
        }
        (folder / "daemon.json").write_text(json.dumps(value | changes))

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(v) for k, _, v in (h.partition(":") for h in head.decode().split("\r\n")) if k == "Content-Length"), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        line = head.decode().split(" HTTP/")[0]
        self.requests.append(line)
        self.bodies.append(body)
        waiting = self.replies.get(line) or self.replies.get(line.partition("?")[0]) or [document({"detail": "?"}, 404)]
        reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if callable(reply):
            reply(connection)
        else:
            connection.sendall(reply)
