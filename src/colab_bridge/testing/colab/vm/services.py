"""Terminal and SSH tunnel of one machine, as WebSockets on loopback for the proxy to forward to."""

from __future__ import annotations

from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from colab_bridge.testing.colab.vm.ssh import SshService
from colab_bridge.testing.colab.vm.terminal import TerminalService

__all__ = ["MachineServices"]

_KEY_HEADER = "X-Colab-Ssh-Pubkey"


class MachineServices:
    """Runs from :meth:`start` to :meth:`close`.

    Args:
        terminal: The terminal.
        ssh: The tunnel.

    Attributes:
        port: Port on loopback.
    """

    port: int
    _server: Server

    def __init__(self, terminal: TerminalService, ssh: SshService) -> None:
        self._terminal = terminal
        self._ssh = ssh

    @classmethod
    async def start(cls, terminal: TerminalService, ssh: SshService) -> Self:
        """Begin to listen."""
        self = cls(terminal, ssh)
        # No pings and no compression: the proxy is to be seen through, and Google's end sends neither.
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._admit,
            max_size=None,
            ping_interval=None,
            compression=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.partition("?")[0] != "/colab/ssh":
            return None
        refused = self._ssh.refusal(request.headers.get(_KEY_HEADER))
        return connection.respond(*refused) if refused else None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path.partition("?")[0] == "/colab/ssh":
            await self._ssh.serve(connection, connection.request.headers[_KEY_HEADER])
        else:
            await self._terminal.serve(connection)

    async def close(self) -> None:
        """End all sessions."""
        self._server.close()
        await self._server.wait_closed()
        self._terminal.close()
