"""What a sign-in gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colab_bridge.model.runtime import Secret

__all__ = [
    "COLAB_SCOPES",
    "DRIVE_SCOPES",
    "SCOPE_COLAB",
    "SCOPE_DRIVE_FILE",
    "SCOPE_EMAIL",
    "AccessToken",
    "SecretAnswer",
]

SCOPE_COLAB: Final = "https://www.googleapis.com/auth/colaboratory"
SCOPE_EMAIL: Final = "https://www.googleapis.com/auth/userinfo.email"
SCOPE_DRIVE_FILE: Final = "https://www.googleapis.com/auth/drive.file"

COLAB_SCOPES: Final = frozenset({SCOPE_COLAB, SCOPE_EMAIL})
DRIVE_SCOPES: Final = COLAB_SCOPES | {SCOPE_DRIVE_FILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """An OAuth 2.0 access token, ready to be sent.

    Attributes:
        value: The token.
        account: E-mail address it belongs to; empty when unknown.
        expires_at: Unix seconds; None when unknown.
        scopes: What it was granted for; empty when unknown.
        source: Where it came from, for people: ``signed in``, ``COLAB_BRIDGE_ACCESS_TOKEN``, ...
        quota_project: Value for ``x-goog-user-project`` on Drive calls; empty when none is needed.
    """

    value: Secret
    account: str = ""
    expires_at: float | None = None
    scopes: frozenset[str] = frozenset()
    source: str = ""
    quota_project: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretAnswer:
    """What becomes of the wish of a project's code for a secret.

    Attributes:
        found: Whether the user has set one of that name.
        allowed: Whether the user has approved that this project gets it.
        value: The secret; None unless both hold.
    """

    found: bool = False
    allowed: bool = False
    value: Secret | None = None
