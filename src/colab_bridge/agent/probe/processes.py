"""Processes of this machine: a kernel and what it has started, and why it does not answer.

Source: proc_pid_stat(5), proc_pid_status(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Process", "Verdict", "family", "read_processes", "verdict"]

_MAX_PROCESSES = 20_000
#: Share of one processor above which a process counts as computing.
_COMPUTES = 0.5


@dataclass(frozen=True)
class Process:
    """One process at one moment.

    Attributes:
        pid: Its number.
        parent: Its parent's.
        name: Of the program, at most 15 characters.
        state: Letter of the kernel: R runs, S sleeps, D waits for a device, T is stopped, Z has ended.
        cpu_s: Seconds of processor time so far.
        rss: Bytes of memory.
        threads: How many threads it has.
    """

    pid: int
    parent: int
    name: str
    state: str
    cpu_s: float
    rss: int
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


def read_processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return all processes that can be seen, by number; empty where the system does not show them as files."""
    found: dict[int, Process] = {}
    try:
        names = os.listdir(proc)
    except OSError:
        return {}
    for name in names[:_MAX_PROCESSES]:
        if name.isdecimal() and (process := _read(proc / name / "stat")) is not None:
            found[process.pid] = process
    return found


def _read(path: Path) -> Process | None:
    try:
        raw = path.read_bytes()
    except OSError:
        return None  # it ended between the listing and now
    # The name stands in brackets and may hold brackets and blanks itself: the last bracket counts.
    opening, closing = raw.find(b"("), raw.rfind(b")")
    fields = raw[closing + 1 :].split()
    if opening < 0 or len(fields) < 22:
        return None
    return Process(
        pid=int(raw[:opening]),
        parent=int(fields[1]),
        name=raw[opening + 1 : closing].decode("utf-8", "replace"),
        state=chr(fields[0][0]),
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        rss=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        threads=int(fields[17]),
    )


def family(processes: Iterable[Process], root: int) -> list[Process]:
    """Return a process and all that it has started, parents before children; empty when it is not there."""
    children: dict[int, list[Process]] = {}
    first: Process | None = None
    for process in processes:
        children.setdefault(process.parent, []).append(process)
        if process.pid == root:
            first = process
    found = [first] if first else []
    known = {root}
    for process in found:
        for child in children.get(process.pid, ()):
            if child.pid not in known:
                known.add(child.pid)
                found.append(child)
    return found


@dataclass(frozen=True)
class Verdict:
    """Why a kernel does not react to an interrupt.

    Attributes:
        code: ``gone``, ``stopped``, ``device``, ``child``, ``computes`` or ``waits``.
        text: One sentence for people.
        pids: The processes that it is about.
    """

    code: str
    text: str
    pids: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


def verdict(before: dict[int, Process], after: dict[int, Process], pid: int, seconds: float) -> Verdict:
    """Say what keeps a kernel, from two looks at the machine.

    Args:
        before: All processes, some time ago.
        after: All processes now.
        pid: The kernel's process.
        seconds: Time between the two.
    """
    kernel = after.get(pid)
    if kernel is None or kernel.state in "ZX":
        return Verdict("gone", "the kernel's process has ended", (pid,))
    if kernel.state in "Tt":
        return Verdict("stopped", "the kernel's process is stopped (SIGSTOP or a debugger)", (pid,))
    if kernel.state == "D":
        return Verdict("device", "the kernel waits for a disk or a driver, and no signal reaches it there", (pid,))
    earlier = before.get(pid)
    wants_to = kernel.state == "R" and earlier is not None and earlier.state == "R"
    if wants_to or _use(before, kernel, seconds) >= _COMPUTES:
        text = "the kernel computes and does not listen: in native code, or it catches KeyboardInterrupt"
        return Verdict("computes", text, (pid,))
    busy = [child for child in family(after.values(), pid)[1:] if child.state not in "ZX"]
    if busy:
        names = ", ".join(f"{child.name} ({child.pid})" for child in busy[:3]) + (" ..." if len(busy) > 3 else "")
        return Verdict("child", f"the kernel waits for what it has started: {names}", tuple(c.pid for c in busy))
    return Verdict("waits", "the kernel waits for something, and does not listen meanwhile", (pid,))


def _use(before: dict[int, Process], now: Process, seconds: float) -> float:
    earlier = before.get(now.pid)
    return (now.cpu_s - earlier.cpu_s) / seconds if earlier is not None and seconds > 0 else 0.0
