"""What the daemon says while a session starts, shown as it comes."""

from __future__ import annotations

import time

from colab_bridge.cli.console import Console
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.errors import ColabBridgeError

__all__ = ["StartLines"]

_PAUSE_S = 1.0
_ANSWER_S = 2.0


class StartLines:
    """Shows the lines of a project's start on stderr, each once.

    Args:
        client: A client of the running daemon.
        project: Root of the project.
        console: The terminal.
    """

    def __init__(self, client: DaemonClient, project: str, console: Console) -> None:
        # A client of its own: the other one shows what is waited for while this one is asked.
        self._client = DaemonClient(client.address, timeout_s=_ANSWER_S)
        self._project = project
        self._console = console
        self._last = 0
        self._began = self._asked_at = time.monotonic()

    def show_now_and_then(self) -> None:
        """Show what is new, asking once a second at most."""
        if time.monotonic() - self._asked_at >= _PAUSE_S:
            self.show()

    def show(self) -> None:
        """Show what is new; a daemon that does not answer now is asked again later."""
        self._asked_at = time.monotonic()
        try:
            waited_s = time.monotonic() - self._began
            found = self._client.get("/v1/starts", project=self._project, after=self._last, within_s=waited_s)
        except ColabBridgeError:
            return
        for line in found.get("lines") or []:
            self._last = max(self._last, int(line.get("number") or 0))
            self._console.note(str(line.get("text")))
