"""Where the running daemon listens: ``daemon.json`` in the runtime folder."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from colab_bridge.errors import ConflictError

if TYPE_CHECKING:
    from colab_bridge.config.paths import Paths

__all__ = ["Address", "find", "read_address"]

SCHEMA = 1
_MAX_FILE_BYTES = 64 * 1024
# A listening socket on loopback accepts in microseconds, even when its process is stopped: the kernel does it.
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How a daemon is reached and which process it is.

    Attributes:
        pid: Its process.
        create_time: Start of that process as ``_util.process.identify`` reports it.
        port: TCP port on 127.0.0.1.
        token: What each request has to carry; never shown.
        version: Version of the package that it runs.
        started_at: Unix seconds.
    """

    pid: int
    create_time: float
    port: int
    token: str = field(repr=False)
    version: str = ""
    started_at: float = 0.0

    @property
    def host(self) -> str:
        """Value of the ``Host`` header."""
        return f"127.0.0.1:{self.port}"


def read_address(paths: Paths) -> Address | None:
    """Return what ``daemon.json`` says, whether or not that daemon still runs; None when it says nothing usable.

    Raises:
        ConflictError: a daemon of a newer kind wrote it.
    """
    try:
        with open(paths.daemon_file, "rb") as file:
            raw = json.loads(file.read(_MAX_FILE_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(raw, dict):
        return None
    if raw.get("schema") != SCHEMA:
        raise ConflictError(
            "the running daemon belongs to another version of Colab Bridge",
            hint=f"End its process {raw.get('pid')} and try again; kernels and runtimes go on.",
            code="CB-CONFLICT-DAEMON",
        )
    return _address(raw)


def _address(raw: dict[str, object]) -> Address | None:
    pid, port, token = raw.get("pid"), raw.get("port"), raw.get("token")
    created, started = raw.get("create_time"), raw.get("started_at")
    if not isinstance(pid, int) or not isinstance(port, int) or not isinstance(token, str):
        return None
    # The token goes into a header line, so nothing in it may end that line.
    if not 0 < port < 65536 or not token.isascii() or not token.isprintable():
        return None
    return Address(
        pid=pid,
        create_time=float(created) if isinstance(created, (int, float)) else -1.0,
        port=port,
        token=token,
        version=str(raw.get("version", "")),
        started_at=float(started) if isinstance(started, (int, float)) else 0.0,
    )


def find(paths: Paths) -> Address | None:
    """Return the address of the daemon that runs now, or None; a file that a killed daemon has left counts as none.

    Something listens on the port when this returns an address. Whether it is our daemon shows its first answer, see
    :func:`colab_bridge.client.connect.connect`.
    """
    address = read_address(paths)
    if address is None:
        return None
    try:
        socket.create_connection(("127.0.0.1", address.port), _PROBE_TIMEOUT_S).close()
    except OSError:
        return None
    return address
