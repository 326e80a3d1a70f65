"""The runtime proxy: one listener for each port of a machine, which lets through what carries a valid token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass, field
from typing import Protocol

import h11

from colab_bridge.testing.colab.vm import proxy_rules as rules
from colab_bridge.testing.colab.vm.contracts import CheckToken, DataFault, DataFaults, TokenVerdict
from colab_bridge.testing.colab.vm.http1 import (
    HttpBrokenError,
    ServedConnection,
    SocketStream,
    UpstreamConnection,
    names_and_values,
)
from colab_bridge.testing.colab.vm.link import Link, Wire

__all__ = ["Answer", "Backend", "ProxyRules", "RuntimeProxy", "Upstream"]

log = logging.getLogger(__name__)

_BACKLOG = 128
_HTML = ("content-type", "text/html; charset=UTF-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A server that a request goes on to.

    Attributes:
        port: Its port on loopback.
        headers: Headers that it gets in addition.
        replaced: Names of the client's headers that it does not get.
    """

    port: int
    headers: rules.Headers = ()
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer that needs no server."""

    status: int = 200
    headers: rules.Headers = ()
    body: bytes = b""


class Backend(Protocol):
    """What lies behind one port of the machine."""

    def route(self, method: str, path: str, *, upgrade: bool) -> Upstream | Answer:
        """Say who answers a request.

        Args:
            method: HTTP method.
            path: Path, percent-encoded, with one slash at its start.
            upgrade: Whether it asks for a WebSocket.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRules:
    """What all proxies of a machine have in common.

    Attributes:
        endpoint: The machine's id.
        check_token: Judge of tokens.
        faults: Switchboard.
        expired_status: Status for a bad token.
        link: The machine's link.
    """

    endpoint: str
    check_token: CheckToken
    faults: DataFaults
    expired_status: int
    link: Link = field(default_factory=Link)


class RuntimeProxy:
    """The proxy of one port; listens from the moment it is made.

    Args:
        port: Port of the machine, for which tokens are valid.
        common: What all proxies of the machine share.
        backend: What lies behind it.
    """

    def __init__(self, port: int, common: ProxyRules, backend: Backend) -> None:
        self._port = port
        self._common = common
        self._backend = backend
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.authority = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    def refuse(self) -> None:
        """Refuse connections from now on."""
        self._opening.cancel()
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def close(self) -> None:
        """End the listener and all connections."""
        self.refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._opening, *tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._common.link.carry(reader, writer) as wire:
                await self._serve(wire)
        except (OSError, HttpBrokenError) as error:
            log.debug("connection ended", extra={"reason": str(error)})
        except asyncio.CancelledError:
            pass  # by close(); the server that calls us would log it as a failure
        finally:
            self._tasks.discard(task)

    async def _serve(self, wire: Wire) -> None:
        connection = ServedConnection(wire)
        while True:
            try:
                request = await connection.next_request()
            except HttpBrokenError:
                if connection.h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await connection.reply(400, [_HTML, ("connection", "close")], b"<html>Bad Request</html>")
                return
            if request is None:
                return
            await self._answer(wire, connection, request)
            if not connection.reusable:
                return

    async def _answer(self, wire: Wire, connection: ServedConnection, request: h11.Request) -> None:
        headers = names_and_values(request)
        target = rules.parse_target(request.target.decode("latin-1"))
        method = request.method.decode("latin-1")
        upgrade = any(name == "upgrade" and value.lower() == "websocket" for name, value in headers)
        kind = "WS" if upgrade else method
        fault = self._common.faults.match("data", kind, target.path, endpoint=self._common.endpoint)
        planned = await self._suffer(fault, wire)
        route = planned or self._judge(method, target, headers, upgrade=upgrade)
        if isinstance(route, Upstream):
            tokens = rules.token_candidates(headers, target)
            onward = rules.forwarded_headers(headers, tokens=tokens, added=route.headers, replaced=route.replaced)
            if upgrade:
                onward = [*onward, ("connection", "Upgrade"), ("upgrade", "websocket")]
            await self._forward(wire, connection, route.port, (method, target.upstream(), onward))
        else:
            await self._reply(connection, route)

    @staticmethod
    async def _suffer(fault: DataFault | None, wire: Wire) -> Answer | None:
        """Let a fault happen; return the answer that it gives in place of the machine's."""
        if fault is None:
            return None
        await asyncio.sleep(fault.delay_s)
        if fault.hang:
            while await wire.read():  # until the client gives up
                pass
            raise HttpBrokenError("the client has given up")
        if fault.cut_after_bytes is not None:
            wire.cut_after(fault.cut_after_bytes)
        if fault.status:
            return Answer(status=fault.status, headers=tuple(fault.headers.items()), body=fault.body)
        return None

    def _judge(self, method: str, target: rules.Target, headers: rules.Headers, *, upgrade: bool) -> Upstream | Answer:
        """Decide about a request that no fault has met."""
        tokens = rules.token_candidates(headers, target) or ("",)
        verdicts: list[TokenVerdict] = [
            self._common.check_token(self._common.endpoint, self._port, token) for token in tokens
        ]
        # Of the tunnel for SSH it is known that a bad token is 401: its 404 has another meaning.
        status = 401 if target.path == "/colab/ssh" else self._common.expired_status
        if refused := rules.refusal(verdicts, status):
            return Answer(status=refused[0], headers=(_HTML,), body=refused[1])
        if self._port != rules.JUPYTER_PORT and rules.is_foreign(headers, self.authority):
            return Answer(status=404, headers=(_HTML,), body=b"<html>Not Found</html>")
        return self._backend.route(method, target.path, upgrade=upgrade)

    @staticmethod
    async def _reply(connection: ServedConnection, answer: Answer) -> None:
        await connection.invite_body()
        if connection.h11.their_state is h11.SEND_BODY:
            async for _ in connection.body():
                pass  # so that the client, which may send its whole body first, gets to read the answer
        await connection.reply(answer.status, answer.headers, answer.body)

    async def _forward(
        self, wire: Wire, connection: ServedConnection, port: int, head: tuple[str, str, rules.Headers]
    ) -> None:
        """Carry a request to a server and its answer back, both as streams."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await self._reply(connection, Answer(status=502, headers=(_HTML,), body=b"<html>Bad Gateway</html>"))
            return
        stream = SocketStream(reader, writer)
        upstream = UpstreamConnection(stream)
        try:
            await upstream.request(*head)
            sending = asyncio.ensure_future(self._send_body(connection, upstream, stream))
            try:
                await self._carry_answer(wire, connection, upstream, stream, sending)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            stream.abort()

    @staticmethod
    async def _send_body(connection: ServedConnection, upstream: UpstreamConnection, stream: SocketStream) -> None:
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
        self,
        wire: Wire,
        connection: ServedConnection,
        upstream: UpstreamConnection,
        stream: SocketStream,
        sending: asyncio.Future[None],
    ) -> None:
        event = await upstream.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = await upstream.next_event()
        if isinstance(event, h11.InformationalResponse):
            await sending
            headers = [*rules.response_headers(names_and_values(event)), ("connection", "Upgrade")]
            await connection.reply_head(101, [*headers, ("upgrade", "websocket")])
            await _splice(wire, stream, up=connection.rest(), down=upstream.rest())
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
