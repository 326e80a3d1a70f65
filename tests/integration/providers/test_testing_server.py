"""The Jupyter server that tests start, also where its port is taken from under it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from colab_bridge.testing import jupyter


@pytest.mark.anyio
async def test_a_port_that_somebody_took_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = jupyter.free_port
        ports = [int(taken.getsockname()[1])]
        monkeypatch.setattr(jupyter, "free_port", lambda: ports.pop() if ports else free())
        async with jupyter.start_jupyter_server(tmp_path) as server:
            assert server.port != taken.getsockname()[1]
