"""Who may call: bearer tokens, scopes and XSRF tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

from starlette.responses import Response

from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.http import Call, Refused, google_error, json_answer
from colab_bridge.testing.colab.identity import SCOPE_EMAIL, AccessGrant, Identity
from colab_bridge.testing.colab.state import BackendState

__all__ = ["Access", "XsrfTokens", "scope_error"]


class Access:
    """Checks bearer tokens.

    Args:
        identity: Sign-ins.
        state: Accounts.
    """

    def __init__(self, identity: Identity, state: BackendState) -> None:
        self._identity = identity
        self._state = state

    def grant(self, call: Call) -> AccessGrant:
        """Return what the bearer token of a call was granted for.

        Raises:
            Refused: 401, there is none that counts.
        """
        grant = self._identity.bearer(call.headers.get("authorization", ""))
        if grant is None:
            if not call.headers.get("authorization"):
                call.violation("no Authorization header", "Bearer and an access token")
            raise Refused(google_error(401, "Request had invalid authentication credentials."))
        call.record.account = grant.account
        return grant

    def account(self, call: Call, scopes: Iterable[str], *, needs_email: bool = False) -> Account:
        """Return the account that calls.

        Args:
            call: The call.
            scopes: One of them is needed.
            needs_email: The service also wants to know the address.

        Raises:
            Refused: 401 without a token that counts or without an address, 403 without the scope.
        """
        grant = self.grant(call)
        if not grant.scopes & set(scopes):
            raise Refused(scope_error())
        if needs_email and SCOPE_EMAIL not in grant.scopes:
            call.violation("a token without userinfo.email", "a token that tells the address")
            raise Refused(google_error(401, "Request had invalid authentication credentials."))
        return self._state.account(grant.account)


def scope_error() -> Response:
    """Return the refusal of a token without the right scope: a ``google.rpc.Status`` as a JSON array."""
    detail = "[ORIGINAL ERROR] generic::permission_denied: SCOPE_NOT_PERMITTED"
    status = [
        7,
        "Request had insufficient authentication scopes.",
        [["type.googleapis.com/google.rpc.DebugInfo", [[], detail]]],
    ]
    return json_answer(status, 403)


class XsrfTokens:
    """Tokens that a GET hands out and the POST on the same URL must bring; they may be used more than once."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def mint(self, account: Account, url: str) -> str:
        """Return a new token for one account and one URL."""
        nonce = secrets.token_hex(8)
        return f"{nonce}:{self._signature(nonce, account, url)}"

    def fits(self, token: str, account: Account, url: str) -> bool:
        """Tell whether a token was handed out for this account and URL."""
        nonce, _, signature = token.partition(":")
        return hmac.compare_digest(signature.encode(), self._signature(nonce, account, url).encode())

    def _signature(self, nonce: str, account: Account, url: str) -> str:
        return hmac.new(self._key, f"{nonce}\n{account.email}\n{url}".encode(), hashlib.sha256).hexdigest()
