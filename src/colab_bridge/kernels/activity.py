"""What a kernel is doing, read off its messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_bridge.model.records import KernelState
from colab_bridge.ports.upstream import LinkState
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["KernelActivity", "state_behind"]


@dataclass(slots=True)
class _Execution:
    header: dict[str, Any]
    may_ask: bool = False
    replied: bool = False
    idle: bool = False
    error_seen: bool = False
    reply_error: dict[str, Any] | None = None


class KernelActivity:
    """Follows executions from request to reply and idle.

    An execution has ended when both its reply (shell) and its idle status (iopub) were seen, because the two channels
    are not ordered against each other.

    Source: Jupyter messaging protocol 5.4, "Request-Reply" and "Kernel status".
    """

    def __init__(self) -> None:
        self._executions: dict[str, _Execution] = {}
        self._unknown_busy = False
        self._death: str | None = None

    @property
    def busy(self) -> bool:
        """Whether at least one execution has not ended."""
        return bool(self._executions) or self._unknown_busy

    def sent(self, message: RawMessage) -> None:
        """Take note of a request on its way to the kernel."""
        if message.msg_type == "execute_request":
            may_ask = _content(message).get("allow_stdin") is not False
            self._executions.setdefault(message.msg_id, _Execution(message.header_fields(), may_ask))

    def received(self, message: RawMessage) -> None:
        """Take note of a message from the kernel."""
        msg_type = message.msg_type
        if msg_type == "status" and message.channel == "iopub":
            self._status(message)
            return
        if msg_type not in ("execute_reply", "error"):
            return
        execution = self._executions.get(message.parent_id)
        if execution is None:
            return
        if msg_type == "error":
            execution.error_seen = True
            return
        execution.replied = True
        execution.reply_error = _reply_error(message)
        self._settle(message.parent_id, execution)

    def _status(self, message: RawMessage) -> None:
        state = _content(message).get("execution_state")
        if state in ("restarting", "dead"):
            self._death = (
                "the kernel died and the server starts it again" if state == "restarting" else "the kernel died"
            )
        elif state == "idle":
            self._unknown_busy = False
            if execution := self._executions.get(message.parent_id):
                execution.idle = True
                self._settle(message.parent_id, execution)

    def _settle(self, msg_id: str, execution: _Execution) -> None:
        if execution.replied and execution.idle:
            del self._executions[msg_id]

    def missing_error(self, message: RawMessage) -> dict[str, Any] | None:
        """Return the content of the ``error`` message that should have come before this message and did not.

        Servers drop ``error`` messages when a cell exceeds their output limit; the reply still carries the
        traceback. The last chance to put it back is before the second of reply and idle, whichever that is.

        Args:
            message: A message that was received and not yet passed to :meth:`received`.
        """
        execution = self._executions.get(message.parent_id)
        if execution is None or execution.error_seen:
            return None
        if message.msg_type == "status" and _content(message).get("execution_state") == "idle":
            return execution.reply_error
        if message.msg_type == "execute_reply" and execution.idle:
            return _reply_error(message)
        return None

    def under_way(self) -> dict[str, dict[str, Any]]:
        """Return the headers of executions, by id, that have not ended."""
        return {msg_id: execution.header for msg_id, execution in self._executions.items()}

    def executing(self) -> tuple[dict[str, Any], bool] | None:
        """Return the header of the execution that the kernel is at, and whether its sender answers questions."""
        for execution in self._executions.values():
            if not execution.replied:
                return execution.header, execution.may_ask
        return None

    def half_ended(self) -> dict[str, dict[str, Any]]:
        """Return the headers of executions, by id, that were answered and have not been reported idle."""
        return {
            msg_id: execution.header
            for msg_id, execution in self._executions.items()
            if execution.replied and not execution.idle
        }

    def server_reported(self, *, busy: bool) -> None:
        """Take the server's own word on the kernel, after a take-over.

        An execution whose end was not seen stays under way, whatever the server says: somebody waits for that end.
        """
        self._unknown_busy = busy and not self._executions

    def take_death(self) -> str | None:
        """Return once why the kernel died, None while it lives."""
        death, self._death = self._death, None
        return death

    def clear(self) -> None:
        """Forget everything under way, because the kernel that did it is gone."""
        self._executions.clear()
        self._unknown_busy = False


def state_behind(link: LinkState, busy: bool) -> KernelState:
    """Return the state of a kernel that is not known to be dead, from its link and from what it is doing."""
    if link is LinkState.RECONNECTING:
        return KernelState.RECONNECTING
    if link is LinkState.CONNECTING:
        return KernelState.STARTING
    return KernelState.BUSY if busy else KernelState.IDLE


def _content(message: RawMessage) -> dict[str, Any]:
    try:
        return message.content_fields()
    except MessageError:
        return {}  # a reply ends its execution, whether it can be read or not


def _reply_error(message: RawMessage) -> dict[str, Any] | None:
    content = _content(message)
    if content.get("status") != "error":
        return None
    traceback = content.get("traceback")
    return {
        "ename": str(content.get("ename", "")),
        "evalue": str(content.get("evalue", "")),
        "traceback": [str(line) for line in traceback] if isinstance(traceback, list) else [],
    }
