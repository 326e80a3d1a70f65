"""Where access tokens come from."""

from __future__ import annotations

from typing import Protocol

from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken

__all__ = ["TokenSource"]


class TokenSource(Protocol):
    """Gives access tokens of the user's accounts, fresh enough to be used at once."""

    async def token(
        self, *, account: str = "", scopes: frozenset[str] = COLAB_SCOPES, stale: AccessToken | None = None
    ) -> AccessToken:
        """Return a token with at least five minutes to live, or one whose life is unknown.

        Args:
            account: E-mail address; the account in use when empty.
            scopes: What the call needs; compared with what was granted where that is known.
            stale: A token that the service has just refused with 401: give another one. Many callers that hold the
                same stale token cause one refresh. What cannot be refreshed comes again once, after a short pause: the
                call is to be tried again with whatever is returned.

        Raises:
            AuthError: there is no sign-in, it was revoked, or a scope was not granted; the hint is what helps.
            TransientError: the sign-in service does not answer.
        """
        ...
