"""Get a client of the one daemon: find it, or start it."""

from __future__ import annotations

import os
from collections.abc import Callable

from colab_bridge import __version__
from colab_bridge.client.address import Address, find
from colab_bridge.client.daemon import DEFAULT_TIMEOUT_S, DaemonClient
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError, TransientError

__all__ = ["connect", "revive", "stop_daemon"]

_HEALTH_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 15.0


def connect(
    *,
    start: bool = True,
    timeout_s: float = 15.0,
    paths: Paths | None = None,
    call_timeout_s: float = DEFAULT_TIMEOUT_S,
    port: int = 0,
    notify: Callable[[str], None] | None = None,
    on_wait: Callable[[float], None] | None = None,
) -> DaemonClient:
    """Return a client of the running daemon, which has just answered.

    A daemon of another version is replaced when nothing runs in it; otherwise it is used as it is.

    Args:
        start: Whether to start a daemon when none runs.
        timeout_s: Seconds that a start may take.
        paths: Our folders; those of this process's environment when omitted.
        call_timeout_s: Seconds that calls of the client may take.
        port: TCP port for a daemon that is started; 0 for any free one.
        notify: Called with one line when a daemon of another version is met.
        on_wait: Called some four times a second with the seconds waited, while the daemon starts and in calls without
            an answer.

    Raises:
        TransientError: there is no daemon (and ``start`` is false), it does not start, or it does not answer.
        UserError: our folders cannot be used.
    """
    where = Paths.from_env(os.environ) if paths is None else paths
    client = _running(where, call_timeout_s, on_wait)
    if client is not None and client.address.version != __version__:
        client = _replace_when_idle(client, notify or _silent, start=start)
    if client is not None:
        return client
    if not start:
        raise TransientError(
            "no daemon is running", hint="Start it: colab-bridge daemon start", code="CB-TRANSIENT-NO-DAEMON"
        )
    # Imported here because it costs 15 ms and every command but the first finds a daemon.
    from colab_bridge.client.start import start_daemon

    address = start_daemon(where, lambda: _answering(where), timeout_s=timeout_s, port=port, on_wait=on_wait)
    return DaemonClient(address, timeout_s=call_timeout_s, on_wait=on_wait)


def revive() -> DaemonClient:
    """Return a client of a daemon after the one in use has gone.

    A daemon that ended in good order has removed its ``daemon.json``: it was stopped on purpose, and is not started
    again.

    Raises:
        TransientError: there is no daemon; code ``CB-TRANSIENT-NO-DAEMON`` when it was stopped on purpose.
    """
    paths = Paths.from_env(os.environ)
    return connect(start=paths.daemon_file.exists(), paths=paths)


def _silent(text: str) -> None:
    del text


def _running(
    paths: Paths, timeout_s: float = DEFAULT_TIMEOUT_S, on_wait: Callable[[float], None] | None = None
) -> DaemonClient | None:
    address = find(paths)
    if address is None:
        return None
    client = DaemonClient(address, timeout_s=timeout_s, on_wait=on_wait)
    try:
        client.get("/v1/health", timeout_s=_HEALTH_TIMEOUT_S)
    except TransientError as error:
        if error.code == "CB-TRANSIENT-TIMEOUT":
            raise
        return None
    except ColabBridgeError:
        # Somebody else has got the port of a daemon that was killed: another user's daemon refuses our token.
        return None
    return client


def _answering(paths: Paths) -> Address | None:
    client = _running(paths)
    return None if client is None else client.address


def _replace_when_idle(client: DaemonClient, notify: Callable[[str], None], *, start: bool) -> DaemonClient | None:
    theirs = client.address.version or "unknown"
    if not start or client.get("/v1/status").get("runs"):
        notify(f"the daemon is version {theirs}, this is {__version__}; when it is idle: colab-bridge daemon restart")
        return client
    notify(f"replacing the daemon of version {theirs} by {__version__}")
    stop_daemon(client)
    return None


def stop_daemon(client: DaemonClient, *, timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """Ask the daemon to end and wait until its process has. Kernels and runtimes go on.

    Raises:
        TransientError: it has not ended after ``timeout_s`` seconds.
    """
    # Imported here because it costs 10 ms and few commands stop a daemon.
    from colab_bridge._util.process import identify, wait_gone

    pid = client.get("/v1/health").get("pid")
    process = identify(pid) if isinstance(pid, int) else None
    client.post("/v1/shutdown")
    if process is not None and wait_gone([process], timeout_s):
        raise TransientError(
            f"the daemon (process {process.pid}) does not end",
            hint=f"End it by force, nothing is lost: kill -9 {process.pid}",
            code="CB-TRANSIENT-TIMEOUT",
        )
