"""Sends a kernel's requests, each once, and after a reconnect finds out what became of them.

Over a link that may lose what is written to it, each reconnect is followed by a *fence*; what its reply proves is
decided in :mod:`.fence`. Here is what is done about it: requests wait while a fence is under way, those that never
arrived are sent again, and executions whose reply was thrown away get one from us. Over a reliable link nothing of this
happens, but the fence listens: such a link can fall back to one that is not.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from colab_bridge._util.ids import new_id
from colab_bridge.errors import UserError
from colab_bridge.kernels.fence import RequestFence, probe
from colab_bridge.kernels.own_messages import OwnMessages
from colab_bridge.ports.upstream import Upstream
from colab_bridge.wire.message import RawMessage

__all__ = ["RequestSender"]

#: Ids of requests that are remembered to drop repeats; front ends have a handful in flight, so this is ample.
REMEMBERED_REQUESTS = 10_000
#: Ids of our own silent executions whose answers are nobody else's business; one or two are under way at a time.
_REMEMBERED_PROBES = 64


class RequestSender:
    """Everything that goes to one kernel passes here.

    Args:
        upstream: The kernel's link.
        own: Makes messages in the kernel's place.
        say: Delivers such messages.
        declare_loss: Told why output may be missing from here on.

    Attributes:
        fence: What was sent and has not been answered.
    """

    def __init__(
        self,
        upstream: Upstream,
        own: OwnMessages,
        say: Callable[[Sequence[RawMessage]], None],
        declare_loss: Callable[[str], None],
    ) -> None:
        self.fence = RequestFence()
        self._upstream = upstream
        self._own = own
        self._say = say
        self._declare_loss = declare_loss
        self._known: OrderedDict[str, None] = OrderedDict()
        self._probes: deque[str] = deque(maxlen=_REMEMBERED_PROBES)
        self._held: deque[RawMessage] = deque()

    # -- each once -------------------------------------------------------------------------------------------

    def knows(self, msg_id: str) -> bool:
        """Whether a request was sent already, by this daemon or by the one before it."""
        return msg_id in self._known

    def remember(self, msg_id: str) -> None:
        """Count a request as known from now on."""
        self._known[msg_id] = None
        if len(self._known) > REMEMBERED_REQUESTS:
            self._known.popitem(last=False)

    def owns(self, msg_id: str) -> bool:
        """Whether a request is one of our silent executions."""
        return msg_id in self._probes

    # -- upwards ---------------------------------------------------------------------------------------------

    def transmit(self, message: RawMessage) -> None:
        """Send a request, or keep it until the fence that is under way has come back."""
        if self.fence.active and message.channel == "shell":
            # Sent behind the fence, a request that is lost could not be told from one that never arrived.
            self._held.append(message)
        else:
            self.send(message)

    def send(self, message: RawMessage) -> None:
        """Send a request at once; one that is too large is refused."""
        try:
            self._upstream.send(message)
        except UserError as error:
            self._say(self._own.refusal(message, "MessageTooLarge", error.message, error.hint))
        else:
            self.fence.sent(message)

    def send_or_raise(self, message: RawMessage) -> None:
        """Send a message at once.

        Raises:
            UserError: it is larger than the link can carry.
        """
        self._upstream.send(message)
        self.fence.sent(message)

    def ask(self) -> str:
        """Send a silent execution of nothing, and return its id; nothing is done if it is lost."""
        return self._send_probe(self._probe())

    def _probe(self) -> RawMessage:
        return probe(new_id("hub"), self._own.session)

    def _send_probe(self, request: RawMessage) -> str:
        self._probes.append(request.msg_id)
        self._upstream.send(request)
        return request.msg_id

    # -- the link --------------------------------------------------------------------------------------------

    def link_lost(self) -> None:
        """Learn that the connection has ended; what is sent from now on goes over the next one."""
        self.fence.link_lost()

    def link_made(self) -> str | None:
        """Send a fence over a new connection where something may have been lost with the one before.

        Returns:
            Its id, None when none is needed.
        """
        # A fence whose reply went down with the connection would hold back requests for ever.
        if self._upstream.reliable or not (self.fence.pending() or self.fence.active):
            return None
        request = self._probe()
        for answer in self.fence.start(request.msg_id):
            self._upstream.send(answer)
        return self._send_probe(request)

    def received(self, message: RawMessage) -> bool:
        """Take note of a message from the kernel; the reply to a fence sets everything in motion that waited for it.

        Returns:
            True when it belongs to one of our own requests, so that no viewer needs it.

        Raises:
            MessageError: it cannot be read.
        """
        for request in self.fence.received(message):
            self._upstream.send(request)
        if message.parent_id not in self._probes:
            return False
        if message.channel == "shell":
            self._close_unanswered()
            while self._held and not self.fence.active:
                self.send(self._held.popleft())
        return True

    def _close_unanswered(self) -> None:
        """Close executions whose reply the server threw away: a later request on the same channel was answered."""
        for header in self.fence.unanswered():
            self._declare_loss("the reply of an execution was lost while the connection was down")
            # Its outputs and its idle may still be under way, because iopub is a channel of its own. The idle watch
            # makes up for an idle that does not come.
            self._say([self._own.lost_reply(header)])

    def forget(self) -> None:
        """Give up everything under way, because the kernel process that it was sent to is gone."""
        self.fence.clear()
        self._held.clear()
