"""Where our token goes when a WebSocket is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.socket_ws import open_channels
from colab_bridge.kernels.ssh_door import open_ssh
from colab_bridge.model.runtime import Endpoint, Secret

pytestmark = pytest.mark.anyio

KEY = "ssh-ed25519 " + "A" * 68


async def ssh(way_in: Endpoint) -> None:
    await open_ssh(way_in, KEY)


async def channels(way_in: Endpoint) -> None:
    async def get() -> Endpoint:
        return way_in

    await open_channels(get, "kernel", "session", 5)


@pytest.mark.parametrize("opens", [ssh, channels])
async def test_our_token_does_not_follow_a_redirect(opens: Callable[[Endpoint], Awaitable[None]]) -> None:
    asked: list[str] = []

    def answering(name: str, answer: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.append(name)
            writer.write(answer.encode())
            await writer.drain()
            writer.close()

        return answer_one

    rest = "Content-Length: 0\r\nConnection: close\r\n\r\n"
    elsewhere = await asyncio.start_server(answering("elsewhere", f"HTTP/1.1 400 No\r\n{rest}"), "127.0.0.1", 0)
    location = f"ws://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/"
    found = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n{rest}"
    server = await asyncio.start_server(answering("server", found), "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with elsewhere, server:
        with pytest.raises(ColabBridgeError):
            await opens(Endpoint(base_url=base_url, headers={"X-Colab-Runtime-Proxy-Token": Secret("t")}))
    assert asked
    assert "elsewhere" not in asked
