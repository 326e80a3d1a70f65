"""One HTTP/1.1 connection, served or opened, event by event: for proxies that must not hold whole bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus
from typing import Protocol, cast

import h11

__all__ = ["HttpBrokenError", "ServedConnection", "Stream", "UpstreamConnection", "names_and_values"]

_HEAD_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)  # RFC 9110 section 6.4.1


class HttpBrokenError(Exception):
    """The other side does not speak HTTP, or has gone in the middle of a message."""


class Stream(Protocol):
    """A byte stream in both directions."""

    async def read(self) -> bytes:
        """Return what has come; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send, waiting while too much is under way."""


class _Http:
    """What both roles share: events in, events out."""

    def __init__(self, stream: Stream, role: type[h11.CLIENT | h11.SERVER]) -> None:
        self.stream = stream
        self.h11 = h11.Connection(role, max_incomplete_event_size=_HEAD_BYTES)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """Return the next event of the other side.

        Raises:
            HttpBrokenError: it broke the protocol or ended too early.
        """
        while True:
            try:
                event = self.h11.next_event()
                if event is not h11.NEED_DATA:
                    return cast("h11.Event | type[h11.PAUSED]", event)
                self.h11.receive_data(await self.stream.read())
            except (h11.RemoteProtocolError, OSError) as error:
                raise HttpBrokenError(str(error)) from error

    async def send(self, event: h11.Event) -> None:
        """Send one event.

        Raises:
            HttpBrokenError: the other side is gone, or the event does not fit here.
        """
        try:
            data = self.h11.send(event)
            if data:
                await self.stream.write(data)
        except (h11.LocalProtocolError, OSError) as error:
            raise HttpBrokenError(str(error)) from error

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body of the message that is being received, piece by piece, to its end."""
        while isinstance(event := await self.next_event(), h11.Data):
            yield bytes(event.data)

    def rest(self) -> bytes:
        """Return what has come after the switch to another protocol."""
        return self.h11.trailing_data[0]


class ServedConnection(_Http):
    """The server's end."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, h11.SERVER)
        self._wants_body = True

    async def next_request(self) -> h11.Request | None:
        """Return the next request; None when the client has closed in order.

        Raises:
            HttpBrokenError: it does not speak HTTP.
        """
        if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
        event = await self.next_event()
        if not isinstance(event, h11.Request):
            return None
        self._wants_body = event.method != b"HEAD"
        return event

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE

    async def invite_body(self) -> None:
        """Tell a client that waits for it that its body is welcome."""
        if self.h11.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))

    async def reply(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer, with its length."""
        lengths = [] if status in _BODILESS else [("content-length", str(len(body)))]
        await self.send(
            h11.Response(status_code=status, headers=_encoded([*headers, *lengths]), reason=_reason(status))
        )
        if self._wants_body and body and status not in _BODILESS:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def reply_head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head of an answer whose body follows; 101 switches to another protocol."""
        kind = h11.InformationalResponse if status < 200 else h11.Response
        await self.send(kind(status_code=status, headers=_encoded(headers), reason=_reason(status)))


class UpstreamConnection(_Http):
    """The client's end of a connection that carries one request."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, h11.CLIENT)

    async def request(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head of a request."""
        await self.send(h11.Request(method=method, target=target, headers=_encoded(headers)))


def names_and_values(head: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[str, str]]:
    """Return the headers as text, names in lower case."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""  # a server may use a number of its own


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class SocketStream:
    """A socket's streams as one.

    Args:
        reader: From it.
        writer: To it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Return what has come; empty at the end."""
        return await self._reader.read(_READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send, waiting while too much is under way."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Send the end of the stream."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()
