"""A server with the default limits on output, and sessions on it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from daemon_home import DaemonHome
from old_server import old_server_python
from tunnel_rig import TunnelRig, tunnel_session


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["current server", "jupyter_server 1.24 on Python 3.10"])
def server_python(request: pytest.FixtureRequest) -> str:
    return sys.executable if request.param == "current server" else old_server_python()


@pytest.fixture(scope="module")
async def default_server(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory, server_python: str
) -> AsyncIterator[JupyterChild]:
    async with start_jupyter_server(tmp_path_factory.mktemp("root"), python=server_python) as child:
        yield child


@pytest.fixture(scope="module")
async def shared_rig(shared_home: DaemonHome, default_server: JupyterChild) -> AsyncIterator[TunnelRig]:
    async with tunnel_session(shared_home, default_server) as found:
        yield found


@pytest.fixture
def rig(shared_rig: TunnelRig) -> TunnelRig:
    """The module's session; what a test before this one has done to the connection is undone."""
    shared_rig.relay.restore()
    return shared_rig
