"""What lies behind the proxies of a machine: its Jupyter server with Colab's pages, and whatever else listens there."""

from __future__ import annotations

from collections.abc import Callable

from colab_bridge.testing.colab.vm import proxy_rules as rules
from colab_bridge.testing.colab.vm.exchange import HTML, Answer
from colab_bridge.testing.colab.vm.proxy import Upstream

__all__ = ["JupyterBackend", "PortBackend"]

_JSON = ("content-type", "application/json; charset=UTF-8")
_NOT_FOUND = Answer(status=404, headers=(HTML,), body=b"<html>Not Found</html>")


class JupyterBackend:
    """Port 8080.

    Args:
        port: Port of the Jupyter server on loopback.
        token: Token of the Jupyter server.
        services_port: Port of the terminal and SSH tunnel on loopback.
        pages: Colab's own pages: path and what makes the value that is shown.
    """

    def __init__(self, port: int, token: str, services_port: int, pages: dict[str, Callable[[], object]]) -> None:
        # The server knows nothing of Google's names: it is asked as itself, from itself.
        self._jupyter = Upstream(
            port=port,
            headers=(("host", f"127.0.0.1:{port}"), ("authorization", f"token {token}")),
            replaced=frozenset({"host", "origin", "referer", "authorization"}),
        )
        self._services = Upstream(port=services_port, replaced=frozenset({"origin"}))
        self._pages = pages

    def route(self, method: str, path: str, *, upgrade: bool) -> Upstream | Answer:
        """Say who answers a request."""
        if path in ("/colab/tty", "/colab/ssh"):
            return self._services if upgrade else _NOT_FOUND
        if page := self._pages.get(path):
            if method not in ("GET", "HEAD"):
                return Answer(status=405, headers=(HTML, ("allow", "GET")), body=b"<html>Method Not Allowed</html>")
            return Answer(headers=(_JSON,), body=rules.guarded_json(page()))
        return self._jupyter


class PortBackend:
    """Any other port.

    Args:
        port: The port on the machine.
    """

    def __init__(self, port: int) -> None:
        self._upstream = Upstream(port=port)

    def route(self, method: str, path: str, *, upgrade: bool) -> Upstream | Answer:
        """Say who answers a request."""
        return self._upstream
