"""Start the daemon, once, however many commands want it at the same moment."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from colab_bridge._util.process import ProcessId, is_alive, spawn_detached
from colab_bridge.client.address import Address
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError, TransientError

__all__ = ["start_daemon"]

# A new daemon takes about a second; neither a file nor a lock tells us of its progress by an event that exists on all
# three systems, so we look this often.
_POLL_S = 0.03
# Another daemon may have won the race and still be on its way when ours gives up.
_LOSER_WAIT_S = 3.0
_TAIL_BYTES = 16 * 1024


def start_daemon(
    paths: Paths,
    answering: Callable[[], Address | None],
    *,
    timeout_s: float,
    port: int = 0,
    on_wait: Callable[[float], None] | None = None,
) -> Address:
    """Start a daemon unless another process does so first, and wait until it answers.

    Args:
        paths: Our folders; made when they do not exist.
        answering: Returns the address of a daemon that answers now, or None.
        timeout_s: Seconds to wait at most.
        port: TCP port it is to listen on; 0 for any free one.
        on_wait: Called with the seconds waited so far, while waiting.

    Raises:
        TransientError: it ended, with the reason that it gave, or is not up in time.
        UserError: our folders cannot be used.
    """
    paths.ensure()
    begun = time.monotonic()
    deadline = begun + timeout_s
    with _FileLock(paths.runtime_dir / "start.lock") as lock:
        process: ProcessId | None = None
        offset = 0
        while (address := answering()) is None:
            waited = time.monotonic() - begun
            if process is None and lock.acquire() and _is_free(paths.lock_file):
                # Whoever held the lock may have finished between our look and our turn.
                if (address := answering()) is not None:
                    return address
                offset = _size(paths.daemon_log)
                process = _spawn(paths, port)
            if process is not None and not is_alive(process):
                deadline = min(deadline, time.monotonic() + _LOSER_WAIT_S)  # set by the first look only: time goes on
            if time.monotonic() >= deadline:
                raise _no_daemon(paths, offset, waited)
            if on_wait is not None:
                on_wait(waited)
            time.sleep(_POLL_S)
        return address


def _spawn(paths: Paths, port: int) -> ProcessId:
    environ = dict(os.environ)
    if environ.get("PYTHONPATH"):
        # It may name folders relative to ours; the daemon works in another one.
        environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, environ["PYTHONPATH"].split(os.pathsep)))
    argv = [sys.executable, "-m", "colab_bridge.daemon", *(["--port", str(port)] if port else [])]
    try:
        return spawn_detached(argv, cwd=paths.state_dir, env=environ, log_path=paths.daemon_log)
    except OSError as error:
        raise TransientError(
            f"the daemon cannot be started: {error}",
            hint="Check this machine: colab-bridge doctor",
            code="CB-TRANSIENT-START",
        ) from error


def _is_free(path: Path) -> bool:
    """Whether no daemon holds its lock: one that comes up has no address yet, one that is stopped has none any more."""
    with _FileLock(path) as lock:
        return lock.acquire()


class _FileLock:
    """A lock between processes, of the kind that the daemon's own is; the system drops it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._held = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def acquire(self) -> bool:
        """Take the lock if it is free or ours, without waiting."""
        if self._held:
            return True
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self._held = True
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _no_daemon(paths: Paths, offset: int, waited_s: float) -> ColabBridgeError:
    lines = _last_lines(paths.daemon_log, offset)
    crashed = any(line.startswith("Traceback ") for line in lines)
    if len(lines) >= 2 and not crashed and not lines[-1][:4].isdigit():
        # The daemon ends with two lines of its own: what happened and what to do about it. Log lines begin with a date.
        return TransientError(f"the daemon did not start: {lines[-2]}", hint=lines[-1], code="CB-TRANSIENT-START")
    return TransientError(
        f"the daemon did not start within {waited_s:.0f} s{': ' + lines[-1] if lines else ''}",
        hint="See why: colab-bridge daemon logs; or check this machine: colab-bridge doctor",
        code="CB-TRANSIENT-START",
    )


def _last_lines(path: Path, offset: int) -> list[str]:
    """Return the last lines of a log that are not empty, from ``offset`` bytes after its start on."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(offset, end), end - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip()[:500] for line in text.splitlines() if line.strip()]
