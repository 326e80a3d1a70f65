"""The process behind a kernel, as far as the system shows it.

Source: proc_pid_stat(5), proc_pid_cmdline(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["KernelProcess", "can_see_processes", "find_process", "is_running"]

_MAX_CMDLINE = 64 * 1024
_SHELLS = {b"sh", b"bash", b"dash", b"ash", b"zsh", b"env", b"tini", b"conda", b"micromamba", b"srun", b"sudo"}


@dataclass(frozen=True)
class KernelProcess:
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: Its number.
        started: Clock ticks between the start of the machine and its own.
    """

    pid: int
    started: int


class _State(NamedTuple):
    parent: int
    group: int
    session: int
    started: int


@dataclass(frozen=True)
class _Found:
    process: KernelProcess
    parent: int
    group: int
    session: int
    program: bytes


def can_see_processes(proc: Path = Path("/proc")) -> bool:
    """Return whether the system shows processes as files."""
    return (proc / str(os.getpid()) / "cmdline").exists()


def find_process(
    file_name: str, before: KernelProcess | None = None, proc: Path = Path("/proc")
) -> KernelProcess | None:
    """Return the process that was started with a connection file, None when there is none.

    A kernel that has forked children looks like several processes with one command line; it is the oldest of the
    family. A shell that starts the kernel names the file, too, and is passed over.

    Args:
        file_name: Name of the connection file, without folders.
        before: The process that was the kernel until now. Children that it has left behind are not the kernel; servers
            start each kernel in a session of its own, so these have the session or group of another one.
        proc: Where the system shows processes.
    """
    found = _with_argument(os.fsencode(file_name), proc)
    if before is not None:
        found = {
            pid: one for pid, one in found.items() if pid == before.pid or before.pid not in (one.group, one.session)
        }
    roots = [one for one in found.values() if one.parent not in found or _is_shell(found[one.parent])]
    roots = [one for one in roots if not _is_shell(one)] or roots
    return min((one.process for one in roots), key=lambda process: process.started, default=None)


def is_running(process: KernelProcess, proc: Path = Path("/proc")) -> bool:
    """Return whether that very process runs; one that has ended and is not buried yet does not."""
    state = _state(proc / str(process.pid))
    return state is not None and state.started == process.started


def _is_shell(one: _Found) -> bool:
    return os.path.basename(one.program) in _SHELLS


def _with_argument(file_name: bytes, proc: Path) -> dict[int, _Found]:
    found: dict[int, _Found] = {}
    try:
        names = os.listdir(proc)
    except OSError:
        return {}
    for name in names:
        if not name.isdecimal():
            continue
        try:
            with open(proc / name / "cmdline", "rb") as file:
                raw = file.read(_MAX_CMDLINE)
        except OSError:
            continue
        if file_name in raw and (state := _state(proc / name)) is not None:
            process = KernelProcess(int(name), state.started)
            found[process.pid] = _Found(process, state.parent, state.group, state.session, raw.split(b"\0", 1)[0])
    return found


def _state(folder: Path) -> _State | None:
    """Read what is needed of a process; None when it has ended."""
    try:
        with open(folder / "stat", "rb") as file:
            raw = file.read()
    except OSError:
        return None
    # The name stands in brackets and may hold brackets and blanks itself: the last bracket counts.
    values = raw[raw.rfind(b")") + 1 :].split()
    if len(values) < 20 or values[0] in (b"Z", b"X", b"x"):
        return None
    return _State(int(values[1]), int(values[2]), int(values[3]), int(values[19]))
