"""What a hub does with the entries of a journal on the runtime; implements ``ports.upstream.JournalEvents``.

Messages from the kernel go the way of all messages. The rest:

* **Requests come back.** The journal holds what went to the kernel too. One that this daemon has recorded already is
  not recorded twice: a small note ``{"type": "sent", "msg_id": ...}`` takes its place and its number, so that after a
  kill the record alone tells which requests arrived, and the others are sent again. One that nobody here knows (of a
  job on the runtime, of another daemon) is recorded as a request.
* **The runtime's word on the kernel** is needed because no server tells of its death in a tunnel. A restart that was
  asked for here causes such words as well, and those are expected.
* **Catching up.** After a restart of the daemon a kernel counts as busy until the journal is read up to the end that
  it had then: what was executed meanwhile is not over before its output is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio

from colab_bridge.kernels.sending import RequestSender
from colab_bridge.ports.clock import Clock
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["JournalHost", "JournalIntake"]

log = logging.getLogger(__name__)

#: Seconds after a restart on purpose during which the runtime's word on the old process may still come.
RESTART_GRACE_S = 30.0
_MAX_TEXT = 500
_JOB_MEMBERS = ("job", "event", "index", "msg_id")


class JournalHost(Protocol):
    """What the intake needs of its hub.

    Attributes:
        id: Our id of the kernel, for the log.
    """

    id: str

    def pass_down(self, deliver: Callable[[], None], message: RawMessage | None = None) -> None:
        """Deliver now, or when the barrier lets it."""
        ...

    def receive(self, message: RawMessage, origin: int) -> None:
        """Take one message from the kernel."""
        ...

    def request_of_others(self, message: RawMessage, origin: int) -> None:
        """Take a request that nobody here has sent."""
        ...

    def note(self, value: Mapping[str, Any], origin: int) -> int:
        """Write an entry that is no message into the record."""
        ...

    def kernel_died(self, reason: str, origin: int) -> None:
        """Count the kernel as dead."""
        ...

    def caught_up(self) -> None:
        """Look anew whether the kernel is busy."""
        ...

    def show_early(self, message: RawMessage) -> None:
        """Give a message to the viewers that will come again."""
        ...

    def fall_back(self, reason: str, unsent: Sequence[RawMessage]) -> None:
        """Go on with a link that is not reliable."""
        ...


class JournalIntake:
    """Sorts the entries of one kernel's journal.

    Args:
        host: The hub.
        sender: Knows the requests that were sent here.
        clock: Time source.
        recorded: Called with each entry's number once it has been dealt with.
        cursor: Number of the last entry that is in the record.
    """

    def __init__(
        self, host: JournalHost, sender: RequestSender, clock: Clock, recorded: Callable[[int], None], cursor: int
    ) -> None:
        self._host = host
        self._sender = sender
        self._clock = clock
        self._recorded = recorded
        self._cursor = cursor
        self._catching_up = False
        self._reached = asyncio.Event()
        self._reached.set()
        self._end: int | None = None
        self._restart_until = float("-inf")

    # -- what the hub says -----------------------------------------------------------------------------------

    @property
    def catching_up(self) -> bool:
        """Whether the journal holds entries from before the link came up that are not in the record yet."""
        return self._catching_up

    def expect_backlog(self) -> None:
        """Count the kernel as busy until the end of the journal is known and reached."""
        self._catching_up = True
        self._reached.clear()

    async def wait_caught_up(self, timeout_s: float) -> None:
        """Wait until nothing from before the link came up is missing, at most so long."""
        with anyio.move_on_after(timeout_s):
            await self._reached.wait()

    def expect_restart(self) -> None:
        """Take the next words about a death or a restart as what was asked for here."""
        self._restart_until = self._clock.monotonic() + RESTART_GRACE_S

    # -- the port --------------------------------------------------------------------------------------------

    def message(self, message: RawMessage, origin: int) -> None:
        """Take one message from the kernel."""
        self._host.pass_down(lambda: self._take(message, origin), message)

    def _take(self, message: RawMessage, origin: int) -> None:
        self._host.receive(message, origin)
        self._done(origin)

    def request(self, message: RawMessage, origin: int) -> None:
        """Take one message that went to the kernel."""
        self._host.pass_down(lambda: self._take_request(message, origin))

    def _take_request(self, message: RawMessage, origin: int) -> None:
        try:
            msg_id = message.msg_id
            message.parent_fields()
        except MessageError as error:
            log.warning("dropped an unreadable request", extra={"kernel": self._host.id, "reason": str(error)})
        else:
            self._request_arrived(msg_id, message, origin)
        self._done(origin)

    def _request_arrived(self, msg_id: str, message: RawMessage, origin: int) -> None:
        if self._sender.owns(msg_id):
            return
        if self._sender.knows(msg_id):
            self._host.note({"type": "sent", "msg_id": msg_id}, origin)
            self._sender.fence.arrived(msg_id)
            return
        log.info("request of somebody else", extra={"kernel": self._host.id, "type": message.msg_type})
        self._host.request_of_others(message, origin)

    def note(self, note: Mapping[str, Any], origin: int) -> None:
        """Take a word of the journal itself."""
        self._host.pass_down(lambda: self._take_note(note, origin))

    def _take_note(self, note: Mapping[str, Any], origin: int) -> None:
        kind, text = note.get("type"), str(note.get("text", ""))[:_MAX_TEXT]
        if kind == "lost":
            self._host.note({"type": "lost", "text": text}, origin)
        elif kind in ("died", "restarted"):
            self._process_changed(str(kind), text, origin)
        elif kind == "job":
            self._host.note(_job_note(note), origin)
        else:
            log.warning("unknown note of the journal", extra={"kind": str(kind)[:40]})
        self._done(origin)

    def _process_changed(self, kind: str, text: str, origin: int) -> None:
        if self._clock.monotonic() < self._restart_until:
            if kind == "restarted":
                self._restart_until = float("-inf")
            return
        self._host.kernel_died(text or ("the kernel died" if kind == "died" else "the kernel was restarted"), origin)

    def end_known(self, last: int) -> None:
        """Learn the number of the newest entry."""
        self._end = last
        self._look()

    def _look(self) -> None:
        if self._catching_up and self._end is not None and self._cursor >= self._end:
            self._catch_up()
            self._host.caught_up()

    def _catch_up(self) -> None:
        self._catching_up = False
        self._reached.set()

    def early(self, message: RawMessage) -> None:
        """Show a message that overtakes the journal to whoever waits for it."""
        self._host.show_early(message)

    def fallback(self, reason: str, unsent: Sequence[RawMessage]) -> None:
        """Go on with a link that is not reliable."""
        self._catch_up()
        self._host.fall_back(reason, unsent)

    def _done(self, origin: int) -> None:
        self._cursor = origin
        self._recorded(origin)
        self._look()


def _job_note(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a job's note that are known, each no longer than it may be."""
    kept: dict[str, Any] = {"type": "job"}
    for name in _JOB_MEMBERS:
        value = note.get(name)
        if isinstance(value, str):
            kept[name] = value[:_MAX_TEXT]
        elif isinstance(value, int):
            kept[name] = value
    return kept
