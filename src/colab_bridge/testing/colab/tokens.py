"""Runtime proxy tokens: minted by the control side, checked by the proxy in front of each machine.

Source: Colab's tokens are JWTs whose claims are the endpoint as audience, an expiry and one port. These look the same
and are signed with a key of this emulator (HS256 instead of ES256); clients must treat them as opaque anyway.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import math
import secrets
from dataclasses import dataclass
from typing import Any

from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.vm.contracts import TokenVerdict

__all__ = ["MintedToken", "ProxyTokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedToken:
    """A token and its life.

    Attributes:
        value: What the client sends.
        ttl_s: Whole seconds it lives from now on.
        expires_at: Unix seconds of the emulator's clock.
    """

    value: str
    ttl_s: int
    expires_at: float


class ProxyTokens:
    """Mints and checks tokens.

    Args:
        clock: Whose time counts.
        ttl_s: Life of new tokens, in seconds; may be changed at any time.
    """

    def __init__(self, clock: EmulatorClock, ttl_s: float) -> None:
        self._clock = clock
        self.ttl_s = ttl_s
        self._key = secrets.token_bytes(32)
        self._numbers = itertools.count(1)
        self._minted = 0
        self._expired_up_to = 0

    def mint(self, endpoint: str, port: int) -> MintedToken:
        """Return a new token for one port of one endpoint; no two are alike."""
        expires_at = math.ceil(self._clock.time() + self.ttl_s)
        self._minted = next(self._numbers)
        header = {"alg": "HS256", "typ": "JWT", "kid": str(self._minted)}
        claims = {"aud": endpoint, "exp": expires_at, "port": port}
        signed = f"{_encoded(header)}.{_encoded(claims)}"
        return MintedToken(
            value=f"{signed}.{self._signature(signed)}", ttl_s=max(1, math.floor(self.ttl_s)), expires_at=expires_at
        )

    def check(self, endpoint: str, port: int, token: str) -> TokenVerdict:
        """Judge a token that came with a request for one port of one endpoint."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(signed).encode(), signature.encode()):
            return TokenVerdict.WRONG
        header, claims = (_decoded(part) for part in signed.split("."))
        if claims["aud"] != endpoint or claims["port"] != port:
            return TokenVerdict.WRONG
        if self._clock.time() >= claims["exp"] or int(header["kid"]) <= self._expired_up_to:
            return TokenVerdict.EXPIRED
        return TokenVerdict.VALID

    def expire_all(self) -> None:
        """Let every token that was minted so far count as expired."""
        self._expired_up_to = self._minted

    def _signature(self, signed: str) -> str:
        return _base64url(hmac.new(self._key, signed.encode(), hashlib.sha256).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _encoded(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _decoded(part: str) -> dict[str, Any]:
    """Decode a part whose signature has been checked, so that it is one of ours."""
    value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(value, dict)
    return value
