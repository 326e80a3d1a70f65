"""The command ``start`` of the bundle: finds the running agent of a workspace, or starts one that is nobody's child."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from .folder import Folder, FolderError, candidate_bases, choose, read_json, write_json
from .preamble import MOST_BYTES, Preamble, PreambleError, parse_line

__all__ = ["ask_agent", "main", "start"]

# What is freed goes back to the system. But a buffer for an output of 1 MB a piece is cut from memory that is there: as
# a mapping of its own it would be made and cleared anew for each, which takes longer than all that is done with it.
_SMALL = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1280 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 1024),
}
_READY_S = 20.0
_ANSWER_S = 3.0
# An old agent writes its stores down before it lets go of the folder.
_LET_GO_S = 12.0
_POLL_S = 0.05
_MOST_DOORMEN = 16
_MOST_RUNTIME_DIRS = 8
_KEEP_BUNDLE_S = 30 * 24 * 3600
# Numbers of the Windows API; the subprocess module defines the names on Windows only.
_DETACHED_PROCESS = 0x00000008
_NEW_PROCESS_GROUP = 0x00000200
_BREAKAWAY_FROM_JOB = 0x01000000


def main() -> None:
    """Answer the JSON object on stdin with one JSON line on stdout."""
    answer = start(json.loads(sys.stdin.buffer.read()), sys.argv[0])
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def start(request: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """Find the agent or start it.

    Args:
        request: ``workspace``, ``hash``, ``owner``, ``doorman`` (kernel id, may be empty), ``hints``, ``bases``
            (folders to look in, the user's own when missing), and what ``serve`` takes.
        bundle: Path of the bundle to run.

    Returns:
        ``ok`` true with the content of ``agent.json``, ``folder`` and ``doormen`` (kernels that the same daemon made
        earlier); or ``ok`` false with one sentence, ``message``.
    """
    give_up = time.monotonic() + _LET_GO_S
    while True:
        try:
            folder, troubles = choose(str(request.get("workspace")), _bases(request))
        except FolderError as error:
            return {"ok": False, "message": str(error)}
        answer = _find(folder) or _start_in(folder, request, bundle, troubles)
        if answer is not None:
            _prune_bundles(bundle)
            return _complete(answer, folder, request)
        if time.monotonic() >= give_up:
            if not _end_silent(folder):
                return {"ok": False, "message": f"an agent that does not answer holds {folder.path}"}
            give_up = time.monotonic() + _LET_GO_S
        # Another process holds the folder: no system tells us when it lets go.
        time.sleep(_POLL_S)


def _bases(request: Mapping[str, Any]) -> list[Path]:
    given = request.get("bases")
    if isinstance(given, list) and given:
        return [Path(str(base)) for base in given]
    return candidate_bases(os.environ)


def _complete(answer: dict[str, Any], folder: Folder, request: Mapping[str, Any]) -> dict[str, Any]:
    if not answer.get("ok"):
        return answer
    _note_hints(folder, request.get("hints"))
    return {**answer, "folder": str(folder.path), "doormen": _note_doorman(folder, request)}


def _note_hints(folder: Folder, hints: object) -> None:
    """Write down what the doorman knows; several servers of one user may lead to this agent, so folders add up."""
    path = folder.path / "hints.json"
    known = dict(hints) if isinstance(hints, dict) else {}
    earlier = str(read_json(path).get("jupyter_runtime_dirs", "")).split(os.pathsep)
    found = dict.fromkeys([str(known.get("jupyter_runtime_dir", "")), *earlier])
    known["jupyter_runtime_dirs"] = os.pathsep.join([each for each in found if each][:_MOST_RUNTIME_DIRS])
    with contextlib.suppress(OSError):
        write_json(path, known)


def _note_doorman(folder: Folder, request: Mapping[str, Any]) -> list[str]:
    """Write down which kernel leads to the agent, and return those of the same daemon from earlier."""
    path = folder.path / "doormen.json"
    owner, kernel = str(request.get("owner", "")), str(request.get("doorman", ""))
    known = {str(key): str(value) for key, value in read_json(path).items()}
    earlier = [found for found, whose in known.items() if whose == owner and found != kernel]
    if kernel:
        kept = {found: whose for found, whose in known.items() if whose != owner}
        kept = dict(list(kept.items())[-_MOST_DOORMEN:])
        with contextlib.suppress(OSError):
            write_json(path, {**kept, kernel: owner})
    return earlier


# -- one that runs


def _find(folder: Folder) -> dict[str, Any] | None:
    about = read_json(folder.agent_file)
    address = about.get("address")
    if not isinstance(address, dict) or ask_agent(address) is None:
        return None
    return {"ok": True, **about}


def ask_agent(address: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask who answers at an address; None when nobody does.

    Args:
        address: As in ``agent.json``.
    """
    try:
        with _connect(address) as connection:
            connection.sendall(Preamble(probe=True).to_line())
            return parse_line(_read_line(connection))
    except (OSError, PreambleError, KeyError, ValueError, TypeError):
        return None


def _connect(address: Mapping[str, Any]) -> socket.socket:
    if address.get("kind") == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(address["path"]))
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection(("127.0.0.1", int(address["port"])), timeout=_ANSWER_S)
    connection.sendall(f"{address['token']}\n".encode("ascii"))
    return connection


def _read_line(connection: socket.socket) -> bytes:
    found = b""
    while b"\n" not in found and len(found) <= MOST_BYTES:
        data = connection.recv(MOST_BYTES)
        if not data:
            break
        found += data
    return found.partition(b"\n")[0]


def _end_silent(folder: Folder) -> bool:
    """End an agent that holds the folder and does not answer, if it surely is one."""
    pid = read_json(folder.agent_file).get("pid")
    if sys.platform != "linux" or not isinstance(pid, int):
        return False
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(folder.path) not in arguments:
            return False
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


# -- a new one


def _start_in(folder: Folder, request: Mapping[str, Any], bundle: str, troubles: list[str]) -> dict[str, Any] | None:
    """Start an agent; None when another process has the folder."""
    if not folder.lock():
        return None
    folder.unlock()
    given = {key: request[key] for key in ("hash", "idle_s", "rss_bytes", "disk_bytes") if key in request}
    hints = request.get("hints")
    site = hints.get("site", "") if isinstance(hints, dict) else ""
    try:
        answer = _spawn(folder, bundle, {**given, "site": site, "troubles": troubles})
    except OSError as error:
        return {"ok": False, "message": f"the agent cannot be started: {error.strerror or error}"}
    return None if answer.get("code") == "locked" else answer


def _spawn(folder: Folder, bundle: str, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        log = os.open(folder.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        log = os.open(os.devnull, os.O_WRONLY)
    # Isolated and without site: nothing that users put into their environment may break the agent. Bytecode is not
    # written, because there may be no room for it.
    argv = [sys.executable, "-I", "-S", "-B", bundle, "serve", str(folder.path)]
    try:
        child = _popen(argv, folder.path, log)
    finally:
        os.close(log)
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(OSError):  # one that has ended already says so below
        child.stdin.write(json.dumps(config).encode("ascii"))
        child.stdin.close()
    return _read_answer(child, child.stdout)


def _popen(argv: list[str], cwd: Path, log: int) -> subprocess.Popen[bytes]:
    options: list[dict[str, Any]] = [{"start_new_session": True}]
    if sys.platform == "win32":
        flags = _DETACHED_PROCESS | _NEW_PROCESS_GROUP
        # A job object may forbid leaving it; staying in it is then the best there is.
        options = [{"creationflags": flags | _BREAKAWAY_FROM_JOB}, {"creationflags": flags}]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("JPY_")}
    # The C library keeps what big messages have taken, in one pool a thread, unless told otherwise (6 MB here).
    environ.update(_SMALL)
    pipe = subprocess.PIPE
    for number, option in enumerate(options, start=1):
        try:
            return subprocess.Popen(
                argv, cwd=cwd, env=environ, stdin=pipe, stdout=pipe, stderr=log, close_fds=True, **option
            )
        except PermissionError:
            if number == len(options):
                raise
    raise AssertionError("there is always an option")


def _read_answer(child: subprocess.Popen[bytes], output: IO[bytes]) -> dict[str, Any]:
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(output.readline(64 * 1024)), daemon=True)
    reader.start()
    reader.join(_READY_S)
    try:
        value = json.loads(lines[0])
    except (IndexError, ValueError):
        child.kill()
        return {"ok": False, "message": "the agent did not start; its log on the runtime says why"}
    return value if isinstance(value, dict) else {"ok": False, "message": "the agent did not start"}


def _prune_bundles(bundle: str) -> None:
    """Remove bundles that nobody has started for a month."""
    own = Path(bundle)
    with contextlib.suppress(OSError):
        os.utime(own)
        for other in own.parent.glob("agent-*.pyz"):
            if other != own and time.time() - other.stat().st_mtime > _KEEP_BUNDLE_S:
                other.unlink()
