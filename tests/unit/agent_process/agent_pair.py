"""Both ends of a channel in one process, joined by a pair of queues, and services that tests control."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.agent.process.dispatch import Dispatch
from colab_bridge.agent.process.service import CallFailure, Reply, ServerStream, Service, StreamHandler
from colab_bridge.kernels.agent_traffic import LinkStream, Traffic

PATIENCE_S = 20.0


class QueueWire:
    """One end of a connection in memory; what is written to it comes out of the other end."""

    has_room = False

    def __init__(self) -> None:
        self.why = ""
        self.other: QueueWire | None = None
        self.written = b""
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._ended = False

    def feed(self, data: bytes) -> None:
        self._incoming.put_nowait(data)

    async def read(self) -> bytes:
        if self._ended:
            return b""
        data = await self._incoming.get()
        self._ended = not data
        return data

    def write_now(self, data: bytes) -> None:
        raise AssertionError("there is never room")

    async def write(self, data: bytes) -> None:
        if self.other is not None:
            self.other.feed(data)
        else:
            self.written += data
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.feed(b"")
        if self.other is not None:
            self.other.feed(b"")


def wire_pair() -> tuple[QueueWire, QueueWire]:
    left, right = QueueWire(), QueueWire()
    left.other, right.other = right, left
    return left, right


class Handler:
    """Takes whatever a stream brings, at either end."""

    def __init__(self, *, consume: bool = True) -> None:
        self.stream: LinkStream | ServerStream | None = None
        self.consume = consume
        self.pieces: list[StreamData] = []
        self.calls: list[str] = []
        self.gaps: list[tuple[int, int]] = []
        self.end: tuple[str, str] | None = None
        self.unacknowledged: list[Piece] | None = None
        self._changed = anyio.Event()

    def _note(self, what: str) -> None:
        self.calls.append(what)
        self._changed.set()
        self._changed = anyio.Event()

    def opened(self) -> None:
        self._note("opened")

    def data(self, piece: StreamData) -> None:
        self.pieces.append(piece)
        if self.consume:
            assert self.stream is not None
            self.stream.consumed(piece.seq)
        self._note("data")

    def gap(self, first: int, last: int) -> None:
        self.gaps.append((first, last))
        self._note("gap")

    def writable(self) -> None:
        self._note("writable")

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        self.unacknowledged = list(unacknowledged)
        self._note("lost")

    def closed(self, code: str, message: str) -> None:
        self.end = (code, message)
        self._note("closed")

    async def until(self, what: str, count: int = 1) -> None:
        with anyio.fail_after(PATIENCE_S):
            while self.calls.count(what) < count:
                await self._changed.wait()


class TestService:
    """Answers as a test wants."""

    __test__ = False
    name = "test"

    def __init__(self) -> None:
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.handlers: list[Handler] = []
        self.peer: Any = None

    def start(self, peer: Any) -> None:
        self.peer = peer

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        if verb == "fail":
            raise CallFailure("nope", "not today", {"why": 1})
        if verb == "crash":
            raise ValueError("a defect")
        if verb == "huge":
            return Reply({}, bytes(3_000_000))
        if verb == "wait":
            return await self._wait()
        return Reply({"verb": verb, **params}, payload)

    async def _wait(self) -> Reply:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return Reply({"done": True})

    def open(self, stream: ServerStream) -> StreamHandler:
        if stream.name == "test.no":
            raise CallFailure("unreachable", "there is no such thing")
        if stream.name == "test.crash":
            raise ValueError("a defect")
        handler = Handler(consume=stream.params.get("consume", True))
        handler.stream = stream
        self.handlers.append(handler)
        return handler

    def busy(self) -> bool:
        return False

    async def stop(self) -> None:
        pass


class Pair:
    """A daemon's end and an agent's end."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.dispatch = Dispatch({service.name: service for service in services}, time.monotonic)
        self.links: list[bool] = []
        self.notified: list[tuple[str, Mapping[str, Any], bytes]] = []
        self.traffic = self.new_traffic()
        self._tasks: list[asyncio.Task[str]] = []

    def new_traffic(self) -> Traffic:
        return Traffic(
            time.monotonic,
            [("test.", lambda *said: self.notified.append(said))],
            self.links.append,
        )

    async def connect(self) -> None:
        """Join the ends, after cutting what joined them before."""
        await self.cut()
        count = len(self.links)
        left, right = wire_pair()
        self._tasks = [
            asyncio.ensure_future(self.traffic.pump.carry(left)),
            asyncio.ensure_future(self.dispatch.pump.carry(right)),
        ]
        with anyio.fail_after(PATIENCE_S):
            while len(self.links) == count:
                await asyncio.sleep(0)

    async def cut(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def call(self, method: str, payload: bytes = b"", deadline_s: float = PATIENCE_S, **params: Any) -> Any:
        return await self.traffic.call(method, params, payload, deadline_s=deadline_s, bulk=False, compress=False)

    def open(self, name: str, handler: Handler, *, resume_from: int = 1, **params: Any) -> LinkStream:
        stream = self.traffic.open_stream(name, params, handler, bulk=False, resume_from=resume_from, compress=False)
        handler.stream = stream
        return stream


@contextlib.asynccontextmanager
async def joined(*services: Service) -> AsyncIterator[Pair]:
    pair = Pair(services)
    await pair.connect()
    try:
        yield pair
    finally:
        await pair.cut()
        pair.dispatch.close("the test ends")
        for pump in (pair.traffic.pump, pair.dispatch.pump):
            pump.stop()
        await asyncio.sleep(0)
