"""The reply of an execution goes to the front end behind everything that the execution has published.

A kernel publishes on one socket and replies on another, and a front end that has the reply takes what is still missing
for late: some give up on it after a tenth of a second. On the way through several processes that much may well lie
between the two on a busy machine.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from colab_bridge.wire.message import RawMessage

__all__ = ["ReplyOrder"]

#: Seconds for which a reply waits: under a flood of output its ``idle`` may be far behind, and it may be lost.
PATIENCE_S: Final = 1.0
#: Executions whose ``idle`` came before their reply; a kernel is at one, and ends the others that wait all at once.
_MOST_IDLE: Final = 1000


class ReplyOrder:
    """Holds each ``execute_reply`` until the ``idle`` of its execution has passed.

    Args:
        pass_on: Sends a message to the front ends.
    """

    def __init__(self, pass_on: Callable[[RawMessage], None]) -> None:
        self._pass_on = pass_on
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, tuple[RawMessage, asyncio.TimerHandle]] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()

    def take(self, message: RawMessage) -> None:
        """Pass on a message of the kernel, now or when its turn has come.

        Raises:
            MessageError: its header cannot be read.
        """
        if message.channel == "shell" and message.msg_type == "execute_reply":
            self._take_reply(message)
            return
        self._pass_on(message)
        if message.channel == "iopub" and message.msg_type == "status" and _says_idle(message):
            self._ended(message)

    def _take_reply(self, reply: RawMessage) -> None:
        execution = reply.parent_id
        if execution in self._idle or execution in self._held:
            self._idle.pop(execution, None)
            self._pass_on(reply)
        else:
            timer = self._loop.call_later(PATIENCE_S, self._release, execution)
            self._held[execution] = (reply, timer)

    def _ended(self, idle: RawMessage) -> None:
        execution = idle.parent_id
        if execution in self._held:
            self._release(execution)
        elif idle.parent_fields().get("msg_type") == "execute_request":
            self._idle[execution] = None
            if len(self._idle) > _MOST_IDLE:
                self._idle.popitem(last=False)

    def _release(self, execution: str) -> None:
        reply, timer = self._held.pop(execution)
        timer.cancel()
        self._pass_on(reply)

    def close(self) -> None:
        """Pass on what still waits."""
        for execution in list(self._held):
            self._release(execution)


def _says_idle(status: RawMessage) -> bool:
    return status.content_fields().get("execution_state") == "idle"
