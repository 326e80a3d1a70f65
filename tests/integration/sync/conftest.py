"""A session on a real Jupyter server, reached through a relay that hurts the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from colab_bridge.testing.jupyter import start_jupyter_server
from colab_bridge.testing.relay import TcpRelay
from daemon_home import DaemonHome
from sync_rig import SyncRig


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rig(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory, shared_home: DaemonHome
) -> AsyncIterator[SyncRig]:
    root = tmp_path_factory.mktemp("server")
    # Agents of other tests on this machine would be taken for this one's.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    async with start_jupyter_server(root) as server, TcpRelay("127.0.0.1", server.port) as relay:
        url = f"http://127.0.0.1:{relay.port}/?token={server.token}"
        body = {"project": str(shared_home.project), "name": "synced", "provider": "jupyter", "options": {"url": url}}
        client = shared_home.client()
        await anyio.to_thread.run_sync(lambda: client.post("/v1/sessions", body, timeout_s=60))
        try:
            yield SyncRig(shared_home, root, relay, "synced", url)
        finally:
            monkeypatch.undo()
            relay.restore()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: client.delete("/v1/sessions/synced", timeout_s=60))
