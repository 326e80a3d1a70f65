"""Calls to the daemon and streams of events from it, over one loopback socket each."""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from colab_bridge.client.address import Address
from colab_bridge.client.http import HttpProtocolError, LineSplitter, ResponseParser, quote, request_bytes
from colab_bridge.errors import ColabBridgeError, TransientError, from_problem

__all__ = ["DEFAULT_TIMEOUT_S", "DaemonClient", "Event", "EventStream", "segment"]

Event = dict[str, Any]

DEFAULT_TIMEOUT_S = 120.0
_CONNECT_TIMEOUT_S = 5.0
_RECEIVE_BYTES = 256 * 1024
_MAX_ANSWER_BYTES = 256 * 1024 * 1024
# How often `on_wait` is called, and on Windows how long Ctrl-C may go unnoticed: a blocked call there does not see it.
_SLICE_S = 0.25


class _Exchange:
    """One request on one connection, and whatever has arrived of its answer."""

    def __init__(self, address: Address, request: bytes) -> None:
        self.parser = ResponseParser()
        self._socket = _open(address)
        try:
            self._socket.sendall(request)
        except OSError:
            # A server that refuses a body closes early; its answer may be waiting for us nevertheless.
            pass
        except BaseException:
            self._socket.close()
            raise

    def wait(self, timeout_s: float, extra: Sequence[socket.socket | int] = ()) -> tuple[bool, bool]:
        """Wait for bytes from the daemon or for one of the other sources.

        Returns:
            Whether bytes (or the end) are here, and whether another source is ready; both false after ``timeout_s``.
        """
        mine = self._socket.fileno()
        others = [source if isinstance(source, int) else source.fileno() for source in extra]
        ready = _readable([mine, *others], max(0.0, timeout_s))
        return mine in ready, any(other in ready for other in others)

    def receive(self) -> bytes | None:
        """Read what is there and return the part of the body in it; None at the end of the answer.

        Raises:
            TransientError: the connection was cut, or what listens there is not our daemon.
        """
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                self.parser.finish()
                return None
            return self.parser.feed(data)
        except (OSError, HttpProtocolError) as error:
            raise _cut(error) from error

    def close(self) -> None:
        self._socket.close()


def _readable(numbers: list[int], timeout_s: float) -> set[int]:
    if sys.platform == "win32":
        found = set(select.select(numbers, [], [], timeout_s)[0])
    else:
        # Not select(): it fails in a process with more than 1,024 open files, which a notebook server may be.
        poller = select.poll()
        for number in numbers:
            poller.register(number, select.POLLIN)
        found = {number for number, _ in poller.poll(timeout_s * 1000)}
    return found


def _open(address: Address) -> socket.socket:
    try:
        connection = socket.create_connection(("127.0.0.1", address.port), _CONNECT_TIMEOUT_S)
    except OSError as error:
        raise _cut(error) from error
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _cut(error: Exception) -> TransientError:
    return TransientError(
        f"the connection to the daemon was cut ({error})",
        hint="Try again; if it stays so: colab-bridge daemon restart",
        code="CB-TRANSIENT-DAEMON",
    )


def _failure(status: int, body: bytes) -> ColabBridgeError:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "title" in problem:
        return from_problem(problem)
    return TransientError(
        f"the daemon's port gave an answer that is not the daemon's (HTTP {status})",
        hint="Run: colab-bridge daemon restart",
        code="CB-TRANSIENT-DAEMON",
    )


class DaemonClient:
    """Calls to one daemon. Each call has a connection of its own, so one client serves many threads.

    Args:
        address: Where the daemon listens.
        timeout_s: Seconds that a call may take.
        on_wait: Called some four times a second with the seconds waited so far, as long as a call has no answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.on_wait = on_wait

    def get(self, path: str, *, timeout_s: float | None = None, **query: object) -> dict[str, Any]:
        """Fetch a document.

        Args:
            path: For example ``/v1/status``; see :func:`segment` for names in it.
            timeout_s: Seconds for this call; the client's own when omitted.
            query: Values of the query; None is left out.

        Raises:
            ColabBridgeError: the daemon's own error, as the class that it raised.
            TransientError: it does not answer, or the connection was cut.
        """
        return self._call("GET", path, None, query, timeout_s)

    def post(
        self, path: str, body: object = None, *, timeout_s: float | None = None, **query: object
    ) -> dict[str, Any]:
        """Send a document and return the answer, ``{}`` when it is empty. Arguments and errors as for :meth:`get`."""
        return self._call("POST", path, {} if body is None else body, query, timeout_s)

    def delete(self, path: str, *, timeout_s: float | None = None, **query: object) -> dict[str, Any]:
        """Remove something. Arguments and errors as for :meth:`get`."""
        return self._call("DELETE", path, None, query, timeout_s)

    def stream(self, method: str, path: str, body: object = None, **query: object) -> EventStream:
        """Begin a request whose answer is a stream of events; use it as a context manager.

        Raises:
            TransientError: nothing listens there. What the daemon itself reports is raised by the first event asked
                for.
        """
        return EventStream(_Exchange(self.address, self._request(method, path, body, query)))

    def _request(self, method: str, path: str, body: object, query: dict[str, object]) -> bytes:
        data = None if body is None else json.dumps(body).encode("ascii")
        address = self.address
        return request_bytes(method, path, query, host=address.host, token=address.token, body=data)

    def _call(
        self, method: str, path: str, body: object, query: dict[str, object], timeout_s: float | None
    ) -> dict[str, Any]:
        exchange = _Exchange(self.address, self._request(method, path, body, query))
        try:
            raw = self._collect(exchange, self.timeout_s if timeout_s is None else timeout_s)
        finally:
            exchange.close()
        status = exchange.parser.status
        if status >= 300:
            raise _failure(status, raw)
        return _document(status, raw)

    def _collect(self, exchange: _Exchange, timeout_s: float) -> bytes:
        begun = time.monotonic()
        pieces: list[bytes] = []
        size = 0
        while not exchange.parser.done:
            waited = time.monotonic() - begun
            if waited >= timeout_s:
                raise TransientError(
                    f"the daemon has not answered for {timeout_s:.0f} s",
                    hint="See what it does: colab-bridge daemon logs; or: colab-bridge daemon restart",
                    code="CB-TRANSIENT-TIMEOUT",
                )
            if not exchange.wait(min(_SLICE_S, timeout_s - waited))[0]:
                if self.on_wait is not None:
                    self.on_wait(time.monotonic() - begun)
                continue
            piece = exchange.receive()
            if piece is None:
                break
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_ANSWER_BYTES:
                raise _cut(HttpProtocolError("the answer is too large"))
        return b"".join(pieces)


def segment(name: str) -> str:
    """Return a name as one segment of a path, whatever characters it holds."""
    return quote(name)


def _document(status: int, raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _failure(status, b"")
    return value


class EventStream:
    """Events of one streamed answer, one JSON object a line. Close it, or use it in ``with``.

    Attributes:
        ended: Whether the daemon has ended the answer in good order.
    """

    def __init__(self, exchange: _Exchange) -> None:
        self.ended = False
        self._exchange = exchange
        self._lines = LineSplitter()
        self._refusal: list[bytes] = []
        self._events: deque[Event] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; the daemon goes on with what it does."""
        self._exchange.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield the events until the answer ends.

        Raises:
            ColabBridgeError: what the daemon reported instead of events.
            TransientError: the connection was cut in the middle.
        """
        while (event := self._next_blocking()) is not None:
            yield event

    def _next_blocking(self) -> Event | None:
        while True:
            event = self.poll(_SLICE_S if sys.platform == "win32" else 3600.0)
            if event is not None or self.ended:
                return event

    def poll(self, timeout_s: float, extra: Sequence[socket.socket | int] = ()) -> Event | None:
        """Return the next event; None when there is none for ``timeout_s``, or another source is ready, or at the end.

        Args:
            timeout_s: Seconds to wait at most.
            extra: Sockets (on POSIX any file number) that end the wait when they become readable.

        Raises:
            ColabBridgeError: what the daemon reported instead of events.
            TransientError: the connection was cut in the middle.
        """
        deadline = time.monotonic() + timeout_s
        while not self._events and not self.ended:
            mine, other = self._exchange.wait(deadline - time.monotonic(), extra)
            if mine:
                self._receive()
            if other or (not mine and time.monotonic() >= deadline):
                break
        return self._events.popleft() if self._events else None

    def _receive(self) -> None:
        piece = self._exchange.receive()
        parser = self._exchange.parser
        if parser.status >= 300:
            self._refusal.append(piece or b"")
            if piece is None or parser.done:
                self.ended = True
                raise _failure(parser.status, b"".join(self._refusal))
            return
        try:
            for line in self._lines.feed(piece or b""):
                self._events.append(_event(line))
            if piece is None or parser.done:
                if self._lines.pending:
                    raise HttpProtocolError("the last event is not complete")
                self.ended = True
        except HttpProtocolError as error:
            raise _cut(error) from error


def _event(line: bytes) -> Event:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HttpProtocolError("an event is no JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise HttpProtocolError("an event has no type")
    return value
