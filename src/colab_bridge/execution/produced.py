"""Which files a run made or changed in a folder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["changed_files", "snapshot"]

#: A look at a folder that costs more than this many entries is not worth a line of text.
MAX_ENTRIES = 5_000
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "env"})

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: Path) -> Snapshot | None:
    """Return modification time (ns) and size of the files below a folder, by relative path.

    Hidden folders, virtual environments and caches are left out.

    Returns:
        None when the folder is too large to look at.
    """
    found: Snapshot = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in files:
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found[os.path.relpath(path, folder)] = (status.st_mtime_ns, status.st_size)
            if len(found) > MAX_ENTRIES:
                return None
    return found


def changed_files(before: Snapshot | None, after: Snapshot | None) -> list[str]:
    """Return the files that are new or different, sorted; empty when either look was not possible."""
    if before is None or after is None:
        return []
    return sorted(path for path, mark in after.items() if before.get(path) != mark)
