"""Messages that a WebSocket hands over in the callback that gets their bytes, at both ends of a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from colab_bridge.api.prompt_websocket import PromptWebSocket, deliver_promptly
from colab_bridge.kernels.prompt_receive import PromptConnection

pytestmark = pytest.mark.anyio


async def test_a_client_is_given_messages_whole_and_in_order_however_they_are_cut() -> None:
    async def speak(connection: ServerConnection) -> None:
        await connection.send("whole")
        await connection.send(iter([b"one ", b"message ", b"in pieces"]))
        await connection.send(iter(["ein ", "Stück"]))
        await connection.send(b"end")

    got: list[str | bytes] = []
    async with serve(speak, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        factory: Any = functools.partial(PromptConnection, got.append)
        with anyio.fail_after(5):
            async with connect(f"ws://127.0.0.1:{port}", create_connection=factory, proxy=None) as client:
                await client.wait_closed()
    assert got == ["whole", b"one message in pieces", "ein Stück", b"end"]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(endpoint: Callable[[WebSocket], Any]) -> AsyncIterator[str]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await endpoint(WebSocket(scope, receive, send))

    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, ws=PromptWebSocket, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def test_a_server_is_given_binary_messages_and_receives_the_others() -> None:
    given: list[bytes] = []
    received: list[str] = []
    gone = anyio.Event()

    async def endpoint(socket: WebSocket) -> None:
        deliver_promptly(socket, given.append)
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                received.append(await socket.receive_text())
                await socket.send_bytes(b"|".join(given))
        gone.set()

    async with serving(endpoint) as url:
        with anyio.fail_after(5):
            async with connect(url, proxy=None) as client:
                await client.send(b"one")
                await client.send(iter([b"t", b"wo"]))
                await client.send("text")
                assert await client.recv() == b"one|two"
            await gone.wait()
    assert received == ["text"]


async def test_an_endpoint_that_does_not_ask_receives_everything_itself() -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(await socket.receive_bytes() + b" received")
        await socket.close()

    async with serving(endpoint) as url:
        with anyio.fail_after(5):
            async with connect(url, proxy=None) as client:
                await client.send(b"one")
                assert await client.recv() == b"one received"
