"""Control pings: ``kernel_info_request`` on the control channel while a kernel is busy. Pure.

They serve two ends:

* Each makes the kernel publish ``status: idle``, and that resets the output counters of a server that limits output.
* Each is a sample of iopub: the server never drops ``status``, the kernel publishes in order, so when the ``idle`` of
  one ping arrives and an earlier one's did not, something between kernel and server dropped messages. ZMQ does so
  without a word when a thousand messages wait, for example while the server is short of processor time.

Only what the kernel's control thread publishes is compared: output of the thread that executes waits in a queue of
its own, and a ping may well overtake it. An end of an execution that was dropped is found by :mod:`.idle_watch`.

Source: jupyter_server ``_limit_rate``; ZMQ_SNDHWM of a PUB socket; experiments.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from colab_bridge.wire.message import RawMessage

__all__ = ["ControlPings", "is_ping_echo"]

#: ``msg_id`` prefix of all our pings. It is the same for all our processes: answers to those of an earlier daemon,
#: replayed by the server, are recognised as well.
PING_PREFIX = "colab-bridge-ping-"
#: Unanswered pings after which we wait: the kernel's control thread is blocked, and more would only pile up.
MAX_UNANSWERED = 10

_PREFIX_BYTES = PING_PREFIX.encode()


def is_ping_echo(message: RawMessage) -> bool:
    """Whether a message answers a control ping (reply, or busy and idle on iopub)."""
    # The search in the bytes spares nearly all messages a second look.
    return _PREFIX_BYTES in message.parent and message.parent_id.startswith(PING_PREFIX)


@dataclass(slots=True)
class _Ping:
    seen: set[str] = field(default_factory=set)  # execution states published for it
    replied: bool = False


class ControlPings:
    """Makes pings and judges their echoes.

    Args:
        session_id: Goes into the pings' ids and headers.
    """

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._numbers = itertools.count(1)
        self._pings: dict[str, _Ping] = {}

    def reconnected(self) -> None:
        """Forget the pings of an earlier connection, whose echoes may rightly be missing."""
        self._pings.clear()

    @property
    def saturated(self) -> bool:
        """Whether so many pings are unanswered that no more should be sent."""
        return sum(not ping.replied for ping in self._pings.values()) >= MAX_UNANSWERED

    def make(self) -> RawMessage:
        """Return the next ping, to be sent now."""
        msg_id = f"{PING_PREFIX}{self._session_id}-{next(self._numbers)}"
        self._pings[msg_id] = _Ping()
        while len(self._pings) > 2 * MAX_UNANSWERED:
            del self._pings[next(iter(self._pings))]
        return RawMessage.build("control", "kernel_info_request", {}, msg_id=msg_id, session=self._session_id)

    def echo(self, message: RawMessage) -> str:
        """Take note of an echo.

        Returns:
            Why output must have been lost, for people; empty when nothing says so.
        """
        msg_id = message.parent_id
        ping = self._pings.get(msg_id)
        if ping is None:
            return ""
        if message.channel != "iopub":
            ping.replied = True
            return ""
        ping.seen.add(_state(message))
        if "idle" not in ping.seen:
            return ""
        missing = "busy" not in ping.seen or self._drop_older(msg_id)
        del self._pings[msg_id]
        return "messages between the kernel and its server were dropped" if missing else ""

    def _drop_older(self, msg_id: str) -> bool:
        """Forget pings sent before this one; true when one of them was taken up by the kernel, but left no trace."""
        older = list(itertools.takewhile(lambda other: other != msg_id, self._pings))
        for other in older:
            del self._pings[other]
        return bool(older)


def _state(message: RawMessage) -> str:
    return str(message.content_fields().get("execution_state", "")) if message.msg_type == "status" else ""
