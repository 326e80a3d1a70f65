"""Where Google's services are: their own addresses, or an emulator's or a proxy's from the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

from colab_bridge.errors import UserError

__all__ = ["SERVICE_VARIABLES", "ServiceUrls", "require_same_services", "service_urls"]

#: Field of :class:`ServiceUrls` by the environment variable that replaces it.
SERVICE_VARIABLES: Final = MappingProxyType(
    {
        "COLAB_BRIDGE_COLAB_URL": "colab",
        "COLAB_BRIDGE_GAPI_URL": "gapi",
        "COLAB_BRIDGE_PUBLIC_API_URL": "public_api",
        "COLAB_BRIDGE_DRIVE_URL": "drive",
        "COLAB_BRIDGE_OAUTH_URL": "oauth",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrls:
    """Scheme and host of each service, without a slash at the end; Google's own paths are appended.

    Attributes:
        colab: Session backend, paths ``/tun/m/...`` and ``/vscode/...``.
        gapi: Colab's internal Google API, paths ``/v1/...``.
        public_api: Public Colab API, paths ``/v1beta/...`` and ``/v1/operations``.
        drive: Drive, paths ``/drive/v3`` and ``/upload/drive/v3``.
        oauth: One host for everything that signs in; empty for Google's, which are several.

    Source of the defaults: Google's public clients for Colab, and the discovery documents of OAuth and Drive.
    """

    colab: str = "https://colab.research.google.com"
    gapi: str = "https://colab.pa.googleapis.com"
    public_api: str = "https://colaboratory.googleapis.com"
    drive: str = "https://www.googleapis.com"
    oauth: str = ""

    @property
    def auth_uri(self) -> str:
        """Page on which a person agrees."""
        return f"{self.oauth or 'https://accounts.google.com'}/o/oauth2/v2/auth"

    @property
    def token_uri(self) -> str:
        """Where codes and refresh tokens become access tokens."""
        return f"{self.oauth or 'https://oauth2.googleapis.com'}/token"

    @property
    def revoke_uri(self) -> str:
        """Where a token is revoked."""
        return f"{self.oauth or 'https://oauth2.googleapis.com'}/revoke"

    @property
    def tokeninfo_uri(self) -> str:
        """What tells account and scopes of an access token."""
        return f"{self.oauth or 'https://oauth2.googleapis.com'}/tokeninfo"

    @property
    def userinfo_uri(self) -> str:
        """What tells whose access token it is."""
        return f"{self.oauth or 'https://www.googleapis.com'}/oauth2/v2/userinfo"


def service_urls(environ: Mapping[str, str]) -> ServiceUrls:
    """Read the addresses from an environment; a variable that is unset or empty leaves Google's own.

    Raises:
        UserError: an address is not usable, or would send access tokens over an open network.
    """
    given = {field: environ.get(name, "").strip() for name, field in SERVICE_VARIABLES.items()}
    names = {field: name for name, field in SERVICE_VARIABLES.items()}
    return ServiceUrls(**{field: _checked(names[field], url) for field, url in given.items() if url})


def require_same_services(own: ServiceUrls, environ: Mapping[str, str]) -> None:
    """Refuse a caller that means other services than this process was started for.

    Args:
        own: Of this process.
        environ: The caller's environment; what it does not name is no matter.

    Raises:
        UserError: they differ.
    """
    wanted = service_urls(environ)
    named = [field for name, field in SERVICE_VARIABLES.items() if environ.get(name, "").strip()]
    if any(getattr(wanted, field) != getattr(own, field) for field in named):
        raise UserError(
            "the daemon was started for other addresses of Google's services than this command names",
            hint="colab-bridge daemon restart, or unset COLAB_BRIDGE_COLAB_URL and its siblings",
            code="CB-USER-063",
        )


def _checked(variable: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = url.isascii() and url.isprintable() and " " not in url and bool(parts.hostname)
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or parts.username is not None:
        raise _unusable(variable, "is no address")
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        raise _unusable(variable, "holds more than scheme and host")
    if parts.scheme == "http" and not _is_loopback(parts):
        raise _unusable(variable, "would send access tokens without encryption")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unusable(variable: str, reason: str) -> UserError:
    return UserError(
        f"the address in {variable} {reason}",
        hint=f"set {variable} to https://HOST, or http://127.0.0.1:PORT for an emulator, or unset it",
        code="CB-USER-061",
    )
