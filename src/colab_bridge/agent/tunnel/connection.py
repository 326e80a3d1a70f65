"""Where a kernel of the server can be reached: the connection file that the server wrote for it.

Source: jupyter_client, "Making kernels for Jupyter", connection files; jupyter_core's folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Connection", "Unreachable", "find_file", "is_kernel_id", "read_file", "runtime_folders"]

_KERNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
_MAX_FILE_BYTES = 64 * 1024
_MAX_IPC_PATH = 4096
_PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
# What a server writes that listens everywhere; it can be called on this machine's own address.
_WILDCARDS = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing binds here


class Unreachable(Exception):
    """A kernel cannot be reached from here; the text is one sentence for people."""


@dataclass(frozen=True)
class Connection:
    """What a connection file says.

    Attributes:
        path: The file.
        stamp: Changes when the file is written anew.
        transport: ``tcp`` or ``ipc``.
        ip: Address, or the beginning of the socket files' names.
        ports: By channel: ``shell``, ``iopub``, ``stdin``, ``control``, ``hb``.
        key: For signatures; empty for none.
        digest: Name of the hash function of signatures.
        public_key: CurveZMQ key of the kernel, empty where the sockets are not encrypted.
        secret_key: The one that goes with it.
    """

    path: Path
    stamp: tuple[int, int, int]
    transport: str
    ip: str
    ports: Mapping[str, int]
    key: bytes
    digest: str
    public_key: bytes = b""
    secret_key: bytes = b""

    def address(self, channel: str) -> str:
        """Return what ZMQ calls the place of a channel."""
        port = self.ports[channel]
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        ip = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"tcp://{ip}:{port}"


def is_kernel_id(value: object) -> bool:
    """Return whether this can be the id of a kernel: it becomes part of file names."""
    return isinstance(value, str) and _KERNEL_ID.match(value) is not None


def runtime_folders(environ: Mapping[str, str], hints: Mapping[str, str], platform: str = sys.platform) -> list[Path]:
    """Return the folders that may hold connection files, the likeliest first.

    Args:
        environ: Environment of this process.
        hints: What is known of the server's own process, which may have another environment.
        platform: As ``sys.platform`` names it.
    """
    found = [hints.get("jupyter_runtime_dir"), *hints.get("jupyter_runtime_dirs", "").split(os.pathsep)]
    found.append(environ.get("JUPYTER_RUNTIME_DIR"))
    if data := environ.get("JUPYTER_DATA_DIR"):
        found.append(os.path.join(data, "runtime"))
    home = os.path.expanduser("~")
    if platform == "darwin":
        found.append(os.path.join(home, "Library", "Jupyter", "runtime"))
    elif platform == "win32":
        roaming = environ.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
        found.append(os.path.join(roaming, "jupyter", "runtime"))
        found.append(os.path.join(home, ".jupyter", "data", "runtime"))
    else:
        data = environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        found.append(os.path.join(data, "jupyter", "runtime"))
    # With JUPYTER_PLATFORM_DIRS the library "platformdirs" decides; it differs from the above in these places only.
    if platform == "darwin":
        found.append(os.path.join(home, "Library", "Application Support", "Jupyter", "runtime"))
    elif platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        found.append(os.path.join(local, "Jupyter", "runtime"))
    return [Path(folder) for folder in dict.fromkeys(found) if folder]


def find_file(kernel: str, folders: Sequence[Path]) -> Path | None:
    """Return a kernel's connection file, None where there is none.

    Args:
        kernel: An id that :func:`is_kernel_id` has accepted.
        folders: Where to look.
    """
    for folder in folders:
        path = folder / f"kernel-{kernel}.json"
        try:
            if path.is_file():
                return path
        except OSError:
            continue
    return None


def read_file(path: Path) -> Connection:
    """Read and check a connection file.

    Raises:
        Unreachable: it cannot be read, or does not say what is needed.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
            found = os.fstat(file.fileno())
    except OSError as error:
        raise Unreachable(f"the kernel's connection file cannot be read: {error.strerror}") from error
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unreachable("the kernel's connection file is not complete") from error
    if len(raw) > _MAX_FILE_BYTES or not isinstance(value, dict):
        raise Unreachable("the kernel's connection file is none")
    return _checked(path, (found.st_mtime_ns, found.st_size, found.st_ino), value)


def _checked(path: Path, stamp: tuple[int, int, int], value: Mapping[str, Any]) -> Connection:
    transport, ip = value.get("transport", "tcp"), value.get("ip", "")
    if transport not in ("tcp", "ipc") or not isinstance(ip, str) or len(ip) > _MAX_IPC_PATH or not ip.isprintable():
        raise Unreachable("the kernel's connection file names no address that can be used")
    ports = {name.removesuffix("_port"): value.get(name) for name in _PORTS}
    if not all(isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536 for port in ports.values()):
        raise Unreachable("the kernel's connection file names no ports")
    scheme, key = value.get("signature_scheme") or "hmac-sha256", value.get("key", "")
    digest = scheme.removeprefix("hmac-") if isinstance(scheme, str) else ""
    if not isinstance(key, str) or digest == scheme or digest not in hashlib.algorithms_available:
        raise Unreachable("the kernel's messages are signed in a way that is not known here")
    public, secret = value.get("curve_publickey") or "", value.get("curve_secretkey") or ""
    if not isinstance(public, str) or not isinstance(secret, str):
        raise Unreachable("the kernel's connection file has unusable encryption keys")
    return Connection(
        path=path,
        stamp=stamp,
        transport=transport,
        ip=_WILDCARDS.get(ip, ip) if transport == "tcp" else ip,
        ports=ports,  # type: ignore[arg-type]  # each was checked above
        key=key.encode("utf-8", "surrogateescape"),
        digest=digest,
        public_key=public.encode("ascii", "replace"),
        secret_key=secret.encode("ascii", "replace"),
    )
