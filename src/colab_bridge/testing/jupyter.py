"""A real Jupyter server as a child process on loopback, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from colab_bridge.model.runtime import Endpoint, Secret

__all__ = ["JupyterChild", "free_port", "server_argv", "start_jupyter_server", "write_config"]

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 8.0
#: A free port can be taken by somebody else in the second before the server binds it.
PORT_TRIES = 4
_PORT_TAKEN = "is already in use"
#: jsonschema tries that module for the format "iri" and does without it where it is missing. It compiles a grammar when
#: imported, which is half of the server's start, and no schema of the server uses the format.
_SERVER = "import sys; sys.modules['rfc3987_syntax'] = None; from jupyter_server.serverapp import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class JupyterChild:
    """A server that runs.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        token: Its token; empty when it wants none.
        pid: Process id.
        root_dir: Its root folder.
        log_path: File with its log.
    """

    port: int
    token: str
    pid: int
    root_dir: Path
    log_path: Path

    @property
    def base_url(self) -> str:
        """URL without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def endpoint(self, *, port: int | None = None, unlimited_output: bool = False) -> Endpoint:
        """Return the way in, through another port (a relay's) if one is given."""
        headers = {"Authorization": Secret(f"token {self.token}")} if self.token else {}
        return Endpoint(
            base_url=f"http://127.0.0.1:{port or self.port}", headers=headers, unlimited_output=unlimited_output
        )

    def log_text(self) -> str:
        """Return what the server has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")


@contextlib.asynccontextmanager
async def start_jupyter_server(
    root_dir: Path, token: str | None = None, *, python: str = sys.executable, **traits: Any
) -> AsyncIterator[JupyterChild]:
    """Run a Jupyter server, and end it and its kernels when the block is left.

    Args:
        root_dir: Its root folder; must exist.
        token: Its token; a random one when None, no authentication at all when empty.
        python: Interpreter that has ``jupyter_server``, 1.24 or later.
        **traits: More configuration, ``Class__trait=value`` for ``c.Class.trait``.

    Yields:
        The server, once it answers.

    Raises:
        RuntimeError: it did not start; the text ends with its log.
    """
    token = secrets.token_hex(16) if token is None else token
    with tempfile.TemporaryDirectory(prefix="cb-jupyter-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        environ = _environment(home)
        child, process = await _start_up(home, root_dir, token, python, traits, environ)
        try:
            yield child
        finally:
            await asyncio.to_thread(_end, process, home)


async def _start_up(
    home: Path, root_dir: Path, token: str, python: str, traits: dict[str, Any], environ: dict[str, str]
) -> tuple[JupyterChild, subprocess.Popen[bytes]]:
    """Start the server; on another port when somebody took the free one that was chosen, before it could."""
    log_path = home / "server.log"
    tries_left = PORT_TRIES
    while True:
        tries_left -= 1
        port = free_port()
        config = write_config(home, root_dir, port, token, traits)
        process = await asyncio.to_thread(_start, python, config, log_path, home, environ)
        child = JupyterChild(port=port, token=token, pid=process.pid, root_dir=root_dir, log_path=log_path)
        try:
            await _wait_until_up(child, process)
        except BaseException as error:
            await asyncio.to_thread(_end, process, home)
            if tries_left and isinstance(error, RuntimeError) and _PORT_TAKEN in str(error):
                continue
            raise
        return child, process


def _start(python: str, config: Path, log_path: Path, home: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        return subprocess.Popen(
            server_argv(python, config),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            cwd=home,
        )


def server_argv(python: str, config: Path) -> list[str]:
    """Return the command line of a Jupyter server that starts in half of its usual time."""
    return [python, "-c", _SERVER, f"--config={config}"]


def free_port() -> int:
    """Return a port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(home: Path, root_dir: Path, port: int, token: str, traits: dict[str, Any]) -> Path:
    """Write the configuration, private because of the token; both the old and the new name of the token are set."""
    values: dict[str, dict[str, Any]] = {
        "ServerApp": {
            "ip": "127.0.0.1",
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "allow_root": True,
            "root_dir": str(root_dir),
            "token": token,
            "password": "",
        },
        "IdentityProvider": {"token": token},
    }
    for key, value in traits.items():
        section, _, trait = key.partition("__")
        values.setdefault(section, {})[trait] = value
    path = home / "config.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file)
    return path


def _environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing of the user's Jupyter settings, and no agent of theirs, is seen."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "JPY_", "PYTHONPATH"))}
    folders = {"CONFIG": "config", "DATA": "data", "RUNTIME": "runtime"}
    for folder in folders.values():
        (home / folder).mkdir(mode=0o700)
    own = {f"JUPYTER_{key}_DIR": str(home / folder) for key, folder in folders.items()}
    own |= {"XDG_DATA_HOME": str(home / "share"), "XDG_CACHE_HOME": str(home / "cache")}
    return {**kept, **own, "JUPYTER_NO_CONFIG": "", "IPYTHONDIR": str(home / "ipython"), "PYTHONUNBUFFERED": "1"}


async def _wait_until_up(child: JupyterChild, process: subprocess.Popen[bytes]) -> None:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        while asyncio.get_running_loop().time() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get(child.base_url + "/api", timeout=2.0)).status_code == 200:
                    return
            await asyncio.sleep(0.1)  # the server announces its readiness nowhere but on its port
    raise RuntimeError(f"the Jupyter server did not start:\n{child.log_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes], home: Path) -> None:
    """End the server and whatever was started through it, each by its own id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        _end_all(family)
    process.wait(STOP_TIMEOUT_S)
    _end_all(_strays(home))


def _strays(home: Path) -> list[psutil.Process]:
    """Ask those to end that have left the family on purpose, such as an agent: they have the server's environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("JUPYTER_RUNTIME_DIR") == str(home / "runtime"):
                process.terminate()
                found.append(process)
    return found


def _end_all(family: Iterable[psutil.Process]) -> None:
    _gone, alive = psutil.wait_procs(list(family), timeout=1.0)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
