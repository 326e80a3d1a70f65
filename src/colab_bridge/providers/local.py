"""The local runtime: a real ``jupyter_server`` in a process of its own, on loopback.

It outlives the daemon and is found again by what its handle says. By default kernels work in the project folder itself;
with the option ``isolated`` the runtime gets a workspace folder below the provider's folder,
``workspaces/<session>-<hash of the project>``, which is the user's data and stays when the runtime is released.

Options: ``isolated`` (bool), ``python`` (interpreter for kernels), ``env_python`` (interpreter of the environment
that was active where the command was given), ``port`` (0 for any free one).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio import to_thread

from colab_bridge._util.atomic import write_atomic
from colab_bridge._util.ids import new_id
from colab_bridge._util.process import (
    ProcessId,
    descendants,
    find_by_argument,
    identify,
    is_alive,
    spawn_detached,
    terminate_all,
    terminate_async,
    wait_gone,
)
from colab_bridge.errors import AuthError, RuntimeLostError, TransientError, UserError
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest, Secret
from colab_bridge.providers.local_interpreter import InterpreterCache, KernelPython, choose_interpreter, kernelspec

__all__ = ["LocalProvider", "kernel_environment", "server_config"]

_START_TIMEOUT_S = 60.0  # jupyter_server needs about 1 s; a cold cache on a busy machine was seen to need 15
_POLL_S = 0.02
_ANSWER_TIMEOUT_S = 10.0
_ANSWERED_S = 3.0  # so long an answer stands for the next one, while the process lives
_STOP_TIMEOUT_S = 8.0  # the server gives each kernel 5 s to end
_GRACE_S = 2.0
_FORGOTTEN_AFTER_S = 3600
_ID = re.compile(r"local-[0-9a-z]+-[0-9a-f]+")
_PING_S = 30  # finds a connection that died silently within a minute; tornado wants timeout <= interval


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What a handle says about a running server."""

    process: ProcessId
    port: int
    token: str
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}


class LocalProvider:
    """Starts, finds again and ends Jupyter servers on this machine.

    Args:
        folder: Where the provider keeps its files; one subfolder a runtime, mode 0700.
    """

    name = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._answered: dict[str, float] = {}

    async def acquire(self, request: RuntimeRequest) -> RuntimeHandle:
        """Start a server for a project and return once it answers.

        Raises:
            UserError: an option does not fit, or the server ends instead of starting (message: its last word).
            TransientError: it does not answer within a minute.
        """
        port = _port_option(request.options)
        if not Path(request.project).is_dir():
            raise UserError(f"the project folder {request.project} does not exist", hint="give a folder that exists")
        python = await to_thread.run_sync(self._interpreter, request)
        runtime_id = new_id("local")
        folder = self._folder / runtime_id
        root = self._root(request)
        try:
            server = await _launch(folder, root, port, python.path)
        except OSError as error:
            raise UserError(
                f"cannot start a local runtime: {error.strerror or error}",
                hint=f"make {self._folder} a folder that can be written to",
            ) from error
        return RuntimeHandle(
            provider=self.name,
            id=runtime_id,
            root=str(root),
            data=_to_data(server, python),
            label=f"local, pid {server.process.pid}",
            # An isolated runtime stands for one on another machine, and is reached in the same way.
            here=None if request.options.get("isolated") else str(folder),
        )

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        """Return the way in to a server that still runs, whoever started it; it stays the same.

        Raises:
            RuntimeLostError: its process has gone.
            TransientError: the process runs but does not answer.
            AuthError: it refuses our token.
        """
        server = self._from_data(handle)
        if not is_alive(server.process):
            raise RuntimeLostError(
                f"the local runtime (pid {server.process.pid}) has ended",
                hint="run the command again to start a new one; its log is at " + str(server.folder / "server.log"),
            )
        if time.monotonic() - self._answered.get(handle.id, float("-inf")) >= _ANSWERED_S:
            await _check(server)
            self._answered[handle.id] = time.monotonic()
        return Endpoint(
            base_url=server.url,
            headers={name: Secret(value) for name, value in server.headers.items()},
            unlimited_output=True,
            nodelay=True,
        )

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        """Do nothing: a local server ends by itself only an hour after its last kernel."""

    async def release(self, handle: RuntimeHandle) -> None:
        """End the server, its kernels and what they have started, and remove its folder; a workspace stays.

        Also to be called for a runtime that was lost: its folder is still there.
        """
        try:
            server = self._from_data(handle)
        except RuntimeLostError:
            return  # nothing tells which process it was; without kernels it ends by itself within the hour
        self._answered.pop(handle.id, None)
        with anyio.CancelScope(shield=True):
            await _stop(server)
            await to_thread.run_sync(_remove, server.folder)

    def _from_data(self, handle: RuntimeHandle) -> _Server:
        try:
            data = handle.data
            process = ProcessId(pid=int(data["pid"]), create_time=float(data["create_time"]))
            port, token = int(data["port"]), str(data["token"])
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(handle) from error
        # The folder is removed later, so it must be one of ours, whatever was stored.
        if not _ID.fullmatch(handle.id):
            raise _damaged(handle)
        return _Server(process=process, port=port, token=token, folder=self._folder / handle.id)

    def _interpreter(self, request: RuntimeRequest) -> KernelPython:
        cache = InterpreterCache(self._folder / "interpreters.json")
        return choose_interpreter(Path(request.project), request.options, cache)

    def _root(self, request: RuntimeRequest) -> Path:
        if not request.options.get("isolated"):
            return Path(request.project)
        readable = re.sub(r"[^\w.-]+", "_", request.session).strip(".")[:40] or "session"
        digest = hashlib.sha256(os.fsencode(request.project)).hexdigest()[:8]
        return self._folder / "workspaces" / f"{readable}-{digest}"


def _damaged(handle: RuntimeHandle) -> RuntimeLostError:
    return RuntimeLostError(
        f"what is stored about the local runtime {handle.id!r} is damaged", hint="stop the session and start a new one"
    )


def _port_option(options: Mapping[str, Any]) -> int:
    port = options.get("port") or 0
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise UserError(
            f"port {port!r} is no port number", hint="give `port` a number from 1 to 65535, or 0 for any free"
        )
    return port


def kernel_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a server and its kernels.

    Ours, without what user code must not see (our settings and tokens; only the home folder stays, so that
    ``!colab-bridge`` works in a cell) and without what belongs to an environment or kernel that we may run in.

    Args:
        environ: The daemon's environment.
    """
    kept = {}
    for name, value in environ.items():
        if name.startswith("COLAB_BRIDGE_") and name != "COLAB_BRIDGE_HOME":
            continue
        # Set by a kernel for its children: the parent to die with, and a backend that only works inside IPython.
        if name.startswith("JPY_") or (name == "MPLBACKEND" and value.startswith("module://")):
            continue
        if name != "VIRTUAL_ENV":  # the kernelspec sets that of the kernel's own interpreter
            kept[name] = value
    return kept


def server_config(*, root: Path, folder: Path, port: int, token: str) -> dict[str, Any]:
    """Return the configuration of a server.

    Args:
        root: Folder in which kernels start.
        folder: The runtime's own folder.
        port: Where to listen, 0 for any free port.
        token: What a client must present.
    """
    return {
        "JupyterApp": {"log_level": "WARN"},
        "ServerApp": {
            "ip": "127.0.0.1",
            "port": port,
            "port_retries": 0,
            "root_dir": str(root),
            "open_browser": False,
            "allow_root": True,
            "allow_remote_access": False,
            "terminals_enabled": False,
            "shutdown_no_activity_timeout": _FORGOTTEN_AFTER_S,
            "websocket_ping_interval": _PING_S,
            "websocket_ping_timeout": _PING_S,
            "kernel_websocket_connection_class": "colab_bridge.providers.local_channels.LocalChannels",
            "kernel_spec_manager_class": "colab_bridge.providers.local_specs.LocalKernelSpecManager",
        },
        "IdentityProvider": {"token": token},
        "ZMQChannelsWebsocketConnection": {"limit_rate": False},
        "MappingKernelManager": {"buffer_offline_messages": True, "cull_idle_timeout": 0},
        # How often it looks whether a kernel lives; every three seconds otherwise, so that a death is noticed late.
        "KernelRestarter": {"time_to_dead": 1.0},
        "LocalKernelSpecManager": {"first_dir": str(folder / "kernels")},
    }


def _prepare(folder: Path, root: Path, port: int, python: str) -> str:
    """Write everything that the server reads, and return its token."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    root.mkdir(parents=True, exist_ok=True)
    (folder / "runtime").mkdir(mode=0o700)
    spec_folder = folder / "kernels" / "python3"
    spec_folder.mkdir(parents=True)
    spec = json.dumps(kernelspec(python), indent=1, ensure_ascii=False)
    (spec_folder / "kernel.json").write_text(spec, encoding="utf-8")
    token = secrets.token_urlsafe(32)
    config = server_config(root=root, folder=folder, port=port, token=token)
    write_atomic(folder / "config.json", json.dumps(config, indent=1).encode("ascii"), mode=0o600)
    return token


async def _launch(folder: Path, root: Path, port: int, python: str) -> _Server:
    """Start a server and wait for its answer; on any failure nothing of it is left, but for its log."""
    started: ProcessId | None = None
    try:
        token = _prepare(folder, root, port, python)
        started = await to_thread.run_sync(_spawn, folder)
        server = await _wait_ready(folder, started, token)
    except BaseException:
        with anyio.CancelScope(shield=True):
            if started is not None:
                await terminate_async(started, _GRACE_S, tree=True)
            await to_thread.run_sync(_remove_failed, folder)
        raise
    return server


def _failed_log(folder: Path) -> Path:
    return folder.with_name("last-failed-start.log")


def _remove_failed(folder: Path) -> None:
    with contextlib.suppress(OSError):
        os.replace(folder / "server.log", _failed_log(folder))
    _remove(folder)


def _spawn(folder: Path) -> ProcessId:
    program = Path(__file__).with_name("local_server.py")
    # -P: this folder must not be searched for modules, since it has a jupyter.py.
    argv = [sys.executable, "-P", str(program), str(folder / "config.json")]
    return spawn_detached(argv, cwd=folder, env=kernel_environment(os.environ), log_path=folder / "server.log")


async def _wait_ready(folder: Path, started: ProcessId, token: str) -> _Server:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        server = _read_info(folder, token)
        if server is not None and await _answers(server):
            return server
        if not is_alive(started):
            raise _start_error(folder)
        # The server tells of its start by a file only.
        await anyio.sleep(_POLL_S)
    raise TransientError(
        f"the local runtime did not answer within {_START_TIMEOUT_S:.0f} s", hint=f"read its log: {_failed_log(folder)}"
    )


def _start_error(folder: Path) -> UserError:
    word = _last_word(folder / "server.log")
    fix = "give another port, or none for any that is free" if re.search(r"\bport \d", word) else "read its log"
    return UserError(f"the local runtime did not start: {word}", hint=f"{fix}: {_failed_log(folder)}")


def _read_info(folder: Path, token: str) -> _Server | None:
    """Return the server once it has written its file; half a file counts as none."""
    for path in (folder / "runtime").glob("jpserver-*.json"):
        try:
            info = json.loads(path.read_bytes())
            # Not the process that we started: on Windows that is only the launcher of a virtual environment.
            process = identify(int(info["pid"]))
            port = int(info["port"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if process is not None:
            return _Server(process=process, port=port, token=token, folder=folder)
    return None


def _last_word(log: Path) -> str:
    """Return the last line of a log that says something to a person."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
    except OSError:
        lines = []
    said = [re.sub(r"^\[\w [^]]*\] *", "", line).strip() for line in lines]
    said = [line for line in said if re.search(r"\w", line)]
    return said[-1][:300] if said else "it ended without a word"


def _client(timeout_s: float) -> httpx2.AsyncClient:
    # Loopback without TLS: no proxy of the environment, and no 20 ms for reading certificates.
    return httpx2.AsyncClient(trust_env=False, verify=False, timeout=timeout_s)


async def _answers(server: _Server) -> bool:
    try:
        await _check(server)
    except TransientError:
        return False
    return True


async def _check(server: _Server) -> None:
    """Ask the server for its status.

    Raises:
        TransientError: no answer, or one that makes no sense.
        AuthError: the token is refused.
    """
    try:
        async with _client(_ANSWER_TIMEOUT_S) as client:
            response = await client.get(f"{server.url}/api/status", headers=server.headers)
    except httpx2.HTTPError as error:
        raise TransientError(
            f"the local runtime (pid {server.process.pid}) does not answer", hint="try again, or stop the session"
        ) from error
    if response.status_code in (401, 403):
        raise AuthError("the local runtime refuses our token", hint="stop the session and start a new one")
    if response.status_code != 200:
        raise TransientError(
            f"the local runtime answered with HTTP {response.status_code}",
            hint=f"read its log: {server.folder}/server.log",
        )


async def _stop(server: _Server) -> None:
    # What kernels have started does not end with them; afterwards nobody could tell whose it was. Where the server was
    # killed, its kernels are known by their connection file, and an agent always by its folder.
    below = await to_thread.run_sync(descendants, server.process)
    if is_alive(server.process):
        await _ask_to_stop(server)
        await to_thread.run_sync(wait_gone, [server.process], _STOP_TIMEOUT_S)
    left = [server.process, *below, *await to_thread.run_sync(find_by_argument, f"{server.folder}{os.sep}")]
    await to_thread.run_sync(terminate_all, left, _GRACE_S)


async def _ask_to_stop(server: _Server) -> None:
    try:
        async with _client(_STOP_TIMEOUT_S) as client:
            await client.post(f"{server.url}/api/shutdown", headers=server.headers)
    except httpx2.HTTPError:
        return  # it may close the connection before it answers; whether it ends is looked at next


def _remove(folder: Path) -> None:
    # What a virus scanner or a dying process still holds on Windows is removed by the next clean-up of the folder.
    shutil.rmtree(folder, ignore_errors=True)


def _to_data(server: _Server, python: KernelPython) -> dict[str, Any]:
    return {
        "pid": server.process.pid,
        "create_time": server.process.create_time,
        "port": server.port,
        "token": server.token,
        "log": str(server.folder / "server.log"),
        "python": python.path,
        "notice": python.notice,
    }
