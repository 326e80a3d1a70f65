"""HTTP/1.1 for one request and one response, as pure functions of bytes.

The standard library's own client costs 30 ms to import (it parses headers as e-mail), three times what the interpreter
needs to start, so the little that a loopback client needs is here. Nothing in this module touches a socket.

Source: RFC 9112 (HTTP/1.1 message syntax), sections 4 to 7.
"""

from __future__ import annotations

__all__ = ["HttpProtocolError", "LineSplitter", "ResponseParser", "request_bytes"]

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 1024
# One event may carry one large display; Jupyter has no limit of its own. Beyond this it is no honest answer of our
# daemon.
MAX_LINE_BYTES = 512 * 1024 * 1024

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class HttpProtocolError(Exception):
    """What came over the connection is not an HTTP response as we understand it, or it ended too early."""


def request_bytes(
    method: str,
    path: str,
    query: dict[str, object],
    *,
    host: str,
    token: str,
    body: bytes | None = None,
) -> bytes:
    """Return a whole request; the connection is closed after its answer.

    Args:
        method: ``GET``, ``POST`` or ``DELETE``.
        path: Path below the root, already safe (see :func:`quote`).
        query: Values of the query; None is left out, true and false become 1 and 0.
        host: ``127.0.0.1:port``.
        token: The daemon's token.
        body: A JSON document.

    Raises:
        ValueError: the path would break the request line.
    """
    target = path + _query(query)
    if any(character <= " " or character >= "\x7f" for character in target):
        raise ValueError(f"not a request path: {target!r}")
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {token}",
        "Accept: application/json, application/x-ndjson",
        "Connection: close",
    ]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    elif method != "GET":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


def quote(text: str) -> str:
    """Percent-encode one segment of a path or one value of a query."""
    return "".join(
        chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape")
    )


def _query(query: dict[str, object]) -> str:
    pairs = []
    for name, value in query.items():
        if value is None:
            continue
        text = str(int(value)) if isinstance(value, bool) else str(value)
        pairs.append(f"{quote(name)}={quote(text)}")
    return "?" + "&".join(pairs) if pairs else ""


class ResponseParser:
    """Turns the bytes of one response into its status, headers and body.

    Attributes:
        status: HTTP status; 0 until the head has arrived.
        headers: Names in lower case; of repeated ones the last.
        done: Whether the whole body has arrived.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self._buffer = bytearray()
        self._left: int | None = None  # bytes missing of the body or of the chunk in hand; None: until the end
        self._chunked = False
        self._state = "head"

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the connection and return the part of the body that they hold.

        Raises:
            HttpProtocolError: the bytes are no HTTP, or larger than anything the daemon sends.
        """
        self._buffer += data
        body: list[bytes] = []
        while not self.done and self._step(body):
            pass
        return b"".join(body)

    def finish(self) -> None:
        """Take note that the connection has ended.

        Raises:
            HttpProtocolError: the response was not complete.
        """
        if self._state == "body" and self._left is None and not self._chunked:
            self.done = True
        if not self.done:
            raise HttpProtocolError("the connection ended in the middle of an answer")

    def _step(self, body: list[bytes]) -> bool:
        if self._state == "head":
            return self._head()
        if self._state == "body":
            return self._take(body)
        if self._state == "size":
            return self._chunk_size()
        if self._state == "end":
            return self._chunk_end()
        return self._trailer()

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise HttpProtocolError("the head of the answer is too large")
        if end < 0:
            # Something that is no HTTP at all must not make us wait for an empty line that never comes.
            if not b"HTTP/1.1 ".startswith(self._buffer[:9]):
                raise HttpProtocolError("the answer is no HTTP")
            return False
        head = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self.status = _status(head[0])
        if 100 <= self.status < 200:
            self.status = 0
            return True
        self.headers = dict(_header(line) for line in head[1:])
        self._begin_body()
        return True

    def _begin_body(self) -> None:
        coding = self.headers.get("transfer-encoding", "").lower()
        if self.status in (204, 304):
            self.done = True
        elif coding:
            if coding != "chunked":
                raise HttpProtocolError(f"unknown transfer coding {coding[:40]!r}")
            self._chunked = True
            self._state = "size"
        elif "content-length" in self.headers:
            self._left = _decimal(self.headers["content-length"])
            self._state = "body"
            self.done = self._left == 0
        else:
            self._state = "body"

    def _take(self, body: list[bytes]) -> bool:
        if not self._buffer:
            return False
        if self._left is None:
            body.append(bytes(self._buffer))
            self._buffer.clear()
            return False
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        body.append(piece)
        if self._left == 0:
            if self._chunked:
                self._state = "end"
            else:
                self.done = True
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, MAX_CHUNK_LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_CHUNK_LINE_BYTES:
                raise HttpProtocolError("a line between two chunks is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._left = _hexadecimal(line.partition(b";")[0].strip())
        self._state = "body" if self._left else "trailer"
        return True

    def _chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise HttpProtocolError("a chunk is longer than it says")
        del self._buffer[:2]
        self._state = "size"
        return True

    def _trailer(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self.done = line == b""
        return True


def _status(line: str) -> int:
    parts = line.split(" ", 2)
    if len(parts) < 2 or parts[0] != "HTTP/1.1" or len(parts[1]) != 3:
        raise HttpProtocolError("the answer is no HTTP/1.1")
    return _decimal(parts[1])


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise HttpProtocolError("a header line is damaged")
    return name.lower(), value.strip()


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HttpProtocolError("a number in the answer is none")
    return int(text)


def _hexadecimal(text: bytes) -> int:
    # int() would also take signs, blanks and underscores.
    if not text or len(text) > 15 or text.strip(b"0123456789abcdefABCDEF"):
        raise HttpProtocolError("the length of a chunk is no number")
    return int(text, 16)


class LineSplitter:
    """Cuts a stream of bytes into lines, without copying a long line again for each piece that arrives.

    Args:
        limit: Largest line in bytes.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now, without their ends; empty ones are left out.

        Raises:
            HttpProtocolError: a line exceeds the limit.
        """
        *complete, rest = data.split(b"\n")
        lines = []
        for piece in complete:
            lines.append(b"".join([*self._pieces, piece]))
            self._pieces.clear()
            self._size = 0
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > self._limit:
            raise HttpProtocolError("a line of the answer is too long")
        return [line for line in lines if line.strip()]

    @property
    def pending(self) -> bool:
        """Whether part of a line has arrived and its end has not."""
        return self._size > 0
