"""Notices an execution whose end was never announced.

An execution has ended when its reply (shell) and its idle status (iopub) have come. Servers and ZMQ may drop the
second under a flood of output, and whoever waits for it would wait for ever. Messages on iopub keep their order, so
a silent execution of nothing tells: when its own idle has come, every idle before it has come, or never will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from colab_bridge.kernels.activity import KernelActivity
from colab_bridge.wire.message import RawMessage

__all__ = ["IdleWatch"]

#: Seconds after a reply until its idle is missed; output under way may well take longer, which costs one probe.
PATIENCE_S = 2.0
#: The same where nothing is lost on the way: then only the kernel itself can have dropped it, and a line may be slow.
RELIABLE_PATIENCE_S = 30.0


class IdleWatch:
    """Asks when an idle is overdue.

    Args:
        activity: What the kernel is doing.
        ask: Sends a probe and returns its message id; None when the link is down.
        overdue: Called with the header of each execution whose idle will not come.
        reliable: Tells whether the link loses nothing.
    """

    def __init__(
        self,
        activity: KernelActivity,
        ask: Callable[[], str | None],
        overdue: Callable[[dict[str, Any]], None],
        reliable: Callable[[], bool],
    ) -> None:
        self._activity = activity
        self._ask = ask
        self._overdue = overdue
        self._reliable = reliable
        self._timer: asyncio.TimerHandle | None = None
        self._probe: str | None = None
        self._probe_answered = False
        self._waiting: frozenset[str] = frozenset()

    def changed(self) -> None:
        """Look whether an execution waits for its idle; called after each message."""
        if self._timer is None and self._activity.half_ended():
            patience_s = RELIABLE_PATIENCE_S if self._reliable() else PATIENCE_S
            self._timer = asyncio.get_running_loop().call_later(patience_s, self._look)

    def fenced(self, probe: str) -> None:
        """Take a silent execution that was sent for another reason as a probe for all that was sent before it."""
        self._waiting = frozenset(self._activity.under_way())
        self._probe, self._probe_answered = probe, False

    def link_lost(self) -> None:
        """Give up a probe that is under way: its answers may have gone down with the connection."""
        self._probe = None

    def stop(self) -> None:
        """Forget everything; nothing is called afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._probe = None

    def received(self, message: RawMessage) -> None:
        """Take a message that belongs to one of the hub's own requests."""
        if self._probe is None or message.parent_id != self._probe:
            return
        if message.channel == "shell":
            # Answered: if its idle is dropped as well, the next look may ask again.
            self._probe_answered = True
        elif message.msg_type == "status" and message.content_fields().get("execution_state") == "idle":
            self._probe = None
            for msg_id, header in self._activity.half_ended().items():
                if msg_id in self._waiting:
                    self._overdue(header)

    def _look(self) -> None:
        self._timer = None
        half = self._activity.half_ended()
        if not half:
            self._probe = None
            return
        if self._probe is None or self._probe_answered:
            self._waiting = frozenset(half)
            self._probe = self._ask()
            self._probe_answered = False
        self.changed()
