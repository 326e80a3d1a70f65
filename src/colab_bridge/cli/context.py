"""What a command knows about its call: the console, the folders, the way to the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colab_bridge.cli.console import Console
from colab_bridge.config.caller import caller_env
from colab_bridge.config.paths import Paths

if TYPE_CHECKING:
    from colab_bridge.cli.start_lines import StartLines
    from colab_bridge.client.daemon import DaemonClient

__all__ = ["Invocation"]

# Starting a machine may take minutes; the daemon has its own, shorter limits for each step.
_CALL_TIMEOUT_S = 900.0
_QUIET_S = 1.0


class Invocation:
    """One call of the command line.

    Attributes:
        console: Where output goes.
        as_json: Whether stdout is to be JSON.
        doing: What to show while the daemon has not answered.
    """

    def __init__(self) -> None:
        self.console = Console(os.environ)
        self.as_json = False
        self.doing = "waiting for the daemon"

    @property
    def paths(self) -> Paths:
        """Our folders."""
        return Paths.from_env(os.environ)

    @property
    def cwd(self) -> str:
        """The working folder; as the shell shows it, where that is true."""
        return _logical_cwd()

    @property
    def project(self) -> str:
        """Root of the project that the working folder belongs to."""
        from colab_bridge.config.project import find_root

        return str(find_root(Path(self.cwd)))

    def client(self, *, port: int = 0) -> DaemonClient:
        """Return a client of the daemon, which is started when there is none.

        Args:
            port: TCP port for a daemon that is started; 0 for any free one.

        Raises:
            ColabBridgeError: there is no daemon to be had.
        """
        from colab_bridge.client.connect import connect

        client = connect(
            paths=self.paths,
            call_timeout_s=_CALL_TIMEOUT_S,
            port=port,
            notify=self.console.note,
            on_wait=self._starting,
        )
        client.on_wait = self.waiting
        self.console.clear_progress()
        return client

    def show_start(self, client: DaemonClient) -> StartLines:
        """Show what is said while a session of this project starts, for as long as the client waits."""
        from colab_bridge.cli.start_lines import StartLines

        said = StartLines(client, self.project, self.console)

        def waiting(waited_s: float) -> None:
            said.show_now_and_then()
            self.waiting(waited_s)

        client.on_wait = waiting
        return said

    def _starting(self, waited_s: float) -> None:
        if waited_s >= _QUIET_S:
            self.console.progress(f"starting the daemon ... {waited_s:.0f} s")

    def waiting(self, waited_s: float) -> None:
        """Show what is waited for, once it takes long enough to be noticed."""
        if waited_s >= _QUIET_S:
            self.console.progress(f"{self.doing} ... {waited_s:.0f} s")

    def environment(self) -> dict[str, str]:
        """Return the variables that the daemon must know of this call."""
        return caller_env(os.environ)

    def base(self) -> dict[str, Any]:
        """Return the members that all run requests have."""
        return {"project": self.project, "cwd": self.cwd, "env": self.environment()}


def _logical_cwd() -> str:
    here = os.getcwd()
    named = os.environ.get("PWD", "")
    if os.path.isabs(named):
        try:
            if os.path.samefile(named, here):
                return os.path.normpath(named)
        except OSError:
            return here
    return here
