"""The access token of each account on the disk, so that one refresh serves all our processes.

It is sealed with a key that follows from the refresh token, so it is exactly as hard to read as that one, and worth
nothing once that one has gone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from colab_bridge._util.atomic import write_atomic
from colab_bridge.credentials.grants import Grant
from colab_bridge.credentials.sealing import NotOpenedError, derive, open_sealed, seal
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret

__all__ = ["AccessCache", "token_of"]

_PURPOSE = "colab-bridge access token 1"
_MAX_FILE = 64 * 1024


def token_of(grant: Grant, *, account: str, scopes: frozenset[str], asked_at: float, source: str) -> AccessToken:
    """Return a grant as a token.

    Args:
        grant: What was given.
        account: Whose it is.
        scopes: What the account allowed, for a grant that does not say.
        asked_at: Unix seconds at which it was asked for, which is when its life began at the earliest.
        source: Where it came from, for people.
    """
    return AccessToken(
        value=grant.access,
        account=account,
        expires_at=None if grant.life_s is None else asked_at + grant.life_s,
        scopes=grant.scopes or scopes,
        source=source,
    )


class AccessCache:
    """A folder with one sealed file for each account.

    Args:
        folder: The folder; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, account: str, refresh: Secret) -> AccessToken | None:
        """Return the token of an account; None when there is none that this refresh token opens."""
        try:
            with self._path(account).open("r", encoding="ascii") as file:
                sealed = file.read(_MAX_FILE)
            members: Any = json.loads(open_sealed(derive(refresh.reveal(), _PURPOSE), sealed, account))
        except (OSError, ValueError, NotOpenedError):
            return None  # it can be made again at any time
        expires_at = members.get("expires_at")
        return AccessToken(
            value=Secret(str(members["value"])),
            account=account,
            expires_at=float(expires_at) if expires_at is not None else None,
            scopes=frozenset(members["scopes"]),
            source=str(members["source"]),
        )

    def put(self, token: AccessToken, refresh: Secret) -> None:
        """Keep the token of an account."""
        members = {
            "value": token.value.reveal(),
            "expires_at": token.expires_at,
            "scopes": sorted(token.scopes),
            "source": token.source,
        }
        sealed = seal(derive(refresh.reveal(), _PURPOSE), json.dumps(members).encode(), token.account)
        write_atomic(self._path(token.account), sealed.encode("ascii"), mode=0o600)

    def drop(self, account: str) -> None:
        """Forget the token of an account."""
        self._path(account).unlink(missing_ok=True)

    def _path(self, account: str) -> Path:
        return self._folder / f"access-{hashlib.sha256(account.encode()).hexdigest()[:24]}"
