"""What is told of a machine and of a kernel's processes: blocking functions for a thread."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..tunnel.processes import can_see_processes, find_process
from .cards import read_cards
from .machine import read_machine
from .processes import family, read_processes, verdict

__all__ = ["KernelNotSeen", "look", "look_at_kernel"]

#: Seconds between two looks at a kernel: long enough for the clock ticks that processor time is counted in.
_LOOK_S = 0.3
#: Bounds what an answer holds, whatever a kernel has started.
_MAX_FAMILY = 200


class KernelNotSeen(Exception):
    """No process of this machine serves the kernel, or processes cannot be seen."""


def look(workspace: Path) -> dict[str, Any]:
    """Look at the machine.

    Args:
        workspace: A folder on the disk that counts.

    Returns:
        ``time`` (Unix seconds), ``machine``, ``cards`` and ``processes_visible``, ready for JSON.
    """
    return {
        "time": time.time(),
        "machine": read_machine(workspace).to_json(),
        "cards": [card.to_json() for card in read_cards()],
        "processes_visible": can_see_processes(),
    }


def look_at_kernel(kernel: str) -> dict[str, Any]:
    """Look at the processes of a kernel; takes a third of a second.

    Args:
        kernel: The server's id of it.

    Returns:
        ``pid``, ``verdict`` and ``family``, ready for JSON.

    Raises:
        KernelNotSeen: no process of this machine serves it.
    """
    process = find_process(f"kernel-{kernel}.json")
    if process is None:
        raise KernelNotSeen("the kernel's process cannot be seen on this machine")
    pid = process.pid
    before, begun = read_processes(), time.monotonic()
    time.sleep(_LOOK_S)  # processor time is only seen to pass between two looks
    after = read_processes()
    found = verdict(before, after, pid, time.monotonic() - begun)
    members = family(after.values(), pid)[:_MAX_FAMILY]
    return {"pid": pid, "verdict": found.to_json(), "family": [member.to_json() for member in members]}
