"""What a runtime does not allow: the session works without it and says so in one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.testing.jupyter import start_jupyter_server
from daemon_home import DaemonHome
from tunnel_rig import in_thread

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="the server gets its environment from a shell script"),
]


def python_with(folder: Path, **environ: str) -> str:
    """Return an interpreter that starts with variables of its own."""
    script = folder / "python"
    values = " ".join(f"{name}='{value}'" for name, value in environ.items())
    script.write_text(f"#!/bin/sh\nexec env {values} '{sys.executable}' \"$@\"\n")
    script.chmod(0o755)
    return str(script)


@contextlib.asynccontextmanager
async def session_on(home: DaemonHome, name: str, root: Path, **traits: Any) -> AsyncIterator[str]:
    """Give a session with the usual settings on a server of its own; its project is its own too."""
    root.mkdir()
    project = home.new_project(name)
    async with start_jupyter_server(root, **traits) as server:
        url = f"{server.base_url}/?token={server.token}"
        body = {"project": str(project), "name": name, "provider": "jupyter", "options": {"url": url}, "env": {}}
        await in_thread(home.client().post, "/v1/sessions", body)
        try:
            yield name
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(home.client().delete, f"/v1/sessions/{name}", timeout_s=40)


async def test_on_a_server_with_room_for_one_kernel_it_is_the_users(shared_home: DaemonHome, tmp_path: Path) -> None:
    python = python_with(tmp_path, PYTHONPATH=str(Path(__file__).parent))
    traits = {"ServerApp__kernel_manager_class": "one_kernel.OneKernel"}
    async with session_on(shared_home, "one", tmp_path / "one", python=python, **traits) as name:
        assert (await in_thread(shared_home.code, "print('mine')", session=name)).text() == "mine\n"
        await in_thread(shared_home.kill_daemon)
        assert (await in_thread(shared_home.code, "print('still')", session=name)).text() == "still\n"
        view = await in_thread(shared_home.client().get, f"/v1/sessions/{name}")
        assert view["transport"]["mode"] == "none"
        assert "\n" not in view["transport"]["text"]
        assert "kernel" in view["transport"]["text"]


async def test_a_home_that_takes_no_files_is_told_and_the_tunnel_works(shared_home: DaemonHome, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("not a folder")
    python = python_with(tmp_path, XDG_DATA_HOME=str(nowhere / "data"), XDG_CACHE_HOME=str(nowhere / "cache"))
    async with session_on(shared_home, "homeless", tmp_path / "root", python=python) as name:
        assert (await in_thread(shared_home.code, "print('here')", session=name)).text() == "here\n"
        view = await in_thread(shared_home.client().get, f"/v1/sessions/{name}")
        assert view["transport"]["mode"] == "tunnel"
        (sentence,) = view["transport"]["degraded"]
        assert "agent keeps its files in" in sentence
