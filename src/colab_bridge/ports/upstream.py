"""How kernel messages reach the daemon and leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from colab_bridge.wire.message import RawMessage

__all__ = ["JournalEvents", "LinkState", "Upstream", "UpstreamEvents"]


class LinkState(StrEnum):
    """The state of the link to one remote kernel."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    GONE = "gone"  # the server says that the kernel does not exist: final


class JournalEvents(Protocol):
    """What an upstream calls that reads a journal on the runtime, always from the event loop.

    ``origin`` is the number of an entry in that journal. The receiver calls :meth:`Upstream.recorded` once for each of
    them, when the entry is in the record or not wanted, which may be later than the call.
    """

    def message(self, message: RawMessage, origin: int) -> None:
        """Take one message from the kernel."""
        ...

    def request(self, message: RawMessage, origin: int) -> None:
        """Take one message that went to the kernel: of this daemon, of another one, or of a job on the runtime."""
        ...

    def note(self, note: Mapping[str, Any], origin: int) -> None:
        """Take a word of the journal itself: ``lost``, ``died``, ``restarted`` or ``job``."""
        ...

    def end_known(self, last: int) -> None:
        """Learn the number of the newest entry at this moment: what is older than that is still to be caught up."""
        ...

    def early(self, message: RawMessage) -> None:
        """Learn of a message from the kernel that overtakes much output; it comes again in its place, with a number.

        Only for whoever waits for it right now: nothing is recorded.
        """
        ...

    def fallback(self, reason: str, unsent: Sequence[RawMessage]) -> None:
        """Go on with a link that is not reliable, from now on.

        Args:
            reason: Why, one line for people.
            unsent: What was handed to ``send`` and certainly did not reach the kernel, in order; it is not kept.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamEvents:
    """What an upstream calls, always from the event loop.

    Attributes:
        message: One message from the kernel, in the order of arrival; must not block.
        state: The link changed; the text says why, for people. ``CONNECTED`` is reported once per connection made.
        gap: Output between server and daemon may have been lost; the text says why. Called before the messages that
            follow the gap.
        journal: Called instead of ``message`` by an upstream that reads a journal.
    """

    message: Callable[[RawMessage], None]
    state: Callable[[LinkState, str], None]
    gap: Callable[[str], None]
    journal: JournalEvents | None = None


class Upstream(Protocol):
    """A connection to one remote kernel that repairs itself until it is closed.

    The plain WebSocket implements it, and the agent's tunnel. ``run`` owns all tasks of the connection.

    Attributes:
        reliable: True when nothing that was handed to :meth:`send` or comes from the kernel can be lost by a
            reconnect. Where it is False, the hub asks after each reconnect which requests arrived, and sends the
            others again. It may turn from True to False, never back.
    """

    @property
    def reliable(self) -> bool:  # noqa: D102  # see the class
        ...

    async def run(self, events: UpstreamEvents) -> None:
        """Keep the link up until cancelled or until the kernel is gone."""
        ...

    def send(self, message: RawMessage) -> None:
        """Queue a message for the kernel; it goes out as soon as the link is up, in order.

        Raises:
            UserError: the message is larger than the transport can carry.
        """
        ...

    def reconnect(self) -> None:
        """Make the connection anew, because the kernel was restarted on purpose and is another process now."""
        ...

    def set_busy(self, busy: bool) -> None:
        """Tell the link whether the kernel executes something, which decides about its pings."""
        ...

    def recorded(self, origin: int) -> None:
        """Learn that the journal's entry with this number, and all before it, are done with."""
        ...
