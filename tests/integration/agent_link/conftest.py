"""A server for the whole module; each test has a workspace and an agent of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_rig import ending_agents
from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from colab_bridge.testing.relay import TcpRelay


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JupyterChild]:
    async with start_jupyter_server(tmp_path_factory.mktemp("root")) as child:
        yield child


@pytest.fixture
async def relay(server: JupyterChild) -> AsyncIterator[TcpRelay]:
    async with TcpRelay("127.0.0.1", server.port) as found:
        yield found


@pytest.fixture
async def no_agents_left(tmp_path: Path) -> AsyncIterator[None]:
    async with ending_agents(tmp_path):
        yield
