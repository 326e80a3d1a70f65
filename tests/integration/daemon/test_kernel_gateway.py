"""A Kernel Gateway: kernels behind a server that has no contents, no sessions and no page."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_bridge._util.process import identify, terminate
from colab_bridge.errors import AuthError
from daemon_home import DaemonHome, end_by_id, eventually

TOKEN = "gateway-token"


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, shared_home: DaemonHome) -> Iterator[str]:
    """The address of a running gateway, without its token."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["ip=127.0.0.1", f"port={port}", "port_retries=0"]
    argv = [sys.executable, "-m", "kernel_gateway", *(f"--KernelGatewayApp.{option}" for option in options)]
    environ = {**os.environ, "KG_AUTH_TOKEN": TOKEN, "JUPYTER_RUNTIME_DIR": str(folder), "JUPYTER_NO_CONFIG": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(port), "the gateway listens")
        yield f"http://127.0.0.1:{port}"
        # While the gateway is there: afterwards nobody could tell the agent that it is not needed any more.
        for session in shared_home.client().get("/v1/sessions")["sessions"]:
            shared_home.client().delete(f"/v1/sessions/{session['name']}", timeout_s=30)
    finally:
        # A gateway that is slow over its kernels keeps the word from the agent, which would wait for its next daemon.
        end_by_id([left for left in shared_home.processes() if "serve" in left.cmdline()])
        # A gateway takes its time over its kernels; what is left of it after some seconds is ended with them.
        running = identify(process.pid)
        if running is not None:
            terminate(running, 5, tree=True)
        process.wait(10)


def test_code_runs_behind_a_gateway_and_keeps_its_variables(shared_home: DaemonHome, gateway: str) -> None:
    options = {"url": f"{gateway}/?token={TOKEN}"}
    assert shared_home.code("x = 20", options=options).status == "ok"
    assert shared_home.code("print(x + 22)", options=options).text() == "42\n"


def test_a_script_behind_a_gateway_ends_with_its_exit_code(shared_home: DaemonHome, gateway: str) -> None:
    source = "import sys; print(sys.argv[1:]); sys.exit(3)"
    options = {"url": f"{gateway}/?token={TOKEN}"}
    seen = shared_home.run("script", path=str(shared_home.project / "s.py"), source=source, argv=["a"], options=options)
    assert (seen.text(), seen.finished["exit_code"]) == ("['a']\n", 3)


def test_the_agents_tunnel_works_behind_a_gateway_too(shared_home: DaemonHome, gateway: str) -> None:
    lines = "".join(f"{n}\n" for n in range(50_000))
    seen = shared_home.code("for n in range(50_000): print(n)", options={"url": f"{gateway}/?token={TOKEN}"})
    assert (seen.text(), seen.of("lost")) == (lines, [])
    kernels = shared_home.client().get("/v1/kernels")["kernels"]
    assert {kernel["transport"] for kernel in kernels if kernel["id"] == seen.kernel} == {"tunnel"}


def test_a_wrong_token_is_refused_in_words(shared_home: DaemonHome, gateway: str) -> None:
    with pytest.raises(AuthError, match="refuses our token"):
        shared_home.code("1", options={"url": f"{gateway}/?token=wrong"})
