"""The SSH server of a Colab runtime, behind a WebSocket of its proxy.

Binary frames are raw SSH bytes both ways. The proxy wants the public key that may log in as root.

Source: Google's command-line client for Colab, ``/colab/ssh``.
"""

from __future__ import annotations

import re
from typing import Final

from websockets.asyncio.client import ClientConnection

from colab_bridge.errors import AuthError, ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.kernels.ws_opening import open_websocket
from colab_bridge.model.runtime import Endpoint

__all__ = ["check_public_key", "open_ssh"]

_OPEN_S: Final = 30.0
_KEY: Final = re.compile(
    r"(ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/]{40,400}={0,2}(?: [\x21-\x7e ]{0,200})?"
)


def check_public_key(line: str) -> str:
    """Return a public key as it may stand in a request header.

    Raises:
        UserError: it is none that Colab takes; RSA keys are refused there.
    """
    key = line.strip()
    if not _KEY.fullmatch(key):
        raise UserError(
            "Colab takes ed25519 and ecdsa keys only", hint="make one: ssh-keygen -t ed25519", code="CB-USER-064"
        )
    return key


async def open_ssh(endpoint: Endpoint, public_key: str) -> ClientConnection:
    """Open the way to the SSH server.

    Args:
        endpoint: The way in to the runtime.
        public_key: One line, checked by :func:`check_public_key`.

    Raises:
        UserError: the runtime was made without SSH, or refuses the key.
        ConflictError: there is an SSH session already.
        ColabBridgeError: any other class: why it did not work this time.
    """
    try:
        return await _connect(endpoint, public_key)
    except AuthError:
        if endpoint.renew is None:
            raise
        return await _connect(await endpoint.renew(), public_key)


async def _connect(endpoint: Endpoint, public_key: str) -> ClientConnection:
    return await open_websocket(
        endpoint,
        "/colab/ssh",
        lambda response: _refusal(response.status_code),
        timeout_s=_OPEN_S,
        headers={"X-Colab-Ssh-Pubkey": public_key},
    )


def _refusal(status: int) -> ColabBridgeError:
    if status in (401, 403):
        return AuthError("the runtime's proxy refuses our token", hint="colab-bridge ps --all", code="CB-COLAB-SSH")
    if status == 404:
        # Here, and only here, it does not mean that a token has expired.
        return UserError(
            "this runtime was made without SSH", hint="colab-bridge console works on it", code="CB-USER-065"
        )
    if status == 429:
        return ConflictError(
            "this runtime has an SSH session already, and takes one at a time", hint="end the other one first"
        )
    if status == 400:
        return UserError("the runtime refuses this key", hint="make one: ssh-keygen -t ed25519", code="CB-USER-064")
    return TransientError(
        f"the SSH server of the runtime cannot be reached (status {status})", hint="colab-bridge console works too"
    )
