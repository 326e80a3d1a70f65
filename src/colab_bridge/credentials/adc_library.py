"""Tokens that google-auth makes: of service accounts, and by impersonating one. Blocks; used in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import httpx2
from google.auth import exceptions, impersonated_credentials
from google.auth.transport import Request, Response
from google.oauth2 import service_account

from colab_bridge._util.https import explained, is_plain, tls_context
from colab_bridge.config.services import ServiceUrls
from colab_bridge.credentials.failures import adc_error
from colab_bridge.errors import TransientError
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret

__all__ = ["library_token"]

_CALL_S: Final = 20.0
#: What google-auth has built in, and service account keys name.
_GOOGLE_TOKEN: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
#: Where impersonation asks for the other account's tokens.
_GOOGLE_IAM: Final = "https://iamcredentials.googleapis.com/"
#: What may act for a service account; other kinds have addresses or programs of the file's own in them.
_SOURCES: Final = frozenset({"authorized_user", "service_account"})


class _Answer(Response):
    """An answer in the form that google-auth wants."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self._status, self._headers, self._data = status, headers, data

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers."""
        return self._headers

    @property
    def data(self) -> bytes:
        """Body."""
        return self._data


class _Transport(Request):
    """Sends google-auth's requests with the HTTP client that we have, in place of requests."""

    def __init__(self, urls: ServiceUrls) -> None:
        self._urls = urls

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_options: Any,
    ) -> _Answer:
        """Send one request."""
        address = self._address(url)
        try:
            got = httpx2.request(
                method,
                address,
                content=body,
                headers=dict(headers or {}),
                timeout=timeout or _CALL_S,
                verify=False if is_plain(address) else tls_context(),
                trust_env=not is_plain(address),
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            if (for_people := explained(error, address)) is not None:
                raise for_people from None
            raise exceptions.TransportError(type(error).__name__) from error  # type: ignore[no-untyped-call]  # google's
        return _Answer(got.status_code, got.headers, got.content)

    def _address(self, url: str) -> str:
        """Return where a request of the library's goes: to the host that stands for all of them, if there is one."""
        if url == _GOOGLE_TOKEN:
            return self._urls.token_uri
        if self._urls.oauth and url.startswith(_GOOGLE_IAM):
            return f"{self._urls.oauth}/{url.removeprefix(_GOOGLE_IAM)}"
        return url


def library_token(info: Mapping[str, Any], *, scopes: frozenset[str], source: str, urls: ServiceUrls) -> AccessToken:
    """Make an access token.

    Args:
        info: The content of a credentials file.
        scopes: What it is to be good for.
        source: Where it came from, for people.
        urls: Where the sign-in service is.

    Raises:
        AuthError: the file is of a kind that nobody knows, or the service refused.
        TransientError: the service does not answer.
    """
    try:
        credentials = _load(dict(info), sorted(scopes))
        credentials.refresh(_Transport(urls))
    except exceptions.TransportError as error:
        raise _silent(error) from None
    except exceptions.GoogleAuthError as error:
        if getattr(error, "retryable", False):
            raise _silent(error) from None
        # Only the first argument: the second one is the answer of the service, of any length.
        text = str(error.args[0] if error.args else type(error).__name__)
        raise adc_error(text) from None
    except (ValueError, TypeError, KeyError) as error:  # what the library raises for a file that lacks something
        raise adc_error(f"the file is not usable ({type(error).__name__})") from None
    expiry = credentials.expiry
    return AccessToken(
        value=Secret(str(credentials.token)),
        account=str(getattr(credentials, "service_account_email", "") or ""),
        expires_at=expiry.replace(tzinfo=UTC).timestamp() if expiry is not None else None,
        scopes=scopes,
        source=source,
        quota_project=str(getattr(credentials, "quota_project_id", "") or ""),
    )


def _load(info: dict[str, Any], scopes: list[str]) -> Any:
    # Each kind by its own loader: the general one also takes files that start programs.
    kind = info.get("type")
    if kind == "service_account":
        return service_account.Credentials.from_service_account_info(info, scopes=scopes)  # type: ignore[no-untyped-call]  # google's
    if kind == "impersonated_service_account":
        source = info.get("source_credentials")
        inner = source.get("type") if isinstance(source, dict) else None
        if inner not in _SOURCES:
            raise adc_error(f"impersonation by credentials of type {str(inner)[:40]!r} is not supported")
        make = impersonated_credentials.Credentials.from_impersonated_service_account_info
        return make(info, scopes=scopes)  # type: ignore[no-untyped-call]  # google's
    raise adc_error(f"credentials of type {str(kind)[:40]!r} are not supported")


def _silent(error: Exception) -> TransientError:
    return TransientError(
        f"Google's sign-in service does not answer: {type(error).__name__}",
        hint="is this machine online? try again; behind a proxy set HTTPS_PROXY",
        code="CB-TRANSIENT-AUTH",
    )
