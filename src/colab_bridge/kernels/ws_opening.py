"""Opens WebSockets to what is behind a runtime's way in, so that our token goes nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Response

from colab_bridge.errors import ColabBridgeError
from colab_bridge.kernels.netloc import is_loopback, tls_context, translate, ws_base_url
from colab_bridge.model.runtime import Endpoint

__all__ = ["open_websocket"]

#: The close handshake is a courtesy; a dead link must not hold up the next one.
CLOSE_TIMEOUT_S: Final = 1.0


class _Connect(connect):
    """A connect that follows no redirect: our token would follow it."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_websocket(
    endpoint: Endpoint,
    path: str,
    refused: Callable[[Response], ColabBridgeError],
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> ClientConnection:
    """Open a WebSocket.

    Args:
        endpoint: The way in.
        path: Path and query behind its base URL.
        refused: Makes the error for an answer that is no upgrade.
        timeout_s: Limit for TCP, TLS and the opening handshake together.
        headers: Sent besides those of the endpoint.
        options: Passed to ``websockets.asyncio.client.connect``.

    Returns:
        The open connection, to be closed by the caller.

    Raises:
        ColabBridgeError: why it did not work this time.
    """
    if (tls := tls_context(endpoint)) is not None:
        options["ssl"] = tls
    quiet = logging.getLogger(f"{__name__}.handshake")
    quiet.setLevel(logging.WARNING)  # the library writes request headers, and so our token, into debug records
    try:
        return await _Connect(
            ws_base_url(endpoint) + path,
            additional_headers={**endpoint.plain_headers(), **(headers or {})},
            compression=None,
            open_timeout=timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None if is_loopback(endpoint) else True,
            logger=quiet,
            **options,
        )
    except InvalidStatus as error:
        raise refused(error.response) from None  # the exception holds the response's cookies
    except (OSError, WebSocketException, EOFError, ImportError, ValueError) as error:
        raise translate(error, endpoint) from None  # may quote request headers, and so the token
