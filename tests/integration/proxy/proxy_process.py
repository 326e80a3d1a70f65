"""A real proxy process and a Jupyter client that is connected to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

SRC = Path(__file__).parents[3] / "src"
PYTHONPATH = os.pathsep.join(filter(None, [str(SRC), os.environ.get("PYTHONPATH", "")]))
WAIT_S = 10.0


class ProxyProcess:
    """Starts ``python -m colab_bridge.kernels.proxy`` as a front end would, and talks to it."""

    def __init__(
        self, folder: Path, home: Path, *arguments: str, env: dict[str, str] | None = None, **connection: Any
    ) -> None:
        self.connection_file, _ = write_connection_file(
            str(folder / "connection.json"), **{"key": b"secret", **connection}
        )
        self.stderr_file = folder / "stderr.txt"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("VSCODE_", "JPY_"))}
        environ |= {"COLAB_BRIDGE_HOME": str(home), "PYTHONPATH": PYTHONPATH, **(env or {})}
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "colab_bridge.kernels.proxy", *arguments, "-f", self.connection_file],
                cwd=folder,
                env=environ,
                stderr=stderr,
                start_new_session=True,
            )
        self.client = BlockingKernelClient(connection_file=self.connection_file)
        self.client.load_connection_file()
        self.client.start_channels()

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(encoding="utf-8")

    def reply(self, msg_id: str, channel: str = "shell", timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Return the reply to a request; what else comes on that channel is dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = getattr(self.client, f"get_{channel}_msg")(timeout=max(0.01, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == msg_id:
                return dict(message)

    def outputs(self, msg_id: str, timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
        """Return the iopub messages of a request up to its ``idle``."""
        deadline = time.monotonic() + timeout_s
        found: list[dict[str, Any]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            found.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return found

    def wait_until_subscribed(self) -> None:
        """Wait for the welcome, after which no iopub message is missed."""
        while self.client.get_iopub_msg(timeout=WAIT_S)["msg_type"] != "iopub_welcome":
            pass

    def ask(self, channel: str, msg_type: str, content: dict[str, Any]) -> str:
        """Send any request and return its id."""
        message = self.client.session.msg(msg_type, content)
        getattr(self.client, f"{channel}_channel").send(message)
        return str(message["header"]["msg_id"])

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the end of the process and return its exit status."""
        return self.process.wait(timeout_s)

    def close(self) -> None:
        self.client.stop_channels()
        self.client.context.destroy(linger=0)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)


def stream_text(messages: list[dict[str, Any]], name: str = "stdout") -> str:
    """Join the text of the stream messages of one name."""
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream" and m["content"]["name"] == name)
