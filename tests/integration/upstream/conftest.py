"""A real server with a kernel, the upstream to it through a relay, and a recorder of what it reports."""

from __future__ import annotations

import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from colab_bridge.kernels.fence import RequestFence, probe
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.kernels.upstream_ws import WebSocketUpstream
from colab_bridge.model.runtime import Endpoint
from colab_bridge.ports.upstream import LinkState, UpstreamEvents
from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from colab_bridge.testing.relay import TcpRelay
from colab_bridge.wire.message import RawMessage


def quick_backoff() -> Iterator[float]:
    """Wait 0.1 s between tries: the tests cut links on purpose."""
    while True:
        yield 0.1


class Recorder:
    """Drives an upstream as the hub does, and keeps all that it reports."""

    def __init__(self, upstream: WebSocketUpstream, kernel_id: str) -> None:
        self.upstream = upstream
        self.kernel_id = kernel_id
        self.messages: list[RawMessage] = []
        # Asked for after each of thousands of messages.
        self._by_request: defaultdict[tuple[str, str], list[RawMessage]] = defaultdict(list)
        self.states: list[tuple[LinkState, str]] = []
        self.gaps: list[str] = []
        self._changed = anyio.Event()
        self._fence = RequestFence()
        self.resent = 0
        self._running: set[str] = set()

    @property
    def events(self) -> UpstreamEvents:
        return UpstreamEvents(message=self._on_message, state=self._on_state, gap=self._on_gap)

    def _on_message(self, message: RawMessage) -> None:
        self.messages.append(message)
        self._by_request[message.parent_id, message.msg_type].append(message)
        for request in self._fence.received(message):
            self.resent += 1
            self.upstream.send(request)
        # Output may come behind the reply, so a cell has ended when its idle has come too.
        if message.msg_type in ("execute_reply", "status") and self.ended(message.parent_id):
            self._running.discard(message.parent_id)
            self.upstream.set_busy(bool(self._running))
        self._wake()

    def _on_state(self, state: LinkState, text: str) -> None:
        self.states.append((state, text))
        if state is LinkState.RECONNECTING:
            self._fence.link_lost()
        if state is LinkState.CONNECTED and self._fence.pending():
            fence = probe(f"fence-{uuid.uuid4().hex}", "test")
            for message in self._fence.start(fence.msg_id):
                self.upstream.send(message)
            self.upstream.send(fence)
        self._wake()

    def _on_gap(self, reason: str) -> None:
        self.gaps.append(reason)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 15) -> None:
        with anyio.fail_after(timeout_s):
            while not condition():
                await self._changed.wait()

    async def until_state(self, state: LinkState, timeout_s: float = 15) -> None:
        await self.until(lambda: bool(self.states) and self.states[-1][0] is state, timeout_s)

    def submit(self, code: str) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": True,
        }
        msg_id = uuid.uuid4().hex
        message = RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session="test")
        self._running.add(msg_id)
        self.upstream.set_busy(True)
        self.upstream.send(message)
        self._fence.sent(message)
        return msg_id

    def of(self, msg_id: str, msg_type: str) -> list[RawMessage]:
        return self._by_request[msg_id, msg_type]

    def stdout(self, msg_id: str) -> str:
        return "".join(str(m.content_fields()["text"]) for m in self.of(msg_id, "stream"))

    def ended(self, msg_id: str) -> bool:
        idle = any(m.content_fields()["execution_state"] == "idle" for m in self.of(msg_id, "status"))
        return idle and bool(self.of(msg_id, "execute_reply"))

    async def execute(self, code: str, timeout_s: float = 20) -> str:
        msg_id = self.submit(code)
        await self.until(lambda: self.ended(msg_id), timeout_s)
        return msg_id


class Rig:
    """One server, a relay before it, and upstreams to kernels on it."""

    def __init__(self, child: JupyterChild, relay: TcpRelay) -> None:
        self.child = child
        self.relay = relay

    def endpoint(self, *, unlimited: bool = False) -> Endpoint:
        return self.child.endpoint(port=self.relay.port, unlimited_output=unlimited)

    @contextlib.asynccontextmanager
    async def link(
        self, *, unlimited: bool = False, ping_interval: float = 0.5, ping_timeout: float = 1.0
    ) -> AsyncIterator[Recorder]:
        """Start a kernel, connect to it, and end both afterwards."""
        server = JupyterServer(self.child.endpoint())
        kernel_id = await server.start_kernel()

        async def get_endpoint() -> Endpoint:
            return self.endpoint(unlimited=unlimited)

        upstream = WebSocketUpstream(
            get_endpoint,
            kernel_id,
            uuid.uuid4().hex,
            backoff=quick_backoff,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        recorder = Recorder(upstream, kernel_id)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upstream.run, recorder.events)
                await recorder.until_state(LinkState.CONNECTED)
                yield recorder
                tasks.cancel_scope.cancel()
        finally:
            await server.delete_kernel(kernel_id)
            await server.aclose()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def limited_server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JupyterChild]:
    root: Path = tmp_path_factory.mktemp("root")
    async with start_jupyter_server(root) as child:
        yield child


@pytest.fixture(scope="module")
async def unlimited_server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JupyterChild]:
    root: Path = tmp_path_factory.mktemp("root")
    async with start_jupyter_server(root, ZMQChannelsWebsocketConnection__limit_rate=False) as child:
        yield child


@pytest.fixture
async def limited(limited_server: JupyterChild) -> AsyncIterator[Rig]:
    async with TcpRelay("127.0.0.1", limited_server.port) as relay:
        yield Rig(limited_server, relay)


@pytest.fixture
async def unlimited(unlimited_server: JupyterChild) -> AsyncIterator[Rig]:
    async with TcpRelay("127.0.0.1", unlimited_server.port) as relay:
        yield Rig(unlimited_server, relay)
