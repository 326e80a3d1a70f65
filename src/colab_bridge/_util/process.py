"""Processes that outlive us, and how to know and end them safely.

Light on purpose: the command line imports this module to start the daemon. What is heavy is imported where it is used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ProcessId",
    "descendants",
    "find_by_argument",
    "identify",
    "is_alive",
    "spawn_detached",
    "terminate",
    "terminate_all",
    "terminate_async",
    "wait_gone",
]

_SPAWN_TIMEOUT_S = 20.0  # an interpreter starts in some 20 ms; this is for a machine that swaps
_KILL_WAIT_S = 2.0  # after SIGKILL only a process stuck in the kernel remains
_POLL_S = 0.02
_CREATE_NO_WINDOW = 0x08000000  # Windows API; subprocess defines the name on Windows only
# Start times go through JSON; the coarsest clock that they come from ticks in 10 ms.
_SAME_TIME_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: The number.
        create_time: When it was started, in seconds. Only good for comparison with another value of :func:`identify` on
            this machine: on Linux it counts from the boot, so that a corrected clock changes nothing.
    """

    pid: int
    create_time: float


def identify(pid: int, platform: str = sys.platform) -> ProcessId | None:
    """Return the identity of a running process; None when there is none, or only a zombie.

    Args:
        pid: The number of the process.
        platform: Whose way to look; only tests give another one.
    """
    if pid <= 0:
        return None
    if platform == "linux":
        return _identify_linux(pid)
    return _identify_psutil(pid)


def _identify_linux(pid: int) -> ProcessId | None:
    # Source: proc_pid_stat(5); the name in brackets may itself hold brackets and blanks, so the last one counts.
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = raw[raw.rfind(b")") + 1 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return ProcessId(pid=pid, create_time=int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def _identify_psutil(pid: int) -> ProcessId | None:
    import psutil  # here, because it takes 20 ms that Linux and most commands never need

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessId(pid=pid, create_time=process.create_time())
    except psutil.Error:
        return None


def is_alive(process: ProcessId) -> bool:
    """Whether that very process runs; a zombie and a later process with the same number do not count."""
    found = identify(process.pid)
    return found is not None and abs(found.create_time - process.create_time) < _SAME_TIME_S


def spawn_detached(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log_path: Path) -> ProcessId:
    """Start a process that outlives us and is none of our descendants.

    Args:
        argv: Program and arguments; visible to all users of the machine, so no secrets.
        cwd: Its working folder.
        env: Its whole environment.
        log_path: File (made with mode 0600) to which its stdout and stderr are appended; stdin is empty.

    Returns:
        Its identity. A virtual environment's ``python.exe`` on Windows is a launcher: the program runs in its child.

    Raises:
        OSError: it cannot be started, with the reason that the system gave.
    """
    request = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "log_path": str(log_path)}
    helper = Path(__file__).with_name("process_spawn.py")
    # The request goes through the pipe: environments hold secrets, and arguments are public.
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(helper)],
            input=json.dumps(request).encode("ascii"),
            capture_output=True,
            timeout=_SPAWN_TIMEOUT_S,
            check=False,
            creationflags=_CREATE_NO_WINDOW if sys.platform == "win32" else 0,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{argv[0]} was not started within {_SPAWN_TIMEOUT_S:.0f} s") from error
    return _spawned(done.stdout, done.stderr, argv[0])


def _spawned(output: bytes, trouble: bytes, program: str) -> ProcessId:
    try:
        answer = json.loads(output)
    except ValueError as error:
        last = trouble.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise OSError(f"cannot start {program}: {last or 'the helper process died'}") from error
    if "pid" not in answer:
        raise OSError(answer["errno"], answer["text"], answer["filename"])
    pid = int(answer["pid"])
    # One that has ended already gets an identity that is alive nowhere.
    return identify(pid) or ProcessId(pid=pid, create_time=-1.0)


def descendants(process: ProcessId) -> list[ProcessId]:
    """Return everything below a process, the process itself left out."""
    import psutil  # here for the reason given in _identify_psutil

    if not is_alive(process):
        return []
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []
    return [known for child in children if (known := identify(child.pid)) is not None]


def find_by_argument(start: str) -> list[ProcessId]:
    """Return all processes with an argument that starts with a text, and everything below them.

    Args:
        start: Long and unique, such as the path of a folder of ours.
    """
    import psutil  # here for the reason given in _identify_psutil

    found: dict[int, ProcessId] = {}
    for process in psutil.process_iter():
        try:
            if any(argument.startswith(start) for argument in process.cmdline()):
                known = identify(process.pid)
                found.update({each.pid: each for each in ([known, *descendants(known)] if known else [])})
        except psutil.Error:
            continue
    return list(found.values())


def wait_gone(processes: Sequence[ProcessId], timeout_s: float) -> list[ProcessId]:
    """Wait until processes have ended, and return those that have not after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [process for process in processes if is_alive(process)]
        if not left or time.monotonic() >= deadline:
            return left
        # They are not our children: no system here tells us of their end in the same way, so we look.
        time.sleep(_POLL_S)


def terminate(process: ProcessId, grace_s: float, *, tree: bool = False) -> bool:
    """End a process: a polite request first, force after ``grace_s`` seconds. Blocks.

    Args:
        process: What to end; nothing happens when it has gone already.
        grace_s: Seconds that it may take to end by itself. Windows cannot ask a process without a window.
        tree: Whether to end everything below it too.

    Returns:
        Whether all of them have gone.
    """
    return terminate_all([process, *(descendants(process) if tree else [])], grace_s)


def terminate_all(processes: Sequence[ProcessId], grace_s: float) -> bool:
    """End several processes at once as :func:`terminate` ends one, and return whether all have gone. Blocks."""
    _send(processes, force=False)
    left = wait_gone(processes, grace_s)
    _send(left, force=True)
    return not wait_gone(left, _KILL_WAIT_S)


async def terminate_async(process: ProcessId, grace_s: float, *, tree: bool = False) -> bool:
    """Do the same as :func:`terminate` without blocking the event loop."""
    from functools import partial

    from anyio import to_thread  # here, because the command line imports this module and never calls this function

    return await to_thread.run_sync(partial(terminate, process, grace_s, tree=tree), abandon_on_cancel=True)


def _send(processes: Sequence[ProcessId], *, force: bool) -> None:
    for process in processes:
        if not is_alive(process):
            continue
        try:
            # On Windows os.kill ends a process at once, whatever the number.
            os.kill(process.pid, signal.SIGTERM if not force or sys.platform == "win32" else signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
