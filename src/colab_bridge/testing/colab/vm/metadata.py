"""The server that code on the machine asks for credentials, and for its own release."""

from __future__ import annotations

import asyncio
import json
from typing import Self

import h11

from colab_bridge.testing.colab.vm.contracts import CredentialsFor, Unassign
from colab_bridge.testing.colab.vm.http1 import HttpBrokenError, ServedConnection, SocketStream, names_and_values
from colab_bridge.testing.colab.vm.proxy_rules import parse_target

__all__ = ["MetadataServer"]

#: Where Google's metadata servers have it; a parameter of our own says which kind of credentials is meant.
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
_LIFETIME_S = 3600


class MetadataServer:
    """Answers on loopback; made by :meth:`start`.

    Args:
        endpoint: The machine's id.
        credentials: Source of propagated credentials.
        unassign: Called when the machine wants to be released.

    Attributes:
        address: Host and port.
    """

    address: str
    _server: asyncio.Server

    def __init__(self, endpoint: str, credentials: CredentialsFor | None, unassign: Unassign | None) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._unassign = unassign
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, endpoint: str, credentials: CredentialsFor | None, unassign: Unassign | None) -> Self:
        """Start it."""
        self = cls(endpoint, credentials, unassign)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def close(self) -> None:
        """End it, except for the request in which the machine asks for its own release."""
        self._server.close()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = ServedConnection(SocketStream(reader, writer))
        try:
            while request := await connection.next_request():
                async for _ in connection.body():
                    pass
                status, value = await self._answer(request)
                await connection.reply(status, [("content-type", "application/json")], json.dumps(value).encode())
                if not connection.reusable:
                    return
        except (HttpBrokenError, asyncio.CancelledError):
            pass  # the machine's processes have been ended, or we have
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _answer(self, request: h11.Request) -> tuple[int, dict[str, object]]:
        target = parse_target(request.target.decode("latin-1"))
        if request.method == b"POST" and target.path == "/unassign":
            if self._unassign is not None:
                await self._unassign(self._endpoint)
            return 200, {}
        if request.method != b"GET" or target.path != TOKEN_PATH:
            return 404, {"error": "no such path"}
        if ("metadata-flavor", "Google") not in names_and_values(request):
            return 403, {"error": "Metadata-Flavor: Google is missing"}
        kind = dict(target.query).get("authtype", "")
        token = self._credentials(self._endpoint, kind) if self._credentials is not None else None
        if token is None:
            return 404, {"error": "no credentials have been propagated"}
        return 200, {"access_token": token, "expires_in": _LIFETIME_S, "token_type": "Bearer"}
