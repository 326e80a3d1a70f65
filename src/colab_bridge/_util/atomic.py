"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_atomic"]


def write_atomic(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace a file by a complete new version.

    Writes a temporary file in the same folder, flushes it to the disk and renames it over the target. A symbolic
    link is followed, so that the link stays a link.

    Args:
        path: The file; its folder must exist.
        data: The whole new content.
        mode: Permission bits; those of the existing file, else 0600, when omitted.

    Raises:
        OSError: as the file system reports it; the old file is then untouched and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    if mode is None:
        try:
            mode = target.stat().st_mode & 0o777
        except FileNotFoundError:
            mode = 0o600
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
