"""Ports of a runtime through the channel: real sockets at both ends, the channel in memory between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from agent_pair import PATIENCE_S, Handler, Pair, joined
from colab_bridge.agent.forward.service import ForwardService
from colab_bridge.sessions.forwards import Forwards

pytestmark = pytest.mark.anyio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Link:
    """What forwards use of a link, over a pair."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    async def ready(self, timeout_s: float) -> None:
        return None

    def open_stream(self, name: str, params: Any, *, handler: Any, bulk: bool = False) -> Any:
        return self.pair.traffic.open_stream(name, params, handler, bulk=bulk, resume_from=1, compress=False)


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    busy: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            with contextlib.suppress(OSError):
                await serve(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            busy.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if busy:
            _, left = await asyncio.wait(busy, timeout=PATIENCE_S)
            assert not left


@contextlib.asynccontextmanager
async def forwarded(serve: Serve) -> AsyncIterator[tuple[Pair, int]]:
    async with serving(serve) as port, joined(ForwardService()) as pair:
        forwards = Forwards(lambda name: name, lambda _session: Link(pair))  # type: ignore[arg-type,return-value]
        forward = await forwards.add("s", port, 0)
        assert forward.warning == ""
        try:
            yield pair, forward.local_port
        finally:
            forwards.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"<end>")


async def test_bytes_go_both_ways_and_the_end_of_one_way_leaves_the_other_open() -> None:
    async with forwarded(echo) as (_pair, port):
        with anyio.fail_after(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.write_eof()
            assert await reader.read() == b"<end>"
            writer.close()


async def test_much_passes_whole_and_in_order() -> None:
    async with forwarded(echo) as (_pair, port):
        data = bytes(range(256)) * 40_000  # 10 MB, more than any window
        with anyio.fail_after(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                got = await reader.read()
            assert got == data + b"<end>"
            writer.close()


async def test_a_connection_lives_through_a_cut_link() -> None:
    async with forwarded(echo) as (pair, port):
        with anyio.fail_after(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            await pair.cut()
            writer.write(b"two")
            await pair.connect()
            assert await reader.readexactly(3) == b"two"
            writer.close()


async def test_several_connections_do_not_mix() -> None:
    async with forwarded(echo) as (_pair, port):

        async def talk(word: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(20):
                writer.write(word)
                assert await reader.readexactly(len(word)) == word
            writer.write_eof()
            assert await reader.read() == b"<end>"
            writer.close()

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(talk, f"word {number}".encode())


async def test_the_program_that_hangs_up_ends_the_connection_here() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    async with forwarded(hang_up) as (_pair, port):
        with anyio.fail_after(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"bye"
            writer.close()


async def test_a_port_on_which_nothing_listens_is_said_at_once() -> None:
    async with joined(ForwardService()) as pair:
        async with serving(echo) as port:
            pass
        forwards = Forwards(lambda name: name, lambda _session: Link(pair))  # type: ignore[arg-type,return-value]
        forward = await forwards.add("s", port, 0)
        assert f"nothing listens on port {port}" in forward.warning
        forwards.close()


@pytest.mark.parametrize("port", [0, 65_536, -1, "80", None, True, 1.5])
async def test_what_is_no_port_is_refused(port: object) -> None:
    async with joined(ForwardService()) as pair:
        handler = Handler()
        pair.open("forward.tcp", handler, port=port)
        await handler.until("closed")
        assert handler.end is not None
        assert handler.end[0] == "bad_request"


async def test_the_end_of_a_session_ends_its_ports() -> None:
    async with serving(echo) as port, joined(ForwardService()) as pair:
        forwards = Forwards(lambda name: name, lambda _session: Link(pair))  # type: ignore[arg-type,return-value]
        forward = await forwards.add("s", port, 0)
        with anyio.fail_after(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", forward.local_port)
            forwards.session_ended("s")
            assert await reader.read() == b""
            writer.close()
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection("127.0.0.1", forward.local_port)
