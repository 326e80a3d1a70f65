"""The short-lived process between us and a detached one; run as a script by :func:`process.spawn_detached`.

Its own parent reads one JSON line from it and waits for its end. What it starts is then nobody's descendant: an editor
that kills everything it finds below its own process (VS Code does) finds nothing. It runs isolated (``-I -S``) and must
therefore import nothing but the standard library.

Input, JSON on stdin: ``argv``, ``cwd``, ``env``, ``log_path``. Output, JSON on stdout: ``pid`` or ``errno`` with
``text``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

# Numbers of the Windows API; the subprocess module defines the names on Windows only.
DETACHED_PROCESS = 0x00000008
CREATE_NEW_PROCESS_GROUP = 0x00000200
CREATE_BREAKAWAY_FROM_JOB = 0x01000000


def detach_attempts(platform: str) -> list[dict[str, Any]]:
    """Return the ``Popen`` options that detach a process, best first; the next is for when the first is refused.

    Args:
        platform: ``sys.platform`` of the machine.
    """
    if platform != "win32":
        return [{"start_new_session": True}]
    flags = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP
    # A job object may forbid leaving it (ERROR_ACCESS_DENIED); staying in it is then the best there is.
    return [{"creationflags": flags | CREATE_BREAKAWAY_FROM_JOB}, {"creationflags": flags}]


def spawn(
    request: dict[str, Any], platform: str, popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
) -> int:
    """Start the process that a request describes and return its id.

    Raises:
        OSError: the log cannot be opened, or the program or the folder does not exist.
    """
    log = os.open(request["log_path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        attempts = detach_attempts(platform)
        for number, options in enumerate(attempts, start=1):
            try:
                child = popen(
                    request["argv"],
                    cwd=request["cwd"],
                    env=request["env"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    close_fds=True,
                    **options,
                )
            except PermissionError:
                if number == len(attempts):
                    raise
            else:
                return child.pid
    finally:
        os.close(log)
    raise AssertionError("detach_attempts is never empty")


def reset_signals() -> None:
    """Undo what a shell's ``&`` or ``nohup`` has left: ignored or blocked signals would be inherited.

    A kernel that inherits an ignored SIGINT never sees a KeyboardInterrupt.
    """
    for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, [])


def main() -> None:
    """Read the request, start the process, answer, end."""
    request = json.loads(sys.stdin.buffer.read())
    if sys.platform != "win32":
        reset_signals()
    answer: dict[str, Any]
    try:
        answer = {"pid": spawn(request, sys.platform)}
    except OSError as error:
        answer = {"errno": error.errno, "text": error.strerror, "filename": error.filename}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # Not the orderly end: it would complain that the child is still running.
    os._exit(0)


if __name__ == "__main__":
    main()
