"""What REST and WebSocket share about reaching a server: its address for people, TLS, and foreign errors in our words.

Nothing here ever puts a header, a query or user information of a URL into a text: those hold tokens.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2

from colab_bridge.errors import AuthError, ColabBridgeError, TransientError, UserError
from colab_bridge.model.runtime import Endpoint

__all__ = ["address_of", "has_credentials", "is_loopback", "tls_context", "translate", "ws_base_url"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def address_of(endpoint: Endpoint) -> str:
    """Return ``host:port`` of the server, for messages.

    Raises:
        UserError: the base URL is none.
    """
    host, port = _host_and_port(endpoint)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(endpoint: Endpoint) -> bool:
    """Whether the server is on this machine, so that no proxy may stand between."""
    host, _port = _host_and_port(endpoint)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ws_base_url(endpoint: Endpoint) -> str:
    """Return the base URL with the scheme ``ws`` or ``wss``."""
    address_of(endpoint)  # refuses what is no http(s) URL
    scheme, rest = endpoint.base_url.split("://", 1)
    return ("wss://" if scheme.lower() == "https" else "ws://") + rest.rstrip("/")


def has_credentials(endpoint: Endpoint) -> bool:
    """Whether the endpoint carries any header that signs us in."""
    return any(name.lower() in ("authorization", "cookie") for name in endpoint.headers)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return how to check the server's certificate; None for a server without TLS.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured, elsewhere the system's own trust store is used.

    Raises:
        UserError: ``SSL_CERT_FILE`` names a file that cannot be read.
    """
    if urlsplit(endpoint.base_url).scheme.lower() != "https":
        return None
    try:
        return httpx2.create_ssl_context(verify=endpoint.verify_tls)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"the certificate file {os.environ.get('SSL_CERT_FILE', '')!r} cannot be used",
            hint="set SSL_CERT_FILE to a readable file of PEM certificates, or unset it",
            code="CB-USER-TLS",
        ) from error


def translate(error: BaseException, endpoint: Endpoint) -> ColabBridgeError:
    """Say in our own errors why a server could not be reached.

    Args:
        error: What httpx2, websockets, ssl or the socket raised; its causes are looked at too.
        endpoint: Where it was to go.

    Returns:
        The error to raise: ``UserError`` for TLS and malformed URLs, ``TransientError`` for all that may pass.
    """
    address = address_of(endpoint)
    for cause in _causes(error):
        found = _translate_one(cause, address, tls=endpoint.base_url.lower().startswith("https:"))
        if found is not None:
            return found
    return TransientError(
        f"the connection to the Jupyter server at {address} broke ({type(error).__name__})",
        hint="try again; if it stays, look at the server's log",
    )


def _translate_one(error: BaseException, address: str, *, tls: bool) -> ColabBridgeError | None:
    if isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
        return None  # how a handshake waits; what ended the waiting follows in the chain
    if isinstance(error, ssl.SSLError):
        return _tls_error(error, address)
    if isinstance(error, socket.gaierror):
        return TransientError(
            f"the name of the Jupyter server {address} cannot be resolved",
            hint="check the host name in the URL and this machine's network",
        )
    if isinstance(error, ConnectionRefusedError):
        return TransientError(
            f"nothing answers at {address}: the connection was refused",
            hint="start the Jupyter server there, or correct host and port in the URL",
        )
    if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
        return TransientError(
            f"the Jupyter server at {address} did not answer in time",
            # A plain HTTP server waits for the end of what it takes for a request line, and never answers TLS.
            hint="check that the server runs and really speaks https; if not, write http:// in the URL"
            if tls
            else "check that the server runs and that no firewall is between, then try again",
        )
    if isinstance(error, (httpx2.ProxyError, ImportError)):
        return UserError(
            f"the proxy for {address} that the environment names cannot be used",
            hint="correct HTTPS_PROXY (http:// or https://), or add the host to NO_PROXY",
            code="CB-USER-PROXY",
        )
    if isinstance(error, (httpx2.LocalProtocolError, UnicodeEncodeError)):
        return AuthError(
            f"the token for {address} holds characters that cannot be sent",
            hint="copy the token again, without spaces or line ends",
        )
    return None


def _tls_error(error: ssl.SSLError, address: str) -> UserError:
    if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
        return UserError(
            f"the server at {address} does not speak TLS", hint="use http:// in the URL", code="CB-USER-TLS"
        )
    why = getattr(error, "verify_message", "") or error.reason or "handshake failed"
    return UserError(
        f"the TLS connection to {address} was refused: {str(why).lower().replace('_', ' ')}",
        hint="set SSL_CERT_FILE to the authority's certificate, or verify_tls = false for this runtime",
        code="CB-USER-TLS",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error, the errors in its group, and their causes; the innermost knows most, so it comes first."""
    chain: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo and len(chain) < 50:
        current = todo.pop()
        if current is None or current in chain:
            continue
        chain.append(current)
        todo += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            todo += current.exceptions
    return reversed(chain)


def _host_and_port(endpoint: Endpoint) -> tuple[str, int]:
    try:
        parts = urlsplit(endpoint.base_url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in ("http", "https") or not host:
        raise UserError(
            "the URL of the Jupyter server is not valid",
            hint="write it like https://host:8888/prefix",
            code="CB-USER-URL",
        )
    return host, port or _DEFAULT_PORTS[scheme]
