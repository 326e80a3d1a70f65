"""An agent behind a real Jupyter server behind a relay, the link to it, and a receiver of what comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import psutil

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.kernels.agent_bootstrap import DoormanDialer, FileMemory
from colab_bridge.kernels.agent_bundle import Bundle
from colab_bridge.kernels.agent_link import AgentLink, AgentStatus, LinkStream
from colab_bridge.kernels.agent_local import LocalDialer
from colab_bridge.kernels.agent_socket import Dialer, Mode
from colab_bridge.model.runtime import Endpoint
from colab_bridge.ports.upstream import LinkState
from colab_bridge.testing.jupyter import JupyterChild
from colab_bridge.testing.relay import TcpRelay

PATIENCE_S = 40.0


def quick_backoff() -> Iterator[float]:
    """Wait 0.1 s between tries: the tests cut links on purpose."""
    while True:
        yield 0.1


class Receiver:
    """Takes a stream, and remembers the numbers that came."""

    def __init__(self, *, consume: bool = True) -> None:
        self.stream: LinkStream | None = None
        self.consume = consume
        self.size_bytes = 0
        self.numbers: list[int] = []
        self.payloads: list[bytes] = []
        self.unacknowledged: list[Piece] | None = None
        self.end: tuple[str, str] | None = None
        self.ended = anyio.Event()
        self._changed = anyio.Event()

    def opened(self) -> None:
        self._wake()

    def data(self, piece: StreamData) -> None:
        self.size_bytes += len(piece.payload)
        if piece.header is not None:
            self.numbers.append(piece.number)
        self.payloads.append(piece.payload[:64])
        if self.consume:
            assert self.stream is not None
            self.stream.consumed(piece.seq)
        self._wake()

    def gap(self, first: int, last: int) -> None:
        raise AssertionError("no gap was expected")

    def writable(self) -> None:
        self._wake()

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        self.unacknowledged = list(unacknowledged)
        self.ended.set()

    def closed(self, code: str, message: str) -> None:
        self.end = (code, message)
        self.ended.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until_bytes(self, size: int) -> None:
        with anyio.fail_after(PATIENCE_S):
            while self.size_bytes < size:
                await self._changed.wait()

    async def until_ended(self) -> None:
        with anyio.fail_after(PATIENCE_S):
            await self.ended.wait()


class Rig:
    """One link and what it says about itself."""

    def __init__(self, dialer: Dialer, owner: str) -> None:
        self.dialer = dialer
        self.link = AgentLink(dialer, owner, f"{owner}@test", backoff=quick_backoff)
        self.told: list[AgentStatus] = []
        self._changed = anyio.Event()

    def on_status(self, status: AgentStatus) -> None:
        self.told.append(status)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[AgentStatus], bool]) -> AgentStatus:
        """Wait for a status that will be told, or is the case."""
        with anyio.fail_after(PATIENCE_S):
            while not condition(self.link.status):
                await self._changed.wait()
        return self.link.status

    async def until_connected(self) -> None:
        await self.until(lambda status: status.state is LinkState.CONNECTED)

    async def pid(self) -> int:
        """The agent's process id."""
        return int((await self.link.call("agent.hello", deadline_s=PATIENCE_S))[0]["pid"])

    def source(self, size_bytes: int, *, bulk: bool = False, consume: bool = True) -> Receiver:
        receiver = Receiver(consume=consume)
        receiver.stream = self.link.open_stream("echo.source", {"bytes": size_bytes}, handler=receiver, bulk=bulk)
        return receiver

    def mirror(self) -> Receiver:
        receiver = Receiver()
        receiver.stream = self.link.open_stream("echo", handler=receiver)
        return receiver


@contextlib.asynccontextmanager
async def running(dialer: Dialer, owner: str = "daemon-1") -> AsyncIterator[Rig]:
    """Run a link."""
    rig = Rig(dialer, owner)
    task = asyncio.create_task(rig.link.run(rig.on_status))
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def ending_agents(*folders: Path) -> AsyncIterator[None]:
    """End every agent whose folder is below one of these, by its id."""
    try:
        yield
    finally:
        found = [process for process in psutil.process_iter() if _serves_below(process, folders)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(psutil.wait_procs, found, 10)


def _serves_below(process: psutil.Process, folders: Sequence[Path]) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.Error:
        return False
    if "serve" not in arguments:
        return False
    return any(argument.startswith(str(folder)) for argument in arguments for folder in folders)


def doorman_dialer(
    server: JupyterChild,
    tmp_path: Path,
    *,
    relay: TcpRelay | None = None,
    owner: str = "daemon-1",
    bundle: Bundle | None = None,
    mode: Mode = "tunnel",
    **options: Any,
) -> DoormanDialer:
    async def endpoint() -> Endpoint:
        return server.endpoint(port=relay.port if relay else None)

    return DoormanDialer(
        endpoint,
        f"ws-{tmp_path.name}"[:64],
        owner,
        memory=FileMemory(tmp_path / f"doorman-{owner}.json"),
        options={"bases": [str(tmp_path / "runtime")], **options},
        bundle=bundle,
        mode=mode,
    )


def local_dialer(tmp_path: Path, owner: str = "daemon-1", *, bases: Sequence[Path] = (), **options: Any) -> LocalDialer:
    return LocalDialer(
        sys.executable,
        tmp_path / "bundles",
        list(bases) or [tmp_path / "runtime"],
        "ws-1",
        owner,
        options=options,
    )


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child: nothing tells us, so we look."""
    with anyio.fail_after(PATIENCE_S):
        while is_running(pid):
            await anyio.sleep(0.05)
