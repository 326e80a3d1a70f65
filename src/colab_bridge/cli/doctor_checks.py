"""What ``doctor`` looks at on this machine. Each check returns values; none prints, none changes a setting."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path

from colab_bridge.client.address import find
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.config.caller import environment_python
from colab_bridge.config.layers import shadowed_file
from colab_bridge.config.paths import HOME_VARIABLE, Paths
from colab_bridge.config.schema import BUILT_IN_RUNTIME
from colab_bridge.config.settings import Resolved, load_settings
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.providers.local_interpreter import InterpreterCache, choose_interpreter

__all__ = [
    "Check",
    "Machine",
    "Status",
    "check_clock",
    "check_config",
    "check_daemon",
    "check_disk",
    "check_folders",
    "check_interpreter",
    "check_kernelspecs",
    "check_loopback",
    "check_packages",
    "check_python",
]

_MIB = 1 << 20
# Below the first nothing can be saved safely; below the second one long run with plots may fill the disk.
_DISK_FAIL_BYTES = 100 * _MIB
_DISK_WARN_BYTES = 1024 * _MIB
_IMPORT_TIMEOUT_S = 7.0
_DAEMON_TIMEOUT_S = 3.0
_LOOPBACK_TIMEOUT_S = 2.0
_CREATE_NO_WINDOW = 0x08000000  # Windows API; subprocess defines the name on Windows only
# What the daemon and the local runtime import; zmq and pydantic_core are binaries that a wrong platform breaks.
_PARTS = ("zmq", "pydantic_core", "jupyter_client", "jupyter_server", "ipykernel", "fastapi", "uvicorn", "websockets")
_IMPORT_PROGRAM = """
import importlib, json, sys
bad = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        bad[name] = f"{type(error).__name__}: {error}"
print(json.dumps(bad))
"""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        id: Stable name, such as ``folders`` or ``runtime:gpu``.
        status: How it ended.
        text: What was found, one line.
        fix: The next thing to do, one line; empty when nothing is to be done.
    """

    id: str
    status: Status
    text: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the check as it is printed with ``--json``."""
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the checks look at.

    Attributes:
        paths: Our folders.
        project: Root of the project.
        environ: Environment variables of the caller.
        version: Version of this package.
        resolved: The settings; None when they are broken.
    """

    paths: Paths
    project: Path
    environ: Mapping[str, str]
    version: str
    resolved: Resolved | None = None


def check_python(machine: Machine) -> list[Check]:
    """Say which Python runs us."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    return [Check(id="python", status=Status.OK, text=f"Python {version} at {sys.executable}")]


def check_packages(machine: Machine) -> list[Check]:
    """Import in another process what the daemon and the local runtime need."""
    command = [sys.executable, "-c", _IMPORT_PROGRAM, *_PARTS]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
            cwd=Path(sys.executable).parent,  # not the project: a file there must not be taken for a package
            creationflags=_CREATE_NO_WINDOW if sys.platform == "win32" else 0,
        )
        bad = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        text = f"the packages we need did not load within {_IMPORT_TIMEOUT_S:.0f} s; the disk may be slow"
        return [Check(id="packages", status=Status.WARN, text=text)]
    except (OSError, ValueError):
        bad = {"python": "it ended without an answer"}
    if bad:
        reason = next(iter(bad.values()))
        text = f"{', '.join(bad)} cannot be imported ({one_line(str(reason))})"
        return [
            Check(
                id="packages",
                status=Status.FAIL,
                text=text,
                fix=f"{shown_path(sys.executable)} -m pip install --force-reinstall colab-bridge",
            )
        ]
    return [Check(id="packages", status=Status.OK, text=f"{len(_PARTS)} packages load")]


def check_folders(machine: Machine) -> list[Check]:
    """Make our folders and write into each of them."""
    paths = machine.paths
    try:
        paths.ensure()
        for folder in (paths.config_dir, paths.state_dir, paths.cache_dir, paths.runtime_dir):
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
    except UserError as error:
        return [Check(id="folders", status=Status.FAIL, text=error.message, fix=error.hint)]
    except OSError as error:
        text = f"cannot write into {folder}: {error.strerror or error}"
        fix = f"Set {HOME_VARIABLE} to a folder that you can write to."
        return [Check(id="folders", status=Status.FAIL, text=text, fix=fix)]
    where = paths.home or paths.state_dir
    return [Check(id="folders", status=Status.OK, text=f"our folders can be written ({where})")]


def check_disk(machine: Machine) -> list[Check]:
    """Look at the free space where records and outputs are kept."""
    folder = next((f for f in (machine.paths.state_dir, *machine.paths.state_dir.parents) if f.exists()), Path.cwd())
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return [Check(id="disk", status=Status.WARN, text=f"cannot see the free space: {error.strerror or error}")]
    text = f"{free / (1024 * _MIB):.1f} GiB free at {folder}"
    fix = f"Free some space there, or set {HOME_VARIABLE} to another disk."
    if free < _DISK_FAIL_BYTES:
        return [Check(id="disk", status=Status.FAIL, text=text, fix=fix)]
    if free < _DISK_WARN_BYTES:
        return [Check(id="disk", status=Status.WARN, text=text, fix=fix)]
    return [Check(id="disk", status=Status.OK, text=text)]


def check_config(machine: Machine) -> tuple[Resolved | None, list[Check]]:
    """Read all settings.

    Returns:
        The settings, None when they are broken, and what is to be said.
    """
    try:
        resolved = load_settings(machine.paths, machine.project, machine.environ)
        shadowed = shadowed_file(machine.project)
    except UserError as error:
        return None, [Check(id="config", status=Status.FAIL, text=error.message, fix=error.hint)]
    checks = [
        Check(id="config", status=Status.WARN, text=notice, fix=f"chmod 600 {shown_path(str(resolved.user_file))}")
        for notice in resolved.notices
    ]
    if shadowed:
        text = f"[tool.colab-bridge] in {shadowed} is not read: colab-bridge.toml stands beside it"
        checks.append(
            Check(id="config", status=Status.WARN, text=text, fix="Keep the settings in one of the two files.")
        )
    settings = resolved.settings
    if settings.runtime != BUILT_IN_RUNTIME and settings.runtime not in settings.runtimes:
        text = f"the default runtime {settings.runtime} is not configured ({resolved.source_of('runtime')})"
        fix = f"colab-bridge config add-runtime {settings.runtime} --url URL"
        checks.append(Check(id="config", status=Status.FAIL, text=text, fix=fix))
    places = [str(resolved.user_file)] if resolved.user_file.exists() else []
    places += [str(resolved.project_file)] if resolved.project_file else []
    text = f"settings are valid ({', '.join(places) or 'all defaults'})"
    return resolved, checks or [Check(id="config", status=Status.OK, text=text)]


def check_daemon(machine: Machine) -> list[Check]:
    """Ask the daemon how it is; one that does not run is no fault, because the first command starts it."""
    restart = "colab-bridge daemon restart"
    try:
        address = find(machine.paths)
        if address is None:
            text = "the daemon does not run; the first command that needs it starts it"
            return [Check(id="daemon", status=Status.OK, text=text), *_check_port(machine)]
        status = DaemonClient(address, timeout_s=_DAEMON_TIMEOUT_S).get("/v1/status")
    except ColabBridgeError as error:
        return [Check(id="daemon", status=Status.FAIL, text=error.message, fix=error.hint or restart)]
    daemon = status.get("daemon")
    facts: dict[str, Any] = daemon if isinstance(daemon, dict) else {}
    version = one_line(str(facts.get("version", "")))
    if version != machine.version:
        text = f"the daemon runs version {version or 'unknown'}, this command is {machine.version}"
        checks = [Check(id="daemon", status=Status.WARN, text=text, fix=restart)]
    else:
        checks = [Check(id="daemon", status=Status.OK, text=f"the daemon answers (pid {address.pid}, {version})")]
    notices = facts.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        checks.append(Check(id="daemon", status=Status.WARN, text=one_line(_notice_text(notice))))
    return checks


def _notice_text(notice: object) -> str:
    return str(notice.get("text", "")) if isinstance(notice, dict) else str(notice)


def _check_port(machine: Machine) -> list[Check]:
    """See whether the daemon will get the port that the settings ask for."""
    port = machine.resolved.settings.port if machine.resolved else 0
    if port == 0:
        return []
    try:
        with socket.socket() as probe:
            if os.name == "posix":  # on Windows the option would let us share a port that is taken
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        text = f"the daemon's port {port} cannot be used: {error.strerror or error}"
        return [Check(id="port", status=Status.FAIL, text=text, fix="colab-bridge config set port 0")]
    return [Check(id="port", status=Status.OK, text=f"the daemon's port {port} is free")]


def check_loopback(machine: Machine) -> list[Check]:
    """Send a few bytes from this machine to itself, as all our processes do."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(_LOOPBACK_TIMEOUT_S)
            with socket.create_connection(server.getsockname(), _LOOPBACK_TIMEOUT_S) as near, server.accept()[0] as far:
                far.settimeout(_LOOPBACK_TIMEOUT_S)
                near.sendall(b"ping")
                arrived = far.recv(4)
    except OSError as error:
        text = f"this machine cannot talk to itself on 127.0.0.1: {error.strerror or error}"
        fix = "Allow local connections for Python in your firewall or sandbox."
        return [Check(id="loopback", status=Status.FAIL, text=text, fix=fix)]
    status = Status.OK if arrived == b"ping" else Status.FAIL
    return [Check(id="loopback", status=status, text="local connections on 127.0.0.1 work")]


def check_interpreter(machine: Machine) -> list[Check]:
    """Find the Python that kernels of this project would use on this machine, and see whether it can run them."""
    options: dict[str, str] = {}
    if machine.resolved and machine.resolved.settings.local.python:
        options["python"] = machine.resolved.settings.local.python
    if active := environment_python(machine.environ):
        options["env_python"] = active
    cache = InterpreterCache(machine.paths.cache_dir / "interpreters.json")
    try:
        chosen = choose_interpreter(machine.project, options, cache)
    except UserError as error:
        return [Check(id="interpreter", status=Status.FAIL, text=error.message, fix=error.hint)]
    if chosen.notice:
        text, _, fix = chosen.notice.partition("; to change that: ")
        return [Check(id="interpreter", status=Status.WARN, text=text, fix=fix)]
    return [Check(id="interpreter", status=Status.OK, text=f"local kernels run with {chosen.path}")]


def check_kernelspecs(machine: Machine) -> list[Check]:
    """See whether notebook editors are offered our kernels, and whether those still start."""
    wanted = [BUILT_IN_RUNTIME, *(sorted(machine.resolved.settings.runtimes) if machine.resolved else [])]
    install = "colab-bridge kernels install"
    missing: list[str] = []
    for name in wanted:
        spec = _kernelspec(f"colab-bridge-{name}")
        if spec is None:
            missing.append(name)
        elif not shutil.which(spec):
            text = f"the kernel colab-bridge-{name} starts {one_line(spec)}, which is not there any more"
            return [Check(id="kernelspecs", status=Status.WARN, text=text, fix=install)]
    if missing:
        text = f"notebook editors are not offered our kernels yet ({', '.join(missing)})"
        return [Check(id="kernelspecs", status=Status.WARN, text=text, fix=install)]
    return [Check(id="kernelspecs", status=Status.OK, text=f"notebook editors are offered: {', '.join(wanted)}")]


def _kernelspec(name: str) -> str | None:
    """Return the program that an installed kernelspec starts, or None when there is no usable one."""
    for folder in jupyter_path("kernels"):
        try:
            spec = json.loads((Path(folder) / name / "kernel.json").read_bytes())
            return str(spec["argv"][0])
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            continue
    return None


def check_clock(machine: Machine) -> list[Check]:
    """See whether the clock is plausible: it cannot be earlier than our own files."""
    installed = Path(__file__).stat().st_mtime
    behind_s = installed - time.time()
    if behind_s > 24 * 3600:  # time zones of archives may make a file seem some hours newer
        text = f"the clock is at least {behind_s / 86400:.0f} days behind: certificates and tokens will be refused"
        return [Check(id="clock", status=Status.WARN, text=text, fix="Set the clock of this machine.")]
    return [Check(id="clock", status=Status.OK, text=time.strftime("the clock says %Y-%m-%d %H:%M"))]


def one_line(text: str, limit: int = 200) -> str:
    """Return foreign text so that it fits on a line of a terminal: bounded, without control characters."""
    flat = "".join(c if c.isprintable() else " " for c in text[: limit + 1]).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def shown_path(path: str) -> str:
    """Return a path so that it can be pasted into a shell."""
    return f'"{path}"' if " " in path else path
