"""HTTP clients for Google's services, and what a line that fails means to a person.

``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and the proxy variables are honoured, except over plain HTTP: that is an emulator on
this machine, before which no proxy stands. No redirect is followed, because the next host would get the token.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import anyio.to_thread
import httpx2

from colab_bridge.errors import UserError

__all__ = ["explained", "is_plain", "open_client", "tls_context"]


def is_plain(url: str) -> bool:
    """Whether an address is one without TLS."""
    return urlsplit(url).scheme.lower() == "http"


def tls_context() -> ssl.SSLContext:
    """Return how certificates are checked. Takes 0.1 s, so it is no work for an event loop.

    Raises:
        UserError: ``SSL_CERT_FILE`` names a file that cannot be used.
    """
    try:
        return httpx2.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            "the certificate file that SSL_CERT_FILE names cannot be used",
            hint="set SSL_CERT_FILE to a readable file of PEM certificates, or unset it",
            code="CB-USER-TLS",
        ) from error


async def open_client(
    url: str,
    *,
    call_s: float,
    connect_s: float | None = None,
    limits: httpx2.Limits | None = None,
    context: ssl.SSLContext | None = None,
) -> httpx2.AsyncClient:
    """Return a client for a service; the caller closes it.

    Args:
        url: An address of the service; only its scheme counts.
        call_s: Seconds for each step of a call, unless the call names its own.
        connect_s: The same for making a connection; as the others when omitted.
        limits: How many connections it may have; what httpx2 takes by itself when omitted.
        context: How certificates are checked, from :func:`tls_context`; made anew when omitted.

    Raises:
        UserError: ``SSL_CERT_FILE`` or a proxy variable cannot be used.
    """
    plain = is_plain(url)
    if not plain and context is None:
        context = await anyio.to_thread.run_sync(tls_context)
    try:
        return httpx2.AsyncClient(
            verify=False if plain or context is None else context,
            trust_env=not plain,
            follow_redirects=False,
            timeout=httpx2.Timeout(call_s, connect=call_s if connect_s is None else connect_s),
            limits=limits or httpx2.Limits(),
        )
    except (ImportError, ValueError) as error:
        raise _bad_proxy() from error


def explained(error: BaseException, url: str) -> UserError | None:
    """Return what a person has to mend before a call can work; None where trying again may help.

    Args:
        error: What the call raised; its causes are looked at too.
        url: Where it was to go. No more than its host is shown.
    """
    tls = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if tls is not None:
        why = " ".join("".join(c if c.isprintable() else " " for c in tls.verify_message or str(tls)).split())
        return UserError(
            f"the certificate of {urlsplit(url).hostname or 'the service'} is not trusted: {why[:200]}",
            hint="set SSL_CERT_FILE to your network's certificate authority, see: colab-bridge doctor",
            code="CB-USER-TLS",
        )
    return _bad_proxy() if isinstance(error, httpx2.ProxyError) else None


def _bad_proxy() -> UserError:
    return UserError(
        "the proxy that the environment names cannot be used for Google's services",
        hint="correct HTTPS_PROXY (http:// or https://), or add the host to NO_PROXY",
        code="CB-USER-PROXY",
    )


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
