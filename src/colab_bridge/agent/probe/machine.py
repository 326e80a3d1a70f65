"""Memory, disk and load of the machine, within the limits of the container that we are in.

Source: proc(5), the kernel's documentation of cgroup v1 and v2 (``memory.max``, ``memory.current``, ``memory.stat``,
``cpu.max``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Machine", "read_machine"]

#: Containers without a limit show a number near the largest there is.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Machine:
    """One look at a machine. What cannot be found out is None.

    Attributes:
        memory_total: Bytes that processes here may use together.
        memory_used: Bytes in use that cannot be given back at once.
        disk_total: Bytes of the file system of the workspace.
        disk_free: Bytes that we may still write to it.
        cpus: Processors that we may use; may be a fraction in a container.
        load: Processes that ran or wanted to, on average over the last minute.
        uptime_s: Seconds since the machine started.
    """

    memory_total: int | None
    memory_used: int | None
    disk_total: int | None
    disk_free: int | None
    cpus: float | None
    load: float | None
    uptime_s: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


def read_machine(workspace: Path, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Machine:
    """Look at the machine.

    Args:
        workspace: A folder on the file system that counts.
        proc: Where the kernel shows processes; only tests give another place.
        cgroup: Where it shows limits.
    """
    total, used = _memory(proc, cgroup)
    try:
        disk = shutil.disk_usage(workspace)
    except OSError:
        disk = None
    return Machine(
        memory_total=total,
        memory_used=used,
        disk_total=disk.total if disk else None,
        disk_free=disk.free if disk else None,
        cpus=_cpus(cgroup),
        load=_load(),
        uptime_s=_first_number(proc / "uptime"),
    )


def _memory(proc: Path, cgroup: Path) -> tuple[int | None, int | None]:
    fields = _meminfo(proc)
    total, available = fields.get("MemTotal"), fields.get("MemAvailable")
    used = total - available if total is not None and available is not None else None
    limit, inside = _container_memory(cgroup)
    if limit is not None and (total is None or limit < total):
        return limit, inside
    return total, used


def _meminfo(proc: Path) -> dict[str, int]:
    fields: dict[str, int] = {}
    for line in _text(proc / "meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            fields[name] = int(number[0]) * 1024
    return fields


def _container_memory(cgroup: Path) -> tuple[int | None, int | None]:
    """Return limit and use of the container's memory; the page cache that can be dropped does not count as used."""
    places = (("memory.max", "memory.current", "memory.stat", "inactive_file"),)
    older = (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "inactive_file"),)
    for limit_name, used_name, stat_name, cache_name in places + older:
        limit, used = _integer(cgroup / limit_name), _integer(cgroup / used_name)
        if limit is None or limit >= _NO_LIMIT:
            continue
        cache = 0
        for line in _text(cgroup / stat_name).splitlines():
            name, _, value = line.partition(" ")
            if name == cache_name and value.strip().isdecimal():
                cache = int(value)
        return limit, max(0, used - cache) if used is not None else None
    return None, None


def _cpus(cgroup: Path) -> float | None:
    if hasattr(os, "sched_getaffinity"):
        allowed: float | None = float(len(os.sched_getaffinity(0)))
    else:
        count = os.cpu_count()
        allowed = float(count) if count else None
    quota = _text(cgroup / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal() and int(quota[1]):
        share = int(quota[0]) / int(quota[1])
        return min(allowed, share) if allowed else share
    return allowed


def _load() -> float | None:
    try:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        with path.open("r", encoding="ascii", errors="replace") as file:
            return file.read(64 * 1024)
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _first_number(path: Path) -> float | None:
    try:
        return float(_text(path).split()[0])
    except (IndexError, ValueError):
        return None
