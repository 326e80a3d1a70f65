"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["remove_leftovers", "write_atomic"]

_SUFFIX = ".tmp"


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}."


def remove_leftovers(path: Path) -> None:
    """Remove temporary files beside a file that a process left when it was killed while it wrote.

    Args:
        path: The file; no other process may be writing it now.
    """
    target = Path(os.path.realpath(path))
    # mkstemp puts eight characters between the two.
    length = len(_prefix(target)) + 8 + len(_SUFFIX)
    with contextlib.suppress(OSError):
        for file in target.parent.iterdir():
            if file.name.startswith(_prefix(target)) and file.name.endswith(_SUFFIX) and len(file.name) == length:
                file.unlink()


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, mode: int | None = None) -> None:
    """Replace a file by a complete new version.

    Writes a temporary file in the same folder, flushes it to the disk and renames it over the target. A symbolic
    link is followed, so that the link stays a link.

    Args:
        path: The file; its folder must exist.
        data: The whole new content, at once or in pieces.
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
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=_SUFFIX)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
