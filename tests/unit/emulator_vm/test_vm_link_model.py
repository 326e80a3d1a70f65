"""The link of an emulated machine, piece by piece, over a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.testing.colab.vm.link import Link, Wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def carried(link: Link) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Wire]]:
    """Yield the client's streams and the machine's end."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        async with asyncio.timeout(10), link.carry(*await asyncio.open_connection(sock=ours)) as wire:
            yield reader, writer, wire
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def read_all(wire: Wire) -> bytes:
    found = b""
    while data := await wire.read():
        found += data
    return found


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.binary(min_size=1, max_size=200_000), max_size=6))
def test_bytes_arrive_once_and_in_order_both_ways(pieces: list[bytes]) -> None:
    async def there_and_back() -> None:
        link = Link()
        async with carried(link) as (reader, writer, wire):
            for piece in pieces:
                writer.write(piece)
            writer.write_eof()
            assert await read_all(wire) == b"".join(pieces)
            reading = asyncio.ensure_future(reader.read())
            for piece in pieces:
                await wire.write(piece)
            await wire.finish()
            assert await reading == b"".join(pieces)
        assert (link.bytes_up, link.bytes_down) == (len(b"".join(pieces)),) * 2

    asyncio.run(there_and_back())


@pytest.mark.parametrize("size", [0, 1, 70_000])
async def test_a_planned_cut_lets_exactly_so_many_bytes_through(size: int) -> None:
    async with carried(Link()) as (reader, _, wire):
        wire.cut_after(size)
        with pytest.raises(ConnectionResetError):
            await wire.write(bytes(200_000))
        assert len(await reader.read()) == size  # these sockets know no reset, so nothing overtakes the bytes


async def test_truncation_counts_over_all_connections_and_happens_once() -> None:
    link = Link()
    link.truncate_after(10)
    async with carried(link) as (first, _, wire), carried(link) as (second, _, other):
        await wire.write(b"1234567")
        assert await first.readexactly(7) == b"1234567"
        await other.write(b"abcdefg")
        assert await second.read() == b"abc"
        assert wire.is_open
        assert not other.is_open
        await wire.write(bytes(100))
        assert await first.readexactly(100) == bytes(100)


async def test_a_sender_waits_while_too_much_is_under_way_and_goes_on_after() -> None:
    link = Link()
    link.hang()
    async with carried(link) as (reader, _, wire):
        sending = asyncio.ensure_future(wire.write(bytes(3_000_000)))
        assert not (await asyncio.wait([sending], timeout=0.1))[0]
        link.restore()
        assert len(await reader.readexactly(3_000_000)) == 3_000_000
        await sending


async def test_what_is_written_to_a_cut_connection_is_refused() -> None:
    link = Link()
    async with carried(link) as (_, _, wire):
        link.cut()
        with pytest.raises(ConnectionResetError):
            await wire.write(b"x")
        assert await wire.read() == b""
    assert link.connections == 0
