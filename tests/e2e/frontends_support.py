"""A whole product for one test module: own folders, own daemon, own runtime; all of it ended afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from colab_bridge.client.connect import connect
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.specs import RuntimeSpecInfo, default_target, install
from daemon_home import SOURCE, WAIT_S, eventually, processes_of

KERNEL = "colab-bridge-local"


class Bridge:
    """The product in folders of its own; ``os.environ`` already points to them."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / ".colab-bridge").mkdir()
        self.paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(self.home)})

    def client(self) -> DaemonClient:
        return connect(start=False, paths=self.paths)

    def kernels(self) -> list[dict[str, Any]]:
        """Return the kernels that the daemon holds; none while there is no daemon."""
        try:
            return list(self.client().get("/v1/kernels")["kernels"])
        except ColabBridgeError:
            return []

    def kernel_ids(self) -> set[str]:
        return {str(kernel["id"]) for kernel in self.kernels()}

    @property
    def daemon_pid(self) -> int:
        return int(json.loads(self.paths.daemon_file.read_text(encoding="utf-8"))["pid"])

    def processes(self) -> list[psutil.Process]:
        """Return every process that works in our folders, this one left out."""
        return processes_of(self.home)

    def close(self) -> None:
        """End everything; a process that is left is a failure, and is ended by its id."""
        with contextlib.suppress(ColabBridgeError):
            client = self.client()
            for session in client.get("/v1/sessions")["sessions"]:
                client.delete(f"/v1/sessions/{session['name']}")
            client.post("/v1/shutdown")
        try:
            eventually(lambda: not self.processes(), "everything has ended", timeout_s=10)
        finally:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """Everything that a front end needs, with the kernelspec installed."""
    folder = tmp_path_factory.mktemp("bridge")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("VSCODE_", "JPY_", "COLAB_BRIDGE_", "JUPYTER_"))]:
            patch.delenv(name)
        found = Bridge(folder)
        patch.setenv("COLAB_BRIDGE_HOME", str(found.home))
        for name in ("DATA", "RUNTIME", "CONFIG"):
            patch.setenv(f"JUPYTER_{name}_DIR", str(folder / f"jupyter-{name.lower()}"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")])))
        patch.setenv("PYTHONWARNINGS", "default")
        patch.chdir(found.project)
        info = RuntimeSpecInfo(runtime="local", display_name="Colab Bridge (local)")
        install({KERNEL: info}, default_target(os.environ))
        yield found
        found.close()


class FrontEnd:
    """A Jupyter front end with one kernel, as nbclient or a server would run it."""

    def __init__(self, cwd: Path, kernel: str = KERNEL, env: dict[str, str] | None = None, **manager: Any) -> None:
        self.manager = KernelManager(kernel_name=kernel, **manager)
        self.manager.start_kernel(cwd=str(cwd), env={**os.environ, **(env or {})})
        self.client: BlockingKernelClient = self.manager.client()
        self.seen: list[dict[str, Any]] = []  # everything on iopub since the kernel was ready
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def ask(self, channel: str, msg_type: str, content: dict[str, Any], buffers: list[bytes] | None = None) -> str:
        """Send any request and return its id."""
        message = self.client.session.msg(msg_type, content)
        socket = getattr(self.client, f"{channel}_channel").socket
        self.client.session.send(socket, message, buffers=buffers)
        return str(message["header"]["msg_id"])

    def reply(self, msg_id: str, channel: str = "shell", timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Return the reply to a request."""
        return self._next(channel, lambda message: message["parent_header"].get("msg_id") == msg_id, timeout_s)

    def content(self, channel: str, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask and return the content of the reply."""
        return dict(self.reply(self.ask(channel, msg_type, content), channel)["content"])

    def published(self, accept: Callable[[dict[str, Any]], bool], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Return the next iopub message that is accepted."""
        return self._next("iopub", accept, timeout_s)

    def _next(self, channel: str, accept: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            message = getattr(self.client, f"get_{channel}_msg")(timeout=max(0.01, deadline - time.monotonic()))
            if channel == "iopub":
                self.seen.append(message)
            if accept(message):
                return dict(message)

    def outputs(self, msg_id: str, timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
        """Return the iopub messages of a request up to its ``idle``."""
        found: list[dict[str, Any]] = []
        while True:
            found.append(self.published(lambda message: message["parent_header"].get("msg_id") == msg_id, timeout_s))
            if found[-1]["content"].get("execution_state") == "idle":
                return found

    def run(self, code: str, timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
        """Execute code to its end and return what it put out."""
        msg_id = self.client.execute(code)
        self.reply(msg_id, timeout_s=timeout_s)
        return self.outputs(msg_id, timeout_s)

    def wait_until_busy(self, msg_id: str) -> None:
        """Wait until the kernel has begun with a request."""
        self.published(
            lambda m: m["parent_header"].get("msg_id") == msg_id and m["content"].get("execution_state") == "busy"
        )

    def close(self) -> None:
        """End the kernel as an orderly front end does."""
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel()
        self.manager.cleanup_resources()
        self.client.context.destroy(linger=0)
        self.manager.context.destroy(linger=0)


@pytest.fixture
def start_front_end(bridge: Bridge) -> Iterator[Callable[..., FrontEnd]]:
    """Start front ends that are closed at the end of the test."""
    started: list[FrontEnd] = []

    def start(**options: Any) -> FrontEnd:
        started.append(FrontEnd(bridge.project, **options))
        return started[-1]

    yield start
    for front_end in started:
        front_end.close()


def text_of(messages: list[dict[str, Any]], name: str = "stdout") -> str:
    """Join the text of the stream messages of one name."""
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream" and m["content"]["name"] == name)
