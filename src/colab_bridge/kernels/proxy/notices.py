"""What the user is told inside a cell: as little as possible, and each thing once."""

from __future__ import annotations

import asyncio

from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.process_events import say

__all__ = ["Notices"]

#: Seconds without a connection before a running cell says so; a daemon that was killed is back in two or three.
AWAY_NOTICE_S = 10.0


class Notices:
    """Decides what is worth a line in the notebook.

    Args:
        frontend: Where lines go.
        outbox: Knows which cell runs.
    """

    def __init__(self, frontend: FrontEnd, outbox: Outbox) -> None:
        self._frontend = frontend
        self._outbox = outbox
        self._timer: asyncio.TimerHandle | None = None
        self._told: tuple[str, str] = ("", "")
        self._waiting_since_start = False

    def lost(self, text: str) -> None:
        """Say below the running cell, else below the last one, that output may be missing there."""
        line = f"output may be missing here: {text}"
        parent = self._outbox.last_execute
        if parent is None:
            say(line)
            return
        told = (str(parent.get("msg_id")), line)
        if told != self._told:
            self._told = told
            self._frontend.tell(parent, line)

    def gap(self, first: int, last: int) -> None:
        """Say that messages have left the daemon's record before we came back for them."""
        self.lost(f"{last - first + 1} messages were no longer kept when the connection came back")

    def away(self) -> None:
        """Note that messages do not arrive now; only a long absence is told, and only below a running cell."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AWAY_NOTICE_S, self._still_away)

    def back(self) -> None:
        """Note that messages arrive."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _still_away(self) -> None:
        parent = self._outbox.executing
        if parent is not None:
            self._frontend.tell(
                parent, "the connection to this kernel is being restored; the cell goes on, and its output will follow"
            )

    def reattached(self) -> None:
        """Note that our kernel still works for an earlier window; the next cell will say so."""
        self._waiting_since_start = True

    def sent(self) -> None:
        """Note that a request has gone up."""
        parent = self._outbox.executing
        if self._waiting_since_start and parent is not None:
            self._waiting_since_start = False
            self._frontend.tell(
                parent, "this notebook's kernel is still at work from before; this cell runs after that, variables kept"
            )
