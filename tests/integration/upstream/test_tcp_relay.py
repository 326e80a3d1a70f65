"""The relay does to connections what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from colab_bridge.testing.relay import TcpRelay


@pytest.fixture
async def echo_relay() -> AsyncIterator[TcpRelay]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the relay resets connections
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpRelay("127.0.0.1", int(server.sockets[0].getsockname()[1])) as relay:
        yield relay


class Client:
    """One connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes) -> bytes:
        self.writer.write(data)
        with anyio.fail_after(3):
            return await self.reader.readexactly(len(data))


async def client_of(relay: TcpRelay) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", relay.port))


@pytest.mark.anyio
async def test_it_forwards_and_counts(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    assert await client.ask(b"hello") == b"hello"
    assert (echo_relay.connections, echo_relay.bytes_up, echo_relay.bytes_down) == (1, 5, 5)
    client.writer.close()


@pytest.mark.anyio
async def test_reset_is_seen_as_a_reset(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    await client.ask(b"x")
    echo_relay.reset()
    with pytest.raises(ConnectionResetError), anyio.fail_after(3):
        await client.reader.readexactly(1)
    client.writer.close()


@pytest.mark.anyio
async def test_close_is_seen_as_an_end_of_stream(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    await client.ask(b"x")
    echo_relay.close()
    with anyio.fail_after(3):
        assert await client.reader.read() == b""
    client.writer.close()


@pytest.mark.anyio
async def test_a_black_hole_swallows_and_restore_brings_new_connections(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    await client.ask(b"x")
    echo_relay.blackhole()
    with pytest.raises(TimeoutError):
        client.writer.write(b"lost")
        async with asyncio.timeout(0.3):
            await client.reader.read(1)
    echo_relay.restore()
    again = await client_of(echo_relay)
    assert await again.ask(b"back") == b"back"
    client.writer.close()
    again.writer.close()


@pytest.mark.anyio
async def test_truncation_delivers_exactly_the_bytes_before_the_cut(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    echo_relay.truncate_after(10)
    client.writer.write(b"0123456789abcdef")
    with anyio.fail_after(3):
        assert await client.reader.readexactly(10) == b"0123456789"
        with pytest.raises(ConnectionResetError):
            await client.reader.readexactly(1)
    client.writer.close()


@pytest.mark.anyio
async def test_a_delay_holds_data_back_in_each_direction(echo_relay: TcpRelay) -> None:
    client = await client_of(echo_relay)
    echo_relay.delay(0.1)
    started = time.monotonic()
    await client.ask(b"x")
    assert time.monotonic() - started >= 0.2
    client.writer.close()
