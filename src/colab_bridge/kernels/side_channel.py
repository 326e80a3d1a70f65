"""Takes out of a kernel's messages what is meant for the user's machine, and puts answers back.

The answers are sent past the record: they may hold secrets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colab_bridge.kernels.own_messages import OwnMessages
from colab_bridge.ports.side import SideDesk
from colab_bridge.wire.colab_side import (
    SideRequest,
    download_offer,
    read_side_request,
    side_answer,
    side_failure,
)
from colab_bridge.wire.masking import Masks
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["SideChannel", "SideHost"]

_LOOKED_AT: Final = frozenset({"colab_request", "display_data", "comm_msg", "comm_close"})

_MASKED: Final = frozenset(
    {"stream", "display_data", "update_display_data", "execute_result", "error", "execute_reply"}
)

#: Requests that wait while a journal is read; a kernel has one at a time, and a hostile one gets no more.
_MOST_WAITING = 100

#: Ids of messages of ours whose answers are nobody else's business; one download has a handful under way.
_REMEMBERED_IDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SideHost:
    """What the side channel needs of its hub.

    Attributes:
        send: Sends a message to the kernel without recording it.
        say: Delivers messages in the kernel's place.
        executing: Returns the header of the execution under way, and whether its sender answers questions.
        catching_up: Whether what comes now happened earlier.
    """

    send: Callable[[RawMessage], None]
    say: Callable[[Sequence[RawMessage]], None]
    executing: Callable[[], tuple[dict[str, Any], bool] | None]
    catching_up: Callable[[], bool]


class SideChannel:
    """The side channel of one kernel; implements :class:`~colab_bridge.ports.side.SideLine`.

    Args:
        kernel_id: Our id of the kernel.
        host: Its hub.
        desk: Who answers.
    """

    def __init__(self, kernel_id: str, host: SideHost, desk: SideDesk) -> None:
        self.kernel_id = kernel_id
        self._host = host
        self._desk = desk
        self._own = OwnMessages()
        self._masks = Masks()
        self._late: deque[tuple[SideRequest, str]] = deque(maxlen=_MOST_WAITING)
        self._asking: deque[asyncio.Future[str | None]] = deque()
        self._sent: deque[str] = deque(maxlen=_REMEMBERED_IDS)
        self._open = True

    # -- what passes -----------------------------------------------------------------------------------------

    def takes(self, message: RawMessage) -> bool:
        """Look at a message from the kernel.

        Returns:
            True when it is dealt with and no viewer needs it.
        """
        if message.channel != "iopub" or message.msg_type not in _LOOKED_AT:
            return message.parent_id in self._sent
        if message.msg_type == "colab_request":
            if (request := read_side_request(message)) is not None:
                self._asked(request)
            return True
        if message.msg_type == "display_data":
            offer = download_offer(message)
            # A file that was offered in the past cannot be fetched any more: the kernel's side of it is gone.
            return offer is not None and not self._host.catching_up() and self._desk.offered(self, offer)
        return self._desk.heard(self, message) or message.parent_id in self._sent

    def _asked(self, request: SideRequest) -> None:
        if self._host.catching_up():
            self._late.append((request, self._executing_id()))
        else:
            self._desk.asked(self, request)

    def _executing_id(self) -> str:
        return str(self.cell().get("msg_id", ""))

    def caught_up(self) -> None:
        """Answer what was asked while nobody was there, where the execution that asked still waits."""
        waiting, self._late = self._late, deque(maxlen=_MOST_WAITING)
        now = self._executing_id()
        for request, asked_by in waiting:
            if now and asked_by == now:
                self._desk.asked(self, request)

    def masked(self, message: RawMessage) -> RawMessage:
        """Return a message from the kernel without the secrets that were handed to it."""
        if self._masks and message.msg_type in _MASKED:
            return self._masks.hide(message)
        return message

    def replied(self, message: RawMessage) -> bool:
        """Look at an ``input_reply`` of a front end.

        Returns:
            True when it answers a question of ours, so that the kernel must not get it.
        """
        if not self._asking:
            return False
        try:
            value = message.content_fields().get("value")
        except MessageError:
            value = None
        waiting = self._asking.popleft()
        if not waiting.done():
            waiting.set_result(value if isinstance(value, str) else None)
        return True

    def reset(self) -> None:
        """Forget questions, because the kernel process that asked them is gone; what is hidden stays hidden."""
        self._late.clear()
        while self._asking:
            waiting = self._asking.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def close(self) -> None:
        """Take no more."""
        self._open = False
        self.reset()

    # -- for the desk ----------------------------------------------------------------------------------------

    def answer(self, request: SideRequest, data: Any) -> None:
        """Answer a request; one that the kernel does not wait for is left alone."""
        if request.reply_id is not None:
            self.send(side_answer(request.reply_id, data, session=self._own.session, parent=self.cell()))

    def fail(self, request: SideRequest, text: str) -> None:
        """Have the kernel's call raise an error with one line of text."""
        if request.reply_id is not None:
            self.send(side_failure(request.reply_id, text, session=self._own.session, parent=self.cell()))

    def cell(self) -> dict[str, Any]:
        """Return the header of the execution under way; ``{}`` when there is none."""
        executing = self._host.executing()
        return {} if executing is None else executing[0]

    def say(self, text: str, cell: Mapping[str, Any] | None = None) -> None:
        """Show a text to the user, in the cell that is being executed or in the one that is given."""
        if self._open and (parent := dict(self.cell() if cell is None else cell)):
            content = {"name": "stderr", "text": text if text.endswith("\n") else text + "\n"}
            self._host.say([self._own.make("iopub", "stream", content, parent)])

    async def ask(self, prompt: str) -> str | None:
        """Ask the user for a line of text; None when nobody can be asked."""
        executing = self._host.executing()
        if not self._open or executing is None or not executing[1]:
            return None
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        content = {"prompt": prompt, "password": False}
        self._host.say([self._own.make("stdin", "input_request", content, executing[0])])
        try:
            return await answer
        finally:
            if answer in self._asking:
                self._asking.remove(answer)

    def hide(self, value: str) -> None:
        """Hide a value in everything that the kernel publishes from now on."""
        self._masks.add(value)

    def send(self, message: RawMessage) -> None:
        """Send a message of our own to the kernel."""
        if self._open:
            self._sent.append(message.msg_id)
            self._host.send(message)
