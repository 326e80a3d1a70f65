"""The processes of one machine: a supervisor, below it the Jupyter server and whatever is started on the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from colab_bridge.errors import UserError
from colab_bridge.testing.colab.vm.contracts import MachineSpec
from colab_bridge.testing.jupyter import free_port, server_argv, write_config

__all__ = ["MachineProcesses", "Server"]

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_PYTHON_TIMEOUT_S = 20.0
_POLL_S = 0.03
#: A free port can be taken by somebody else in the second before the server binds it.
_PORT_TRIES = 4
_PORT_TAKEN = "is already in use"
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_GUEST = Path(__file__).with_name("guest")
#: What a machine has of the host's environment: how to find programs and to write text, and nothing that is secret.
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "PATHEXT", "COMSPEC", "LD_LIBRARY_PATH")
_DISK = ("content", "root", "home", "tmp", "var-colab", "rootfs", "layers", "bin", "drive", "jupyter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The machine's Jupyter server.

    Attributes:
        port: Port on loopback.
        token: Its own token, which only the proxy knows.
    """

    port: int
    token: str


class MachineProcesses:
    """The processes of a machine that runs; made by :meth:`start`.

    Args:
        supervisor: The process at the top.
        guest: Socket to the machine's first process; None on Windows.
        server: The Jupyter server.
        private: Whether the machine has a disk of its own.
    """

    def __init__(
        self, supervisor: asyncio.subprocess.Process, guest: socket.socket | None, server: Server, *, private: bool
    ) -> None:
        self._supervisor = supervisor
        self._guest = guest
        self.server = server
        self.private = private
        self._end: asyncio.Future[bytes] | None = None

    @classmethod
    async def start(
        cls, spec: MachineSpec, env: Mapping[str, str], *, install: Callable[[], None], shared: bool = False
    ) -> Self:
        """Start a machine's processes; returns once its Jupyter server answers.

        Args:
            spec: The machine.
            env: Variables of its own, besides those that every machine has.
            install: Puts on its disk, when the folders are there, what it has besides.
            shared: True to use the host's ``/content`` even where the machine could have its own.

        Raises:
            UserError: this system can give it no ``/content``.
            RuntimeError: the server did not start; the text ends with its log.
        """
        tries_left = _PORT_TRIES
        while True:
            tries_left -= 1
            _lay_out(spec)
            install()
            server = Server(port=free_port(), token=secrets.token_hex(16))
            request = await asyncio.to_thread(_request, spec, env, server, shared=shared)
            try:
                return await cls._try(request, server)
            except RuntimeError as error:
                if not tries_left or _PORT_TAKEN not in str(error):
                    raise

    @classmethod
    async def _try(cls, request: dict[str, Any], server: Server) -> Self:
        guest, theirs = socket.socketpair() if sys.platform != "win32" else (None, None)
        request["guest_fd"] = -1 if theirs is None else theirs.fileno()
        log = Path(request["log"])
        with _appending(log) as errors:
            supervisor = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_SUPERVISOR),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                pass_fds=() if theirs is None else (theirs.fileno(),),
            )
        if theirs is not None:
            theirs.close()
        self = cls(supervisor, guest, server, private=False)
        try:
            await self._wait_until_up(request, log)
        except BaseException:
            await asyncio.shield(self.end())
            raise
        return self

    async def _wait_until_up(self, request: dict[str, Any], log: Path) -> None:
        pipe_in, pipe_out = self._supervisor.stdin, self._supervisor.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(_START_TIMEOUT_S):
            await pipe_in.drain()
            report = json.loads(await pipe_out.readline() or b"{}")
            if "error" in report:
                raise UserError(report["error"], hint=report["hint"], code="CB-USER-080")
            self.private = report.get("disk") == "private"
            self._end = asyncio.ensure_future(pipe_out.readline())
            while not await _answers(self.server):
                # The server announces its readiness nowhere but on its port.
                await asyncio.wait([self._end], timeout=_POLL_S)
                if self.ended:
                    text = log.read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"the machine's Jupyter server did not start:\n{text[-3000:]}")

    @property
    def ended(self) -> bool:
        """Whether they have ended, by themselves or because they were told to."""
        return self._end is not None and self._end.done()

    def spawn(
        self, argv: Sequence[str], descriptor: int, *, terminal: bool, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a program on the machine.

        Args:
            argv: Program and arguments.
            descriptor: Its stdin and stdout; may be closed afterwards.
            terminal: Whether that is a terminal, which it shall control and which is its stderr too; otherwise that is
                the machine's log.
            env: Variables besides those of the machine.

        Raises:
            OSError: the machine is gone.
        """
        if self._guest is None or self.ended:
            raise OSError("nothing can be started on this machine")
        order = json.dumps({"argv": list(argv), "env": dict(env or {}), "terminal": terminal}).encode()
        socket.send_fds(self._guest, [order], [descriptor])

    def kill(self) -> None:
        """Let the supervisor end everything; it needs some milliseconds."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        if self._guest is not None:
            self._guest.close()

    async def end(self) -> None:
        """End everything, and wait until it has ended and the disk has been removed."""
        self.kill()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._supervisor.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._supervisor.kill()
            await self._supervisor.wait()
        if self._end is not None:
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)


def _lay_out(spec: MachineSpec) -> None:
    """Make the folders of the machine's disk."""
    for name in _DISK:
        (spec.folder / name).mkdir(parents=True, exist_ok=True)
    (spec.folder / "var-colab" / "hostname").write_text(spec.endpoint + "\n", encoding="utf-8")
    (spec.folder / "machine.log").touch(mode=0o600)


def _request(spec: MachineSpec, env: Mapping[str, str], server: Server, *, shared: bool) -> dict[str, Any]:
    """Return what the supervisor is asked for."""
    python = spec.python or sys.executable
    folder = spec.folder.resolve()
    home = folder / "jupyter"
    config = write_config(home, Path("/"), server.port, server.token, _traits())
    guest = str(_GUEST.resolve())
    site, prefixes = _prefixes(python)
    keep = [str(folder), guest, *prefixes, python]
    # Characters that mean something in the options of a mount are left alone.
    layered = site.startswith(prefixes[0] + os.sep) and not set(prefixes[0]) & set(",:\\")
    if spec.drive_folder is not None:
        keep.append(str(spec.drive_folder.resolve()))
    return {
        "argv": server_argv(python, config),
        "env": {**_environment(folder, python, spec), **env, **spec.env},
        # Where the machine has no disk of its own, these folders lie below its own one.
        "shared_env": {
            **dict.fromkeys(("HOME", "USERPROFILE"), str(folder / "root")),
            **dict.fromkeys(("TMPDIR", "TMUX_TMPDIR"), str(folder / "tmp")),
        },
        "folder": str(folder),
        "hostname": spec.endpoint + "\n",
        "keep": keep,
        "guest": guest,
        "layer": prefixes[0] if layered else "",
        "site": site,
        "log": str(folder / "machine.log"),
        "shared": shared,
    }


def _traits() -> dict[str, Any]:
    return {
        "ServerApp__allow_origin": "*",
        "ServerApp__allow_remote_access": True,
        "ServerApp__disable_check_xsrf": True,
        "ServerApp__jpserver_extensions": {"jupyter_server_terminals": True},
        "ServerApp__kernel_manager_class": "colab_kernels.ColabKernelManager",
        "FileContentsManager__delete_to_trash": False,
        # Whatever path a session has, its kernel starts in the user's own space.
        "MappingKernelManager__root_dir": "/content",
    }


def _environment(folder: Path, python: str, spec: MachineSpec) -> dict[str, str]:
    """Return the environment of every process of a machine."""
    kept = {name: value for name in _KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
    path = os.pathsep.join([str(folder / "bin"), str(Path(python).parent), kept.get("PATH", os.defpath)])
    jupyter = folder / "jupyter"
    own = {
        "HOME": "/root",
        "USERPROFILE": "/root",
        "PATH": path,
        "PYTHONPATH": str(_GUEST.resolve()),
        "PYTHONUNBUFFERED": "1",
        "SHELL": "/bin/bash",
        "TMPDIR": "/tmp",  # noqa: S108 - the machine's own
        "TMUX_TMPDIR": "/tmp",  # noqa: S108
        "IPYTHONDIR": str(folder / "root" / ".ipython"),
        "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_CONFIG_DIR": str(jupyter / "config"),
        "JUPYTER_DATA_DIR": str(jupyter / "data"),
        "JUPYTER_RUNTIME_DIR": str(jupyter / "runtime"),
        "COLAB_BRIDGE_VM": spec.endpoint,
        "COLAB_BRIDGE_VM_FOLDER": str(folder),
        "COLAB_BRIDGE_VM_DRIVE": str((spec.drive_folder or spec.folder / "drive").resolve()),
    }
    return {**kept, **own}


def _prefixes(python: str) -> tuple[str, list[str]]:
    """Return the folders that an interpreter needs: its environment first, then the installation below it.

    Before them: the folder in which it installs packages.
    """
    if python == sys.executable:
        found = [sysconfig.get_path("purelib"), sys.prefix, sys.base_prefix, sys.executable]
    else:
        program = (
            "import json, sys, sysconfig\n"
            "print(json.dumps([sysconfig.get_path('purelib'), sys.prefix, sys.base_prefix, sys.executable]))"
        )
        done = subprocess.run([python, "-I", "-c", program], capture_output=True, timeout=_PYTHON_TIMEOUT_S, check=True)
        found = json.loads(done.stdout)
    site, prefix, base, executable = found
    real = Path(executable).resolve().parent.parent
    every = [str(Path(prefix).resolve()), prefix, base, str(Path(base).resolve()), str(real)]
    return str(Path(site).resolve()), list(dict.fromkeys(every))


def _appending(path: Path) -> BinaryIO:
    return path.open("ab")


async def _answers(server: Server) -> bool:
    """Whether the server answers, and is the one that knows its token: somebody else may have taken the port."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError:
        return False
    lines = (
        "GET /api/kernels HTTP/1.1",
        "Host: localhost",
        f"Authorization: token {server.token}",
        "Connection: close",
    )
    try:
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.transport.abort()
