"""What a server, or whatever answers in its place, can do to the WebSocket of the doorman kernel."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from agent_rig import PATIENCE_S
from colab_bridge.errors import TransientError
from colab_bridge.kernels.agent_errors import AgentUnavailableError
from colab_bridge.kernels.agent_socket import DOORMAN_TYPE, MOST_MESSAGE_BYTES, DoormanSocket, DoormanWire
from colab_bridge.kernels.socket_ws import KernelSocket
from colab_bridge.wire.jupyter_ws import V1_SUBPROTOCOL, decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage

pytestmark = pytest.mark.anyio

Script = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def door_to(script: Script) -> AsyncIterator[DoormanSocket]:
    """A doorman's socket whose server is the script."""

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await script(connection)

    protocols = [Subprotocol(V1_SUBPROTOCOL)]
    async with serve(handle, "127.0.0.1", 0, subprotocols=protocols, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        connection = await connect(
            f"ws://127.0.0.1:{port}/",
            subprotocols=protocols,
            max_size=MOST_MESSAGE_BYTES,
            create_connection=KernelSocket,
            ping_interval=None,
            close_timeout=1,
            proxy=None,
        )
        assert isinstance(connection, KernelSocket)
        door = DoormanSocket(connection, "session")
        try:
            yield door
        finally:
            await door.aclose()


def message(
    channel: str, msg_type: str, content: Any, *, parent: dict[str, Any] | None = None, data: bytes = b""
) -> bytes:
    buffers = (data,) if data else ()
    return encode_v1(
        RawMessage.build(channel, msg_type, content, msg_id="m", session="s", parent=parent, buffers=buffers)
    )


def from_agent(data: bytes, **content: str) -> bytes:
    return message("stdin", DOORMAN_TYPE, content, data=data)


async def read_with(script: Script) -> tuple[bytes, DoormanWire, list[str]]:
    ended: list[str] = []
    async with door_to(script) as door:
        wire = DoormanWire(door, "tunnel", lambda: ended.append("ended"))
        with anyio.fail_after(PATIENCE_S):
            return await wire.read(), wire, ended


async def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(from_agent(bytes(MOST_MESSAGE_BYTES + 1)))
        await connection.wait_closed()

    data, wire, ended = await read_with(script)
    assert (data, wire.why, ended) == (b"", "the server sent something that is too long or no WebSocket message", [])


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x05" + bytes(40)])
async def test_what_is_no_kernel_message_ends_the_connection(data: bytes) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(data)
        await connection.wait_closed()

    found, wire, _ended = await read_with(script)
    assert found == b""
    assert wire.why.startswith("the server sent a message that cannot be read")


async def test_a_flood_of_other_messages_hides_nothing_and_holds_up_nobody() -> None:
    async def script(connection: ServerConnection) -> None:
        for _ in range(2000):
            await connection.send(message("iopub", "stream", {"text": "x" * 1000}))
            await connection.send(message("stdin", "input_request", {"prompt": "password:"}))
            await asyncio.sleep(0)  # the server shares the loop with what is tested
        await connection.send(from_agent(b"at last"))
        await connection.wait_closed()

    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        assert (await read_with(script))[0] == b"at last"
        tasks.cancel_scope.cancel()
    assert beats > 10


@pytest.mark.parametrize("state", ["restarting", "dead"])
async def test_the_death_of_the_kernel_is_noticed_at_once(state: str) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(message("iopub", "status", {"execution_state": state}))
        await connection.wait_closed()

    data, wire, ended = await read_with(script)
    assert (data, wire.why, ended) == (
        b"",
        "the kernel that leads to the agent has died; another one is made",
        ["ended"],
    )


async def test_the_words_of_the_doorman_are_one_clean_line() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(from_agent(b"", op="closed", why="\x1b[2J gone\n" + "x" * 5000))
        await connection.wait_closed()

    data, wire, ended = await read_with(script)
    assert data == b""
    assert ended == ["ended"]
    assert wire.why.startswith("[2J gone x")
    assert len(wire.why) <= 300


async def answering(connection: ServerConnection, content: dict[str, Any]) -> None:
    raw = await connection.recv()
    assert isinstance(raw, bytes)
    await connection.send(message("shell", "execute_reply", {}, parent={"msg_id": "of somebody else"}))
    await connection.send(message("shell", "execute_reply", content, parent=decode_v1(raw).header_fields()))
    await connection.wait_closed()


def said(text: str) -> dict[str, Any]:
    return {"status": "ok", "user_expressions": {"answer": {"status": "ok", "data": {"text/plain": text}}}}


async def test_an_answer_in_order_is_read() -> None:
    async def script(connection: ServerConnection) -> None:
        await answering(connection, said(repr(json.dumps({"ok": True}))))

    async with door_to(script) as door:
        assert await door.execute("code", PATIENCE_S) == {"ok": True}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"status": "ok"},
        {"status": "ok", "user_expressions": []},
        {"status": "ok", "user_expressions": {"answer": 5}},
        said(""),
        said("__import__('os').system('true')"),
        said("5"),
        said("'[]'"),
        said("(" * 50_000),
        said(repr("[" * 50_000)),
        {"status": "error", "ename": "\x1b[31mNameError", "evalue": "line\nline"},
    ],
    ids=lambda content: str(content)[:40],
)
async def test_an_answer_without_sense_is_one_sentence(content: dict[str, Any]) -> None:
    async def script(connection: ServerConnection) -> None:
        await answering(connection, content)

    async with door_to(script) as door:
        with pytest.raises(AgentUnavailableError) as failed:
            await door.execute("code", PATIENCE_S)
        assert failed.value.message.isprintable()


async def test_a_server_that_says_nothing_while_the_agent_is_brought_up_is_given_up() -> None:
    over = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await over.wait()
        connection.transport.resume_reading()

    async with door_to(script) as door:
        with pytest.raises(TransientError, match="nothing came from the server"):
            await door.execute("code", PATIENCE_S)
        over.set()
