"""Sign-ins: clients, consents, codes, refresh tokens and access tokens. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from colab_bridge.testing.colab.clock import EmulatorClock

__all__ = [
    "ALL_SCOPES",
    "CLOUD_SDK_CLIENT",
    "DESKTOP_CLIENT",
    "SCOPE_COLAB",
    "SCOPE_COLAB_READ",
    "SCOPE_DRIVE",
    "SCOPE_DRIVE_FILE",
    "SCOPE_EMAIL",
    "SCOPE_PROFILE",
    "AccessGrant",
    "Code",
    "Consent",
    "Identity",
    "OAuthClient",
    "RefreshGrant",
    "normal_scopes",
]

_GOOGLE: Final = "https://www.googleapis.com/auth/"
SCOPE_COLAB: Final = _GOOGLE + "colaboratory"
SCOPE_COLAB_READ: Final = _GOOGLE + "colaboratory.readonly"
SCOPE_EMAIL: Final = _GOOGLE + "userinfo.email"
SCOPE_PROFILE: Final = _GOOGLE + "userinfo.profile"
SCOPE_DRIVE_FILE: Final = _GOOGLE + "drive.file"
SCOPE_DRIVE: Final = _GOOGLE + "drive"

#: Scopes that a consent page of this emulator knows; Google answers ``invalid_scope`` to others.
ALL_SCOPES: Final = frozenset(
    {
        "openid",
        SCOPE_EMAIL,
        SCOPE_PROFILE,
        SCOPE_COLAB,
        SCOPE_COLAB_READ,
        SCOPE_DRIVE_FILE,
        SCOPE_DRIVE,
        _GOOGLE + "drive.readonly",
        _GOOGLE + "cloud-platform",
    }
)
SCOPE_CLOUD: Final = _GOOGLE + "cloud-platform"
SCOPE_IAM: Final = _GOOGLE + "iam"
#: Short names that the sign-in accepts; tokens carry the long ones.
_SHORT: Final = MappingProxyType({"email": SCOPE_EMAIL, "profile": SCOPE_PROFILE})

#: The client of Google's Cloud SDK, which google-colab-cli uses as well; published in both.
CLOUD_SDK_CLIENT: Final = "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com"
#: A client of type Desktop in a project of its own, as users make it.
DESKTOP_CLIENT: Final = "407408718192-emulator.apps.googleusercontent.com"

#: A code must be exchanged within ten minutes.
CODE_TTL_S: Final = 600.0


def normal_scopes(text: str) -> frozenset[str]:
    """Return the scopes that a blank-separated list names, in their long form."""
    return frozenset(_SHORT.get(name, name) for name in text.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """A registered client.

    Attributes:
        id: Its ``client_id``.
        secret: Its ``client_secret``, which is no secret for a program on a desktop.
        landing_page: A redirect besides loopback that is registered to it; empty when there is none.
        needs_quota_project: Drive refuses its tokens without ``x-goog-user-project``.
    """

    id: str
    secret: str
    landing_page: str = ""
    needs_quota_project: bool = False


@dataclass(slots=True, kw_only=True)
class Consent:
    """What the person on the consent page does; may be changed at any time.

    Attributes:
        account: Address they choose; that of ``login_hint``, or the first account, when empty.
        denied: They refuse.
        withheld: Boxes they untick.
    """

    account: str = ""
    denied: bool = False
    withheld: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An authorization code, good for one exchange."""

    client_id: str
    redirect_uri: str
    account: str
    scopes: frozenset[str]
    challenge: str
    offline: bool
    expires_at: float


@dataclass(slots=True, kw_only=True)
class RefreshGrant:
    """A refresh token.

    Attributes:
        broken: What a refresh is answered with from now on: ``error`` and ``error_subtype`` or empty; None while it
            works.
    """

    value: str
    client_id: str
    account: str
    scopes: frozenset[str]
    broken: tuple[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class AccessGrant:
    """An access token. ``expires_at`` is None for one that lives as long as the emulator."""

    value: str
    client_id: str
    account: str
    scopes: frozenset[str]
    expires_at: float | None
    refresh: str = ""


@dataclass(slots=True)
class Identity:
    """Everything about sign-ins.

    Attributes:
        clock: Whose time counts.
        access_ttl_s: Life of access tokens, in seconds.
        clients: Registered clients by id.
        consent: What the person on the consent page does.
        service_keys: Public keys (PEM) of service accounts by their address.
    """

    clock: EmulatorClock
    access_ttl_s: int
    clients: dict[str, OAuthClient] = field(default_factory=dict)
    consent: Consent = field(default_factory=Consent)
    service_keys: dict[str, bytes] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    refreshes: dict[str, RefreshGrant] = field(default_factory=dict)
    accesses: dict[str, AccessGrant] = field(default_factory=dict)
    granted: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for client in (
            OAuthClient(id=DESKTOP_CLIENT, secret="GOCSPX-emulator"),  # noqa: S106  # opens nothing anywhere
            OAuthClient(
                id=CLOUD_SDK_CLIENT,
                secret="",
                landing_page="https://sdk.cloud.google.com/applicationdefaultauthcode.html",
                needs_quota_project=True,
            ),
        ):
            self.clients[client.id] = client

    def agree(
        self, client_id: str, account: str, asked: frozenset[str], *, include_granted: bool
    ) -> tuple[frozenset[str], bool]:
        """Note what a person agreed to.

        Returns:
            What the tokens will be good for, and whether it is the first time that they agreed for this client.
        """
        before = self.granted.get((client_id, account), frozenset())
        scopes = asked - self.consent.withheld
        self.granted[client_id, account] = before | scopes
        return (scopes | before if include_granted else scopes), not before

    def code(self, code: Code) -> str:
        """Keep a code and return its value."""
        value = f"4/{secrets.token_urlsafe(32)}"
        self.codes[value] = code
        return value

    def redeem(self, value: str, *, client_id: str, redirect_uri: str, verifier: str) -> Code | None:
        """Take a code out; None when it is unknown, used, too old, or belongs to another request."""
        code = self.codes.pop(value, None)
        if code is None or self.clock.time() >= code.expires_at:
            return None
        if code.client_id != client_id or code.redirect_uri != redirect_uri:
            return None
        if code.challenge and not hmac.compare_digest(code.challenge, _s256(verifier)):
            return None
        return code

    def refresh_token(self, *, client_id: str, account: str, scopes: frozenset[str]) -> RefreshGrant:
        """Make a refresh token."""
        grant = RefreshGrant(
            value=f"1//{secrets.token_urlsafe(32)}", client_id=client_id, account=account, scopes=scopes
        )
        self.refreshes[grant.value] = grant
        return grant

    def access_token(
        self,
        *,
        account: str,
        scopes: frozenset[str] = ALL_SCOPES,
        client_id: str = DESKTOP_CLIENT,
        ttl_s: float | None = None,
        refresh: str = "",
    ) -> AccessGrant:
        """Make an access token.

        Args:
            account: Whose.
            scopes: What for.
            client_id: For which client.
            ttl_s: Its life in seconds; None for as long as the emulator lives.
            refresh: The refresh token that it came from.
        """
        grant = AccessGrant(
            value=f"ya29.{secrets.token_urlsafe(48)}",
            client_id=client_id,
            account=account,
            scopes=scopes,
            expires_at=None if ttl_s is None else self.clock.time() + ttl_s,
            refresh=refresh,
        )
        self.accesses[grant.value] = grant
        return grant

    def bearer(self, authorization: str) -> AccessGrant | None:
        """Return the grant behind an ``Authorization`` header; None when there is none that counts."""
        scheme, _, value = authorization.partition(" ")
        return self.valid(value.strip()) if scheme.lower() == "bearer" else None

    def valid(self, value: str) -> AccessGrant | None:
        """Return the grant of an access token that is neither unknown nor too old."""
        grant = self.accesses.get(value)
        if grant is None or (grant.expires_at is not None and self.clock.time() >= grant.expires_at):
            return None
        return grant

    def revoke(self, value: str) -> bool:
        """Revoke an access or refresh token, and with it everything that came from the same consent."""
        access = self.accesses.get(value)
        refresh = self.refreshes.get(access.refresh if access is not None else value)
        if access is None and refresh is None:
            return False
        gone = refresh.value if refresh is not None else None
        self.accesses = {k: g for k, g in self.accesses.items() if k != value and (gone is None or g.refresh != gone)}
        if refresh is not None:
            refresh.broken = ("invalid_grant", "")
            self.granted.pop((refresh.client_id, refresh.account), None)
        return True

    def break_refresh(self, account: str, *, error: str = "invalid_grant", subtype: str = "") -> None:
        """Let every refresh for an account fail from now on, as after a password change or a policy of a Workspace."""
        for grant in self.refreshes.values():
            if grant.account == account:
                grant.broken = (error, subtype)


def _s256(verifier: str) -> str:
    """Return the PKCE challenge of a verifier (RFC 7636, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode("ascii")
