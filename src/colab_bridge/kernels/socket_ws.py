"""One WebSocket to one kernel: opened with our rules, and kept from stalling.

Source: RFC 6455; the kernel WebSocket of jupyter_server (``/api/kernels/<id>/channels``).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from colab_bridge.errors import AuthError, ColabBridgeError, RuntimeLostError, TransientError
from colab_bridge.kernels.netloc import address_of
from colab_bridge.kernels.prompt_send import send_promptly
from colab_bridge.kernels.renewal import still_refused, wants_renewal
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.kernels.ws_opening import open_websocket
from colab_bridge.model.runtime import Endpoint
from colab_bridge.wire.jupyter_ws import V1_SUBPROTOCOL

__all__ = ["KernelSocket", "open_channels"]

#: Unsent bytes that the system may hold. Small, so that the rest of an upload stays where its progress can be seen.
UNSENT_BYTES = 128 * 1024
#: PONGs at once (a request has about six frames), and a second after that.
PONG_BURST = 24.0
PONGS_PER_S = 200.0


class KernelSocket(ClientConnection):
    """A connection that acknowledges at once and remembers when it last heard something.

    jupyter_server leaves Nagle's algorithm on: its second small frame waits until the first is acknowledged, which the
    receiving system delays by 40 ms. An empty unsolicited PONG after whatever arrives carries the acknowledgement with
    it, on every system (RFC 6455, 5.5.3 allows it). Measured: 48 ms a request without, 5 ms with it.

    A flood of output needs no such help, and each PONG costs the server time that it then lacks for reading from the
    kernel, which makes ZMQ drop output. So after a burst they are spread; the last one always comes.
    """

    acknowledges: bool = True  # False where the server waits for no acknowledgement
    last_heard: float = 0.0  # loop time of the latest bytes, also of a frame that is not complete yet
    _pongs_left: float = PONG_BURST
    _pongs_counted_at: float = 0.0
    _pong_later: asyncio.TimerHandle | None = None

    async def send(self, *arguments: Any, **options: Any) -> None:
        """Send a message; what comes back for it is acknowledged at once, however much was before."""
        self._pongs_left = PONG_BURST
        await super().send(*arguments, **options)

    def send_now(self, data: str | bytes) -> bool:
        """Send a message as :meth:`send` does, from a callback; see :func:`.prompt_send.send_promptly`."""
        self._pongs_left = PONG_BURST
        return send_promptly(self, data)

    @property
    def has_room(self) -> bool:
        """Whether everything that was sent has left this process, so that :meth:`write_now` may be called."""
        return self.protocol.state is State.OPEN and not self.transport.is_closing() and self.unsent_bytes == 0

    def write_now(self, data: str | bytes) -> None:
        """Send a message of any size from a callback; only when there is room, and no ``send`` is under way."""
        self._pongs_left = PONG_BURST
        if isinstance(data, str):
            self.protocol.send_text(data.encode())
        else:
            self.protocol.send_binary(data)
        self.send_data()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the network."""
        super().data_received(data)
        now = self.last_heard = self.loop.time()
        if not self.acknowledges:
            return
        self._pongs_left = min(PONG_BURST, self._pongs_left + (now - self._pongs_counted_at) * PONGS_PER_S)
        self._pongs_counted_at = now
        if self._pongs_left >= 1:
            self._pongs_left -= 1
            self._acknowledge()
        elif self._pong_later is None:
            self._pong_later = self.loop.call_later(1 / PONGS_PER_S, self._acknowledge)

    def _acknowledge(self) -> None:
        self._pong_later = None
        # Bytes that wait to go out carry the acknowledgement anyway.
        if self.protocol.state is State.OPEN and self.unsent_bytes == 0:
            self.protocol.send_pong(b"")
            self.send_data()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the system has not taken over yet."""
        return self.transport.get_write_buffer_size()


async def open_channels(
    get_endpoint: Callable[[], Awaitable[Endpoint]],
    kernel_id: str,
    session_id: str,
    timeout_s: float,
    *,
    max_bytes: int | None = None,
) -> tuple[Endpoint, KernelSocket]:
    """Open the WebSocket of a kernel.

    A refused token is asked for once more, because it may have expired since the provider made it; where a proxy
    before the server refuses us, another way in is got.

    Args:
        get_endpoint: Returns the way in.
        kernel_id: The server's id of the kernel.
        session_id: Our identity at the server.
        timeout_s: Limit for TCP, TLS and the opening handshake together.
        max_bytes: Longest message that is taken from the server; a longer one ends the connection. None for any.

    Returns:
        The way in that was used, and the open connection, to be closed by the caller.

    Raises:
        RuntimeLostError: the server does not have this kernel.
        ColabBridgeError: any other class: why it did not work this time.
    """
    path = f"/api/kernels/{quote(kernel_id, safe='')}/channels?session_id={quote(session_id, safe='')}"
    endpoint = await get_endpoint()
    try:
        return endpoint, await _open(endpoint, path, timeout_s, max_bytes)
    except _ProxyRefusesError:
        assert endpoint.renew is not None  # nothing else makes this error
        endpoint = await endpoint.renew()
    except AuthError:
        endpoint = await get_endpoint()
    except _NotFoundError:
        await _verify_kernel(endpoint, kernel_id)
        raise _strange(endpoint, 404) from None
    try:
        return endpoint, await _open(endpoint, path, timeout_s, max_bytes)
    except _ProxyRefusesError:
        raise still_refused(address_of(endpoint)) from None
    except _NotFoundError:
        await _verify_kernel(endpoint, kernel_id)
        raise _strange(endpoint, 404) from None


class _ProxyRefusesError(TransientError):
    """What stands before the server refuses the way in, which can be renewed."""


class _NotFoundError(TransientError):
    """The server has no such WebSocket: no such kernel, or no Jupyter server any more."""


async def _verify_kernel(endpoint: Endpoint, kernel_id: str) -> None:
    """Ask the REST side whether the kernel is gone: a proxy's 404 while a server starts must not end a kernel."""
    server = JupyterServer(endpoint)
    try:
        if await server.kernel(kernel_id) is None:
            raise RuntimeLostError(
                f"the kernel does not exist on {address_of(endpoint)} any more", hint="start the session's kernel anew"
            )
    finally:
        await server.aclose()


async def _open(endpoint: Endpoint, path: str, timeout_s: float, max_bytes: int | None) -> KernelSocket:
    connection = await open_websocket(
        endpoint,
        path,
        lambda response: _refusal(endpoint, response),
        timeout_s=timeout_s,
        subprotocols=[Subprotocol(V1_SUBPROTOCOL)],
        max_size=max_bytes,
        ping_interval=None,  # our own pings also count unfinished frames and uploads as signs of life
        create_connection=KernelSocket,
    )
    assert isinstance(connection, KernelSocket)
    connection.acknowledges = not endpoint.nodelay
    _limit_unsent(connection)
    return connection


def _refusal(endpoint: Endpoint, response: Response) -> ColabBridgeError:
    status = response.status_code
    if wants_renewal(endpoint, status, dict(response.headers.raw_items()), bytes(response.body or b"")):
        return _ProxyRefusesError(f"what stands before the runtime at {address_of(endpoint)} refuses our token")
    if status in (401, 403) or 300 <= status < 400:
        return AuthError(
            f"the Jupyter server at {address_of(endpoint)} refuses our token",
            hint="copy the token from the server again (`jupyter server list`), and give it with the URL",
        )
    if status == 404:
        return _NotFoundError(f"no kernel WebSocket at {address_of(endpoint)}")
    return _strange(endpoint, status)


def _strange(endpoint: Endpoint, status: int) -> TransientError:
    return TransientError(
        f"the Jupyter server at {address_of(endpoint)} did not open the kernel's WebSocket (status {status})",
        hint="try again; if it stays, check that proxies between let WebSockets through",
    )


def _limit_unsent(connection: KernelSocket) -> None:
    """Keep the system's own send queue short where it can be done (Linux, macOS; Windows keeps 64 KiB by itself)."""
    raw = connection.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if raw is not None and option is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)
