"""HTTP listeners of the emulator: one uvicorn, one port for each service, connections that can be reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Application", "Connections", "Message", "Receive", "Send", "serve"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Connections:
    """The connections that are open, so that a fault can reset one without an answer."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}

    def abort(self, client: tuple[str, int]) -> None:
        """Reset the connection of a client; whatever was written and not yet sent is thrown away."""
        transport = self._transports.get(client)
        if transport is not None:
            transport.abort()

    def abort_all(self) -> None:
        """Reset every connection."""
        for transport in tuple(self._transports.values()):
            transport.abort()

    def protocol(self) -> type[H11Protocol]:
        """Return uvicorn's HTTP protocol, with every connection noted here."""
        known = self._transports

        class Noted(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
                known[transport.get_extra_info("peername")] = transport
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                known.pop(self.transport.get_extra_info("peername"), None)
                super().connection_lost(exc)

        return Noted


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals belong to whoever runs the emulator."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def serve(applications: Mapping[str, Application], connections: Connections) -> AsyncIterator[dict[str, str]]:
    """Serve applications on loopback, each on a free port of its own.

    Args:
        applications: By name.
        connections: Where their connections are noted.

    Yields:
        Base URL of each application, by name.
    """
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(_listener()) for name in applications}
        by_port = {sockets[name].getsockname()[1]: application for name, application in applications.items()}

        async def dispatch(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            await by_port[scope["server"][1]](scope, receive, send)

        server = _Server(_config(dispatch, connections))
        task = asyncio.create_task(server.serve(sockets=list(sockets.values())))
        try:
            yield {name: f"http://127.0.0.1:{each.getsockname()[1]}" for name, each in sockets.items()}
        finally:
            server.should_exit = True
            connections.abort_all()
            await task


def _config(application: Application, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=connections.protocol(),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=75,  # Google's front ends hold connections for minutes, too
        timeout_graceful_shutdown=20,  # only a machine that is being started, and is ended again, takes time
    )


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
