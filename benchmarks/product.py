"""The product in folders of its own, for one benchmark; everything that it started is ended by its id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import BenchmarkError
from colab_bridge.client.connect import connect, stop_daemon
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.client.follow import follow_run
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.specs import RuntimeSpecInfo, default_target, install, spec_name

__all__ = ["JupyterAddress", "Product", "console_script", "end_product", "environment", "product"]

#: What must not leak in from the caller: other homes, other kernels, another front end.
_FOREIGN = ("COLAB_BRIDGE_", "JUPYTER_", "JPY_", "VSCODE_")
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JupyterAddress:
    """The Jupyter server under a local session, reached without us.

    Attributes:
        port: On 127.0.0.1.
        token: What it wants to see.
    """

    port: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A daemon with a local session.

    Attributes:
        folder: Everything of it; removed at the end.
        client: A client of the daemon.
        session: Name of the session.
    """

    folder: Path
    client: DaemonClient
    session: str

    @property
    def project(self) -> Path:
        """The project's folder."""
        return self.folder / "project"

    @property
    def daemon(self) -> psutil.Process:
        """The daemon's process."""
        return psutil.Process(self.client.address.pid)

    def execute(self, code: str) -> None:
        """Run code in the session's own kernel to its end.

        Raises:
            BenchmarkError: it failed.
        """
        self._follow({"kind": "code", "code": code})

    def run_notebook(self, path: Path) -> None:
        """Run a notebook to its end and take in its events.

        Raises:
            BenchmarkError: it failed.
        """
        self._follow({"kind": "notebook", "notebook": {"path": str(path)}})

    def _follow(self, what: dict[str, Any]) -> None:
        body = {"project": str(self.project), "cwd": str(self.project), "env": {}, **what}
        for event in follow_run(self.client, body):
            if event["type"] == "finished" and event["status"] != "ok":
                raise BenchmarkError(f"the code ended with {event['status']}: {event.get('error')}")

    def must_have_tunnel(self) -> None:
        """Make sure that a kernel is reached through the agent.

        Raises:
            BenchmarkError: none is.
        """
        kernels = self.client.get("/v1/kernels")["kernels"]
        if not any(kernel["transport"] == "tunnel" for kernel in kernels):
            reasons = [kernel["transport_reason"] for kernel in kernels if kernel["transport_reason"]]
            raise BenchmarkError(f"no kernel is in the tunnel: {reasons}")

    def jupyter(self) -> JupyterAddress:
        """Return the session's Jupyter server, from the file that it writes itself.

        Raises:
            BenchmarkError: there is none.
        """
        for path in (self.folder / "home").glob("state/runtimes/**/jpserver-*.json"):
            found = json.loads(path.read_text(encoding="utf-8"))
            return JupyterAddress(port=int(found["port"]), token=str(found["token"]))
        raise BenchmarkError("the session's Jupyter server was not found")


def console_script() -> str:
    """Return the installed command.

    Raises:
        BenchmarkError: there is none.
    """
    beside = shutil.which("colab-bridge", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("colab-bridge")
    if found is None:
        raise BenchmarkError("the command colab-bridge is not installed; run: make setup")
    return found


@contextlib.contextmanager
def product() -> Iterator[Product]:
    """Start a daemon and a session with a kernel; ends both, and whatever they have started.

    The environment of this process points to them meanwhile, so that child processes find them.
    """
    with tempfile.TemporaryDirectory(prefix="cb-bench-", ignore_cleanup_errors=True) as name, environment(Path(name)):
        folder = Path(name).resolve()
        (folder / "project" / ".colab-bridge").mkdir(parents=True)
        paths = Paths.from_env(os.environ)
        client = connect(paths=paths)
        try:
            info = RuntimeSpecInfo(runtime="local", display_name="Colab Bridge (local)")
            install({spec_name("local"): info}, default_target(os.environ))
            body: dict[str, Any] = {"project": str(folder / "project"), "options": {}, "env": {}}
            session = client.post("/v1/sessions", body)
            found = Product(folder=folder, client=client, session=str(session["name"]))
            found.execute("pass")
            yield found
        finally:
            end_product(client, paths)


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Let the environment of this process point to folders of a benchmark's own, and nothing leak in."""
    saved = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    os.environ["COLAB_BRIDGE_HOME"] = str(folder / "home")
    for name in ("DATA", "RUNTIME", "CONFIG"):
        os.environ[f"JUPYTER_{name}_DIR"] = str(folder / f"jupyter-{name.lower()}")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    # With it nothing is ever warm: each process would compile all of its modules again, which no user's machine does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Kernels are otherwise those of an environment that happens to be active.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def end_product(client: DaemonClient, paths: Paths) -> None:
    """Stop sessions and daemon, then look for what is left by the identity of each process."""
    own = _family(client.address.pid, paths)
    with contextlib.suppress(ColabBridgeError):
        for session in client.get("/v1/sessions")["sessions"]:
            client.delete(f"/v1/sessions/{session['name']}")
        stop_daemon(client)
    _gone, alive = psutil.wait_procs(own, timeout=_END_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _family(daemon_pid: int, paths: Paths) -> list[psutil.Process]:
    """Return the daemon and every process that was started with its home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.pid == daemon_pid or process.environ().get("COLAB_BRIDGE_HOME") == str(paths.home)
            if ours and process.pid != os.getpid():
                found.append(process)
    return found
