"""A local connection of the agent, and how a channel is driven over it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_pair import PATIENCE_S
from colab_bridge.agent.channel import Channel
from colab_bridge.agent.events import Event, LinkUp
from colab_bridge.agent.process.pump import Pump
from colab_bridge.agent.process.wire import Listener, LocalWire, open_local, read_line

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def connection(folder: Path) -> AsyncIterator[tuple[LocalWire, LocalWire]]:
    """Both ends of a connection."""
    accepted: asyncio.Queue[LocalWire] = asyncio.Queue()
    done = asyncio.Event()

    async def accept(wire: LocalWire) -> None:
        await accepted.put(wire)
        await done.wait()

    listener = Listener(folder, accept)
    here = await open_local(await listener.open(), LocalWire)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield here, await accepted.get()
    finally:
        done.set()
        await here.aclose()
        await listener.close()


async def read_all(wire: LocalWire, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await wire.read()
    return found


async def test_bytes_come_in_order_and_the_end_is_told_again_and_again(tmp_path: Path) -> None:
    async with connection(tmp_path) as (here, there):
        await here.write(b"one")
        here.write_now(b"two")
        assert await read_all(there, 6) == b"onetwo"
        await here.aclose()
        assert [await there.read(), await there.read()] == [b"", b""]
        await there.write(b"swallowed")


async def test_what_is_read_too_much_is_not_lost(tmp_path: Path) -> None:
    async with connection(tmp_path) as (here, there):
        await here.write(b"a line\nand more")
        line, rest = await read_line(there.read, 100)
        there.unread(rest)
        assert line == b"a line"
        assert await there.read() == b"and more"


async def test_what_nobody_reads_holds_up_the_other_end_and_comes_whole_later(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    async with connection(tmp_path) as (here, there):
        writing = asyncio.ensure_future(here.write(data))
        await asyncio.sleep(0.05)
        assert not writing.done()
        assert not here.has_room
        assert await read_all(there, len(data)) == data
        await writing
        while not here.has_room:
            await asyncio.sleep(0)


async def test_two_channels_that_are_pumped_over_it_find_each_other(tmp_path: Path) -> None:
    events: dict[str, list[Event]] = {"client": [], "server": []}
    async with connection(tmp_path) as (here, there):
        client = Pump(Channel("client", now=time.monotonic()), events["client"].append)
        server = Pump(Channel("server", now=time.monotonic()), events["server"].append)
        tasks = [asyncio.ensure_future(client.carry(here)), asyncio.ensure_future(server.carry(there))]
        while not (client.channel.is_up and server.channel.is_up):
            await asyncio.sleep(0.001)
        assert [type(event) for event in events["client"]] == [LinkUp]
        client.channel.close("enough")
        client.kick()
        assert await asyncio.gather(*tasks) == ["enough", "enough"]
        client.stop()
        server.stop()
