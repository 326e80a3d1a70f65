"""The tunnel behind ``/colab/ssh``: raw SSH bytes in binary frames, and the statuses that refuse it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from colab_bridge.testing.colab.vm.carry import until_either_ends
from colab_bridge.testing.colab.vm.terminal import Spawn

__all__ = ["SshService", "key_problem"]

_KEY_TYPES: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_READ_BYTES = 64 * 1024
_KEYGEN_TIMEOUT_S = 20.0
#: sshd ends at once without this folder, which a system makes when it starts its own server; a container has none.
_PRIVILEGE_SEPARATION: Final = Path("/run/sshd")
_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def key_problem(line: str | None) -> str:
    """Return what is wrong with the public key that a client offers; empty when nothing is.

    Args:
        line: The header's value: a public key line, ``type base64 comment``.
    """
    if not line or len(line.split()) < 2:
        return "missing pubkey"
    kind = line.split()[0]
    return "" if kind in _KEY_TYPES else f"unsupported key type {kind[:40]}"


class SshService:
    """Serves the tunnel's WebSocket, one at a time.

    Args:
        offered: Whether the machine was made with SSH.
        folder: The machine's folder.
        spawn: Starts programs on the machine.
    """

    def __init__(self, *, offered: bool, folder: Path, spawn: Spawn) -> None:
        self._offered = offered
        self._folder = folder / "ssh"
        self._spawn = spawn
        self._busy = False

    def refusal(self, key: str | None) -> tuple[HTTPStatus, str] | None:
        """Return status and body for an upgrade that is refused; None lets it pass."""
        if not self._offered:
            return HTTPStatus.NOT_FOUND, "this runtime was created without SSH"
        if problem := key_problem(key):
            return HTTPStatus.BAD_REQUEST, problem
        if self._busy:
            return HTTPStatus.TOO_MANY_REQUESTS, json.dumps({"error": "already-active-session"})
        if _sshd() is None:
            return HTTPStatus.BAD_GATEWAY, "sshd is not reachable"
        return None

    async def serve(self, connection: ServerConnection, key: str) -> None:
        """Carry one session until either side ends."""
        self._busy = True
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            config = await asyncio.to_thread(self._prepare, key)
            self._spawn((str(_sshd()), "-i", "-e", "-f", config), theirs.fileno(), terminal=False, env={})
            theirs.close()
            await _carry(connection, ours)
        except OSError as error:
            await connection.close(1011, str(error)[:100])
        finally:
            theirs.close()
            ours.close()
            self._busy = False

    def _prepare(self, key: str) -> str:
        """Write the server's settings, and a new host key: those of such machines do not stay."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(OSError):
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        host_key = self._folder / "host_key"
        for old in (host_key, host_key.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)],
            check=False,
            capture_output=True,
            timeout=_KEYGEN_TIMEOUT_S,
        )
        (self._folder / "authorized_keys").write_text(key + "\n", encoding="utf-8")
        config = self._folder / "sshd_config"
        config.write_text(_CONFIG.format(folder=self._folder), encoding="utf-8")
        return str(config)


def _sshd() -> str | None:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


async def _carry(connection: ServerConnection, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    async def up() -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            async for frame in connection:
                await loop.sock_sendall(ours, frame.encode() if isinstance(frame, str) else frame)

    async def down() -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while data := await loop.sock_recv(ours, _READ_BYTES):
                await connection.send(data)

    await until_either_ends(up(), down())
