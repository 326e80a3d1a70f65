"""Keeps the processes of one user from changing a file at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import filelock

from colab_bridge.errors import TransientError

__all__ = ["held"]

_LOCK_S: Final = 20.0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file against other processes, by a lock file beside it.

    Raises:
        TransientError: another process has held it for too long.
    """
    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600, timeout=_LOCK_S)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise TransientError(
            f"another process has held {path} for {_LOCK_S:.0f} s", hint="try again", code="CB-TRANSIENT-AUTH"
        ) from error
    try:
        yield
    finally:
        lock.release()
