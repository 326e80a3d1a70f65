"""The runtime proxy: one listener for each port of a machine, which lets through what carries a valid token."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from typing import Protocol

import h11

from colab_bridge.testing.colab.vm import proxy_rules as rules
from colab_bridge.testing.colab.vm.contracts import CheckToken, DataFault, DataFaults, TokenVerdict
from colab_bridge.testing.colab.vm.exchange import HTML, Answer, Exchange
from colab_bridge.testing.colab.vm.http1 import HttpBrokenError, ServedConnection, names_and_values
from colab_bridge.testing.colab.vm.link import Link, Wire

__all__ = ["Backend", "ProxyRules", "RuntimeProxy", "Upstream"]

log = logging.getLogger(__name__)

_BACKLOG = 128


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
        # asyncio does it only for sockets that it has made itself; without it, small answers come 40 ms late.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
                    await connection.reply(400, [HTML, ("connection", "close")], b"<html>Bad Request</html>")
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
        fault = self._common.faults.match(
            "data",
            kind,
            target.path,
            endpoint=self._common.endpoint,
            query=target.query,
            headers=dict(headers),
        )
        exchange = Exchange(wire, connection, fault.cut_after_bytes if fault else None, upgrade=upgrade)
        planned = await self._suffer(fault, wire)
        route = planned or self._judge(method, target, headers, upgrade=upgrade)
        if isinstance(route, Answer):
            await exchange.reply(route)
            return
        tokens = rules.token_candidates(headers, target)
        onward = rules.forwarded_headers(headers, tokens=tokens, added=route.headers, replaced=route.replaced)
        await exchange.forward(route.port, method, target.upstream(), onward)

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
            return Answer(status=refused[0], headers=(HTML,), body=refused[1])
        if self._port != rules.JUPYTER_PORT and rules.is_foreign(headers, self.authority):
            return Answer(status=404, headers=(HTML,), body=b"<html>Not Found</html>")
        return self._backend.route(method, target.path, upgrade=upgrade)
