"""Ways from a controller to a files service: in this process, over the real channel, or to a real agent process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colab_bridge.agent.process.dispatch import Dispatch
from colab_bridge.agent.process.peer import ServicePeer
from colab_bridge.agent.process.preamble import MOST_BYTES, dump_line
from colab_bridge.agent.process.service import Reply
from colab_bridge.agent.process.wire import read_line
from colab_bridge.agent.sync.service import FilesService
from colab_bridge.kernels.agent_bundle import Bundle
from colab_bridge.kernels.agent_link import AgentLink, AgentStatus
from colab_bridge.kernels.agent_local import LocalDialer
from colab_bridge.kernels.agent_socket import Dialer, Mode
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sync.inprocess import InProcessCaller
from colab_bridge.sync.link import LinkCaller

PATIENCE_S = 30.0
WELCOME = dump_line({"v": 1, "ok": True, "agent": "rows", "pid": 1})
_HEAD = 60

Tamper = Callable[[str, bytes], "list[bytes] | None"]
"""Given ``up`` or ``down`` and one frame: what is delivered instead; None cuts the connection."""


def frames_in(data: bytes) -> Iterator[bytes]:
    """Split bytes of the channel into its frames (docs/design/channel.md)."""
    while data:
        size = _HEAD + int.from_bytes(data[44:48], "big") + int.from_bytes(data[48:52], "big")
        yield data[:size]
        data = data[size:]


class Wire:
    """One end of a connection in memory; a test may change, hold back, double or cut what goes through."""

    has_room = False

    def __init__(self, direction: str, tamper: Tamper | None) -> None:
        self.why = ""
        self.direction = direction
        self.tamper = tamper
        self.other: Wire | None = None
        self.greeted = False
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
        assert self.other is not None
        if self.tamper is None or not self.greeted:
            self.greeted = True
            self.other.feed(data)
        else:
            for frame in frames_in(data):
                changed = self.tamper(self.direction, frame)
                if changed is None:
                    await self.aclose()
                    return
                for piece in changed:
                    self.other.feed(piece)
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.feed(b"")
        if self.other is not None:
            self.other.feed(b"")


class _AgentFacts:
    """The service that an agent greets with."""

    name = "agent"

    def start(self, peer: Any) -> None:
        pass

    async def call(self, verb: str, params: Any, payload: bytes, timeout_s: float) -> Reply:
        return Reply({"pid": 1})

    def open(self, stream: Any) -> Any:
        raise AssertionError("no stream is opened")

    def busy(self) -> bool:
        return False

    async def stop(self) -> None:
        pass


class ChannelDialer:
    """Dials a files service in this process; both ends of the real channel run."""

    mode: Mode = "tunnel"
    content_hash = "rows"

    def __init__(self, service: FilesService, folder: Path, cwd: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.service = service
        self.tamper: Tamper | None = None
        self.refuse = False
        self.dials = 0
        services: dict[str, Any] = {"files": service, "agent": _AgentFacts()}
        self.dispatch = Dispatch(services, time.monotonic)
        self.peer = ServicePeer(
            name="files",
            folder=folder,
            loop=asyncio.get_running_loop(),
            notify=lambda method, params, payload, bulk: self.dispatch.notify(method, params, payload, bulk=bulk),
            hints=lambda: {"cwd": str(cwd)},
            disk_room=lambda: 1 << 40,
            linked=lambda: True,
        )
        service.start(self.peer)
        self._wires: list[Wire] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def dial(self) -> Wire:
        from colab_bridge.errors import TransientError

        self.dials += 1
        if self.refuse:
            raise TransientError("the line is down")
        mine, theirs = Wire("up", self.tamper), Wire("down", self.tamper)
        mine.other, theirs.other = theirs, mine
        self._wires = [mine, theirs]
        self._tasks.append(asyncio.create_task(self._serve(theirs)))
        return mine

    async def _serve(self, wire: Wire) -> None:
        line, rest = await read_line(wire.read, MOST_BYTES)
        if not line:
            return
        await wire.write(WELCOME)
        await self.dispatch.pump.carry(wire, rest)

    def start_over(self) -> None:
        pass

    async def cut(self) -> None:
        for wire in self._wires:
            await wire.aclose()

    async def aclose(self) -> None:
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.dispatch.close("the test ends")
        self.dispatch.pump.stop()
        await self.service.stop()
        self.peer.close()


@contextlib.asynccontextmanager
async def running_link(dialer: Dialer, owner: str = "rows") -> Any:
    link = AgentLink(dialer, owner, f"{owner}@test", backoff=lambda: itertools.repeat(0.02))
    told: list[AgentStatus] = []
    task = asyncio.create_task(link.run(told.append))
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def agent_process(folder: Path, bundle: Bundle | None = None, *, stop: bool = True) -> Any:
    """A real agent process on this machine and the link to it; ended by its own verb, or left to another one."""
    (folder / "runtime").mkdir(parents=True, exist_ok=True)
    dialer = LocalDialer(
        sys.executable,
        folder / "bundles",
        [folder / "runtime"],
        "rows",
        "rows",
        hints={"cwd": str(folder)},
        bundle=bundle,
    )
    async with running_link(dialer) as link:
        status = await link.ready(PATIENCE_S)
        assert status.state is LinkState.CONNECTED, status.text
        try:
            yield link
        finally:
            if stop:
                await link.call("agent.stop")


class DirectWay:
    """Calls the service in this process."""

    def __init__(self) -> None:
        self.caller: InProcessCaller | None = None

    async def open(self, folder: Path, cwd: Path) -> Any:
        self.caller = InProcessCaller(folder, cwd)
        return self.caller

    @property
    def service(self) -> FilesService:
        assert self.caller is not None
        return self.caller.service

    async def aclose(self) -> None:
        if self.caller is not None:
            await self.caller.aclose()


class ChannelWay:
    """The service in this process, behind both ends of the real channel."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self.dialer: ChannelDialer | None = None
        self.link: AgentLink | None = None

    async def open(self, folder: Path, cwd: Path) -> LinkCaller:
        self.dialer = ChannelDialer(FilesService(), folder, cwd)
        self._stack.push_async_callback(self.dialer.aclose)
        self.link = await self._stack.enter_async_context(running_link(self.dialer))
        status = await self.link.ready(PATIENCE_S)
        assert status.state is LinkState.CONNECTED, status.text
        return LinkCaller(self.link)

    @property
    def service(self) -> FilesService:
        assert self.dialer is not None
        return self.dialer.service

    async def aclose(self) -> None:
        await self._stack.aclose()
        self._stack = contextlib.AsyncExitStack()


class ProcessWay:
    """A real agent process that many pairs share; each one says goodbye to its own folder."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link
        self.roots: set[str] = set()

    async def open(self, folder: Path, cwd: Path) -> LinkCaller:
        return LinkCaller(self.link)

    async def aclose(self) -> None:
        for root in self.roots:
            with contextlib.suppress(Exception):
                await self.link.call("files.bye", {"w": root})
