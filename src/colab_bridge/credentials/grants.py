"""Tokens as the sign-in service hands them out, and when one has to be renewed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from colab_bridge.credentials.scopes import parse_scopes
from colab_bridge.errors import TransientError
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret

__all__ = ["REFRESH_AHEAD_S", "Grant", "is_usable", "needs_refresh", "read_grant"]

#: A token with less than this to live is renewed before it is used.
REFRESH_AHEAD_S: Final = 300.0
#: With less than this it is not handed out even when it cannot be renewed: a call takes a while, and clocks differ.
_LAST_USE_S: Final = 30.0
_MAX_LIFE_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What an exchange or a refresh has given.

    Attributes:
        access: The access token.
        life_s: Seconds that it is good for, from when it was asked for; None when the service did not say.
        scopes: What it was granted for; empty when the service did not say.
        refresh: A new refresh token, where one came.
    """

    access: Secret
    life_s: float | None = None
    scopes: frozenset[str] = frozenset()
    refresh: Secret | None = None


def read_grant(body: object) -> Grant:
    """Read a successful answer of the token endpoint.

    Raises:
        TransientError: it lacks the token, or holds one that cannot go into a header line.
    """
    members: dict[str, Any] = body if isinstance(body, dict) else {}
    access = members.get("access_token")
    if not _is_token(access):
        raise TransientError(
            "protocol changed: token.access_token", hint="colab-bridge doctor", code="CB-TRANSIENT-AUTH"
        )
    refresh = members.get("refresh_token")
    return Grant(
        access=Secret(str(access)),
        life_s=read_life(members.get("expires_in")),
        scopes=parse_scopes(members.get("scope")),
        refresh=Secret(str(refresh)) if _is_token(refresh) else None,
    )


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 16384 and value.isascii() and value.isprintable()


def read_life(value: object) -> float | None:
    """Return seconds to live as a number, whether they came as one or as text; None when they make no sense."""
    try:
        life = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        return None
    return min(life, _MAX_LIFE_S) if 0 < life < float("inf") else None


def needs_refresh(token: AccessToken, now: float, stale: AccessToken | None) -> bool:
    """Return whether a token has to be renewed before it is used.

    Args:
        token: What is at hand.
        now: Unix seconds.
        stale: What the service has just refused, if it did. Another token than that one is good enough: somebody has
            renewed it in between.
    """
    if stale is not None and stale.value == token.value:
        return True
    return token.expires_at is not None and token.expires_at - now < REFRESH_AHEAD_S


def is_usable(token: AccessToken, now: float, stale: AccessToken | None) -> bool:
    """Return whether a token may be used although it should be renewed and cannot be now."""
    if stale is not None and stale.value == token.value:
        return False
    return token.expires_at is None or token.expires_at - now >= _LAST_USE_S
