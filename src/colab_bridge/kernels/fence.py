"""Which requests never arrived, found out after a reconnect. Pure.

A request that was written to a connection which then died may have arrived or not. Sending all of them again would run
code twice, sending none would leave a front end waiting for ever. So after a reconnect a *fence* goes up the shell
channel, and since a kernel takes shell requests in order, its reply proves that everything sent before is either
answered, begun, or was never there.

What counts as proof that a request arrived: its reply, any message on iopub that names it as its parent (the server's
output limit never drops ``status``), or either of the two for a request written later to the same connection: TCP loses
only the end of what was written. What a black hole adds: kernel and server may have received a request whose every
answer was swallowed. Then only the kernel's own ``execution_count`` tells. A fence made by :func:`probe` brings it, a
``kernel_info_request`` does not and leaves the decision to the other proofs.

Other channels:

* **stdin**: an ``input_reply`` has no answer, and the fence does not come back while the kernel waits for it. It is
  sent again at once by :meth:`RequestFence.start`, unless the kernel has said something for the same execution since.
  A kernel that got it twice throws the second away before it asks again (ipykernel ``_input_request``).
* **control**: never sent again. An interrupt that arrives late stops the wrong thing, and so does a debugger's step;
  who pressed Stop sees that nothing happened and presses again.

Source: Jupyter messaging protocol 5.4 ("Execution counter", "Kernel status"); jupyter_server's handling of a lost
WebSocket.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from colab_bridge.wire.message import RawMessage

__all__ = ["RequestFence", "probe"]

#: Requests that are remembered. Some kernels never answer some requests; without a limit those would pile up.
MAX_REMEMBERED = 10_000

_COUNTED_TYPES = ("execute_reply", "execute_input", "execute_result")


@dataclass(slots=True)
class _Request:
    message: RawMessage
    link: int  # number of the connection that it was written to
    counts: bool  # whether running it raises the execution counter
    arrived: bool = False
    counted: bool = False  # whether the last counter that we saw includes it


def probe(msg_id: str, session: str) -> RawMessage:
    """Return a fence: a silent execution of nothing, whose reply carries the execution counter without raising it."""
    content = {
        "code": "",
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    return RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session=session)


class RequestFence:
    """Follows requests on shell and stdin, and names those to send again after a reconnect."""

    def __init__(self) -> None:
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._inputs: dict[str, RawMessage] = {}
        self._link = 0
        self._link_known = False
        self._counter = 0  # right for a kernel that was made for us; else too low, and nothing is sent again
        self._fence: str | None = None
        self._before: set[str] = set()
        self._unanswered: list[dict[str, Any]] = []

    def sent(self, message: RawMessage) -> None:
        """Take note of a message that was handed to the link; what needs no care is ignored."""
        if message.channel == "stdin":
            self._inputs[message.parent_id] = message
        elif message.channel == "shell":
            self._requests[message.msg_id] = _Request(message, self._link, _raises_counter(message))
        if len(self._requests) > MAX_REMEMBERED:
            self._requests.popitem(last=False)

    def received(self, message: RawMessage) -> list[RawMessage]:
        """Take note of a message from the kernel.

        Returns:
            Requests to send again now, in order; they stay tracked. Empty but for the reply to the fence.
        """
        parent_id = message.parent_id
        if message.channel == "shell" and parent_id == self._fence:
            return self._decide(_counter_of(message))
        if not parent_id:
            return []
        self._inputs.pop(parent_id, None)
        if (request := self._requests.get(parent_id)) is None:
            return []
        self._mark_arrived(parent_id, request)
        if request.counts and message.msg_type in _COUNTED_TYPES and (counter := _counter_of(message)) is not None:
            self._mark_counted(parent_id, counter)
        if message.channel == "shell":
            del self._requests[parent_id]
        return []

    def arrived(self, msg_id: str) -> None:
        """Take the word of a reliable link that a request has reached the kernel's machine: it is not sent again."""
        if (request := self._requests.get(msg_id)) is not None:
            request.arrived = True

    def pending(self) -> list[RawMessage]:
        """Return what has been sent and not been answered, shell requests first, in order."""
        return [request.message for request in self._requests.values()] + list(self._inputs.values())

    def link_lost(self) -> None:
        """Say that the connection has ended; what is sent from now on goes over the next one.

        Without this call a proof for one request says nothing about those before it.
        """
        self._link += 1
        self._link_known = True

    def start(self, fence_msg_id: str) -> list[RawMessage]:
        """Begin after a reconnect; a fence that is under way is given up.

        Args:
            fence_msg_id: Id of the request that is sent up the shell channel now.

        Returns:
            Answers to ``input()`` to send again at once.
        """
        self._fence = fence_msg_id
        self._before = set(self._requests)
        self._unanswered = []
        return list(self._inputs.values())

    def unanswered(self) -> list[dict[str, Any]]:
        """Return once, after the fence's reply, the headers of executions that ran but whose reply was lost."""
        headers, self._unanswered = self._unanswered, []
        return headers

    @property
    def active(self) -> bool:
        """Whether a fence is under way. Requests held back until it is done keep their order, and can be told apart."""
        return self._fence is not None

    def clear(self) -> None:
        """Forget everything, because the kernel that it was sent to is gone."""
        self._requests.clear()
        self._inputs.clear()
        self._before.clear()
        self._unanswered.clear()
        self._fence = None
        self._counter = 0

    # -- proofs ----------------------------------------------------------------------------------------------

    def _mark_arrived(self, msg_id: str, proven: _Request) -> None:
        if not self._link_known:
            proven.arrived = True
            return
        for other_id, request in self._requests.items():
            if request.link == proven.link:
                request.arrived = True
            if other_id == msg_id:
                return

    def _mark_counted(self, msg_id: str, counter: int) -> None:
        self._counter = counter
        for other_id, request in self._requests.items():
            request.counted = True
            if other_id == msg_id:
                return

    # -- the decision ----------------------------------------------------------------------------------------

    def _decide(self, counter: int | None) -> list[RawMessage]:
        """Split what was sent before the fence into ran without a reply, and never arrived."""
        before = [(msg_id, self._requests[msg_id]) for msg_id in self._requests if msg_id in self._before]
        self._use_counter([request for _id, request in before], counter)
        self._fence = None
        self._before = set()
        again: list[RawMessage] = []
        for msg_id, request in before:
            if not request.arrived:
                self._requests[msg_id] = _Request(request.message, self._link, request.counts)
                self._requests.move_to_end(msg_id)
                again.append(request.message)
                continue
            del self._requests[msg_id]
            if request.message.msg_type == "execute_request":
                self._unanswered.append(request.message.header_fields())
        return again

    def _use_counter(self, before: list[_Request], counter: int | None) -> None:
        """Mark as arrived what the kernel has counted although we saw nothing of it.

        The kernel takes the requests of one connection in order, so the surplus belongs to the first ones. A surplus
        that cannot be assigned (larger than what we sent: somebody else's code; or spread over requests of several
        connections) counts for all: then nothing is sent again, because running twice is worse than saying so.
        """
        if counter is None:
            return
        surplus = counter - self._counter - sum(r.arrived and r.counts and not r.counted for r in before)
        self._counter = counter
        unproven = [request for request in before if not request.arrived]
        counting = [request for request in unproven if request.counts]
        if len({request.link for request in counting}) > 1 and surplus > 0:
            surplus = len(counting)
        for request in unproven:
            if surplus <= 0 or not any(other.counts and not other.arrived for other in unproven):
                break
            request.arrived = True
            surplus -= request.counts
        for request in before:
            request.counted = True


def _raises_counter(message: RawMessage) -> bool:
    if message.msg_type != "execute_request":
        return False
    content = message.content_fields()
    code = content.get("code")
    blank = not isinstance(code, str) or not code.strip()  # IPython does not count those
    return not blank and not content.get("silent", False) and bool(content.get("store_history", True))


def _counter_of(message: RawMessage) -> int | None:
    if message.msg_type not in _COUNTED_TYPES:
        return None
    counter = message.content_fields().get("execution_count")
    return counter if isinstance(counter, int) and not isinstance(counter, bool) and counter >= 0 else None
