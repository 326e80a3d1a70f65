"""Addresses and keys that the front end wrote for its kernel.

Source: Jupyter client documentation, "Connection files"; the ``curve_*`` members as in jupyter_client 8.9.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colab_bridge.errors import UserError
from colab_bridge.wire.zmq_frames import Signer

__all__ = ["SOCKETS", "ConnectionInfo", "CurveKeys", "read_connection_file"]

SOCKETS = ("shell", "control", "stdin", "iopub", "hb")
# Z85 text of a 32 byte key (CurveZMQ, RFC 26 and 32 of the ZeroMQ project).
_CURVE_KEY_CHARS = 40
_MAX_FILE_BYTES = 1 << 20  # a real one has 300 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveKeys:
    """The server's key pair for encrypted sockets, Z85 text.

    Attributes:
        public: Known to the front end too.
        secret: Never shown.
    """

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """Where to bind and how to sign.

    Attributes:
        transport: ``tcp`` or ``ipc``.
        ip: Address (tcp) or path prefix (ipc).
        ports: Port (tcp) or number in the path (ipc) of each name in :data:`SOCKETS`.
        signer: Signs and checks with the key of the file.
        curve: Key pair for encryption; None without.
    """

    transport: str
    ip: str
    ports: Mapping[str, int]
    signer: Signer = field(repr=False)
    curve: CurveKeys | None = None

    def address(self, socket: str) -> str:
        """Return the ZMQ address of one of :data:`SOCKETS`."""
        separator = ":" if self.transport == "tcp" else "-"
        return f"{self.transport}://{self.ip}{separator}{self.ports[socket]}"


def read_connection_file(path: Path) -> ConnectionInfo:
    """Read and check a connection file.

    Raises:
        UserError: it cannot be read or is no connection file.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES)
        value = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise _bad(path, str(reason)) from error
    if not isinstance(value, dict):
        raise _bad(path, "not an object")
    return _parse(path, value)


def _parse(path: Path, value: Mapping[str, Any]) -> ConnectionInfo:
    transport = value.get("transport", "tcp")
    if transport not in ("tcp", "ipc"):
        raise _bad(path, f"transport {transport!r} is unknown")
    ip, key, scheme = value.get("ip", "127.0.0.1"), value.get("key", ""), value.get("signature_scheme") or "hmac-sha256"
    if not isinstance(ip, str) or not isinstance(key, str) or not isinstance(scheme, str):
        raise _bad(path, "ip, key and signature_scheme must be text")
    try:
        signer = Signer(key.encode("utf-8"), scheme)
    except ValueError as error:
        raise _bad(path, str(error)) from error
    return ConnectionInfo(
        transport=transport,
        ip=ip,
        ports={name: _port(path, value, name) for name in SOCKETS},
        signer=signer,
        curve=_curve(path, value),
    )


def _port(path: Path, value: Mapping[str, Any], name: str) -> int:
    port = value.get(f"{name}_port")
    if not isinstance(port, int) or not 0 < port < 65536:
        raise _bad(path, f"{name}_port is missing or out of range")
    return port


def _curve(path: Path, value: Mapping[str, Any]) -> CurveKeys | None:
    public, secret = value.get("curve_publickey"), value.get("curve_secretkey")
    if public is None and secret is None:
        return None
    for key in (public, secret):
        if not isinstance(key, str) or len(key) != _CURVE_KEY_CHARS or not key.isascii():
            raise _bad(path, "the encryption keys are incomplete")
    return CurveKeys(public=str(public).encode("ascii"), secret=str(secret).encode("ascii"))


def _bad(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is no usable connection file: {reason}",
        hint="start this kernel from a Jupyter front end, for example: jupyter console --kernel colab-bridge-local",
        code="CB-USER-060",
    )
