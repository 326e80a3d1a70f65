"""A session on a real Jupyter server behind a relay that hurts the connection, reached through the agent's tunnel."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import websockets

from colab_bridge.errors import UserError
from colab_bridge.testing.jupyter import JupyterChild
from colab_bridge.testing.relay import TcpRelay
from colab_bridge.wire.jupyter_ws import V1_SUBPROTOCOL
from daemon_home import DaemonHome, Seen


async def in_thread(function: Callable[..., Any], *arguments: Any, **members: Any) -> Any:
    return await anyio.to_thread.run_sync(lambda: function(*arguments, **members), abandon_on_cancel=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelRig:
    """One session; runs are started and followed in threads, while the relay does its work."""

    home: DaemonHome
    server: JupyterChild
    relay: TcpRelay
    session: str

    async def view(self) -> dict[str, Any]:
        """Return the session as the API shows it."""
        found: dict[str, Any] = await in_thread(self.home.client().get, f"/v1/sessions/{self.session}")
        return found

    async def start(self, code: str, **members: Any) -> str:
        """Start code that nobody watches yet, and return the run's id."""
        run = await in_thread(self.home.start, "code", code=code, session=self.session, **members)
        return str(run["id"])

    async def code(self, code: str) -> Seen:
        """Run code to its end."""
        seen: Seen = await in_thread(self.home.code, code, session=self.session)
        return seen

    async def until_text(self, run_id: str, text: str) -> None:
        """Wait until the record holds a text."""
        await in_thread(self.home.until_text, run_id, text)

    async def follow(self, run_id: str) -> Seen:
        """Follow a run to its end."""
        seen: Seen = await in_thread(self.home.follow, run_id)
        return seen

    async def remote_kernel(self) -> str:
        """Return the server's id of the session's only kernel."""
        return str((await self.view())["kernels"][0]["remote_id"])

    @contextlib.asynccontextmanager
    async def other_viewer(self) -> AsyncIterator[None]:
        """Have another tool's WebSocket open on the kernel, straight at the server."""
        url = f"ws://127.0.0.1:{self.server.port}/api/kernels/{await self.remote_kernel()}/channels?session_id=other"
        headers = {"Authorization": f"token {self.server.token}"}
        async with websockets.connect(
            url, additional_headers=headers, subprotocols=[websockets.Subprotocol(V1_SUBPROTOCOL)], max_size=None
        ) as socket:

            async def drain() -> None:
                with contextlib.suppress(websockets.ConnectionClosed):
                    async for _ in socket:
                        pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drain)
                yield
                tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def tunnel_session(home: DaemonHome, server: JupyterChild) -> AsyncIterator[TunnelRig]:
    """Make a session through a relay, with one kernel in the tunnel; it is stopped afterwards."""
    async with TcpRelay("127.0.0.1", server.port) as relay:
        name = f"tunnel-{relay.port}"
        url = f"http://127.0.0.1:{relay.port}/?token={server.token}"
        env = {"COLAB_BRIDGE_TRANSPORT": "tunnel"}
        body = {"project": str(home.project), "name": name, "provider": "jupyter", "options": {"url": url}, "env": env}
        await in_thread(home.client().post, "/v1/sessions", body)
        rig = TunnelRig(home=home, server=server, relay=relay, session=name)
        try:
            seen = await rig.code("print('ready')")
            assert seen.text() == "ready\n", json.dumps(await rig.view())
            assert (await rig.view())["kernels"][0]["transport"] == "tunnel"
            yield rig
        finally:
            relay.restore()
            # A test may have ended the session itself.
            with anyio.CancelScope(shield=True), contextlib.suppress(UserError):
                await in_thread(home.client().delete, f"/v1/sessions/{name}", timeout_s=40)


def numbered(count: int) -> str:
    """Return the lines 0 to ``count - 1`` as a program prints them."""
    return "".join(f"{number}\n" for number in range(count))


def nothing_lost(home: DaemonHome, seen: Seen) -> bool:
    """Whether a run says that nothing is missing."""
    return seen.of("lost") == [] and not home.view(seen.run_id)["output_may_be_lost"]
