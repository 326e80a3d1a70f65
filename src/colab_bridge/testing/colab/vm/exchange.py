"""One request and its answer on the way through a proxy, both as streams."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import h11

from colab_bridge.testing.colab.vm import proxy_rules as rules
from colab_bridge.testing.colab.vm.http1 import (
    HttpBrokenError,
    ServedConnection,
    SocketStream,
    UpstreamConnection,
    names_and_values,
)
from colab_bridge.testing.colab.vm.link import Wire

__all__ = ["HTML", "Answer", "Exchange"]

HTML = ("content-type", "text/html; charset=UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer that needs no server."""

    status: int = 200
    headers: rules.Headers = ()
    body: bytes = b""


class Exchange:
    """One request that has arrived, and what becomes of it.

    Args:
        wire: The connection that it came on.
        connection: The same as HTTP.
        cut_after_bytes: Reset the connection after so many bytes of the answer, or of the frames of a WebSocket.
        upgrade: Whether it asks for a WebSocket.
    """

    def __init__(self, wire: Wire, connection: ServedConnection, cut_after_bytes: int | None, *, upgrade: bool) -> None:
        self._wire = wire
        self._connection = connection
        self._cut = cut_after_bytes
        self._upgrade = upgrade

    async def reply(self, answer: Answer) -> None:
        """Answer without asking a server."""
        self._plan_cut()
        await self._connection.invite_body()
        if self._connection.h11.their_state is h11.SEND_BODY:
            async for _ in self._connection.body():
                pass  # so that the client, which may send its whole body first, gets to read the answer
        await self._connection.reply(answer.status, answer.headers, answer.body)

    async def forward(self, port: int, method: str, target: str, headers: rules.Headers) -> None:
        """Carry the request to a server on loopback, and its answer back.

        Raises:
            HttpBrokenError: either side has gone, or speaks no HTTP.
        """
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await self.reply(Answer(status=502, headers=(HTML,), body=b"<html>Bad Gateway</html>"))
            return
        if not self._upgrade:
            self._plan_cut()
        stream = SocketStream(reader, writer)
        upstream = UpstreamConnection(stream)
        try:
            hop = [("connection", "Upgrade"), ("upgrade", "websocket")] if self._upgrade else []
            await upstream.request(method, target, [*headers, *hop])
            sending = asyncio.ensure_future(self._send_body(upstream, stream))
            try:
                await self._carry_answer(upstream, stream, sending)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            stream.abort()

    def _plan_cut(self) -> None:
        if self._cut is not None:
            self._wire.cut_after(self._cut)

    async def _send_body(self, upstream: UpstreamConnection, stream: SocketStream) -> None:
        connection = self._connection
        try:
            await connection.invite_body()
            if connection.h11.their_state is h11.SEND_BODY:
                async for data in connection.body():
                    with contextlib.suppress(HttpBrokenError):  # it has answered before the end: that is carried back
                        await upstream.send(h11.Data(data=data))
        except HttpBrokenError:
            stream.abort()  # the client has gone: the server would wait for the rest
            raise
        with contextlib.suppress(HttpBrokenError):
            await upstream.send(h11.EndOfMessage())

    async def _carry_answer(
        self, upstream: UpstreamConnection, stream: SocketStream, sending: asyncio.Future[None]
    ) -> None:
        connection = self._connection
        event = await upstream.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = await upstream.next_event()
        if isinstance(event, h11.InformationalResponse):
            await sending
            headers = [*rules.response_headers(names_and_values(event)), ("connection", "Upgrade")]
            await connection.reply_head(101, [*headers, ("upgrade", "websocket")])
            self._plan_cut()
            await _splice(self._wire, stream, up=connection.rest(), down=upstream.rest())
            return
        if not isinstance(event, h11.Response):
            raise HttpBrokenError("no answer")
        await connection.reply_head(event.status_code, rules.response_headers(names_and_values(event)))
        async for data in upstream.body():
            await connection.send(h11.Data(data=data))
        await connection.send(h11.EndOfMessage())
        if connection.h11.their_state is h11.DONE:
            await sending


async def _splice(wire: Wire, stream: SocketStream, *, up: bytes, down: bytes) -> None:
    """Carry bytes both ways until both directions have ended, or either breaks."""

    async def upwards() -> None:
        if up:
            await stream.write(up)
        while data := await wire.read():
            await stream.write(data)
        stream.end()

    async def downwards() -> None:
        if down:
            await wire.write(down)
        while data := await stream.read():
            await wire.write(data)
        await wire.finish()

    ways = [asyncio.ensure_future(upwards()), asyncio.ensure_future(downwards())]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*ways, return_exceptions=True)
