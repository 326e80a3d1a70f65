"""The one place where a kernel's messages pass.

A :class:`HubKernel` owns the only connection to one remote kernel. Everything that passes is numbered and written to
the kernel's record before anybody sees it, and every viewer reads the record from a cursor of its own: a slow viewer
therefore costs nothing, a viewer that comes back misses nothing, and memory does not grow with output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from colab_bridge._util.ids import new_id
from colab_bridge.errors import UserError
from colab_bridge.kernels.activity import KernelActivity
from colab_bridge.kernels.fence import RequestFence, probe
from colab_bridge.kernels.idle_watch import IdleWatch
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord
from colab_bridge.model.records import KernelState
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.upstream import LinkState, Upstream, UpstreamEvents
from colab_bridge.wire.jupyter_ws import decode_v1, v1_chunks
from colab_bridge.wire.message import MessageError, RawMessage, dump_json

__all__ = ["HubKernel", "note_of"]

log = logging.getLogger(__name__)

#: Ids of requests that are remembered to drop repeats; front ends have a handful in flight, so this is ample.
REMEMBERED_REQUESTS = 10_000
#: How far back a new daemon looks for work that was under way where no run says where it began.
ADOPTED_ENTRIES = 5_000


class HubKernel:
    """One remote kernel: upstream, record, activity, fence.

    Args:
        kernel_id: Our id of the kernel.
        record: Its record, open.
        upstream: Its link, not yet running.
        clock: Time source.
        on_state: Called after each change of :attr:`state`, from the event loop.
    """

    def __init__(
        self,
        kernel_id: str,
        record: MessageRecord,
        upstream: Upstream,
        clock: Clock,
        on_state: Callable[[HubKernel], None],
    ) -> None:
        self.id = kernel_id
        self.record = record
        self.link = LinkState.CONNECTING
        self._upstream = upstream
        self._clock = clock
        self._on_state = on_state
        self._activity = KernelActivity()
        self._fence = RequestFence()
        self._own_session = new_id("hub")
        self._own_requests: deque[str] = deque(maxlen=64)
        self._held: deque[RawMessage] = deque()
        self._idle_watch = IdleWatch(self._activity, self._ask_for_idle, self._idle_lost)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._state = KernelState.STARTING
        self._died = ""
        self._heard = False
        self._closed = False
        self._expect_death = False

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the link up until cancelled or until the kernel is gone."""
        events = UpstreamEvents(message=self._on_message, state=self._on_link, gap=self.declare_loss)
        try:
            await self._upstream.run(events)
        finally:
            self._set_state(KernelState.DEAD if self.link is LinkState.GONE else self._state)

    def close(self) -> None:
        """Close the record; readers see its end. Nothing is sent to the kernel."""
        self._closed = True
        self._idle_watch.stop()
        self.record.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def state(self) -> KernelState:
        """What the kernel is doing, as far as its messages tell."""
        return self._state

    @property
    def busy(self) -> bool:
        """Whether at least one execution has not ended."""
        return self._activity.busy

    @property
    def died(self) -> str:
        """Empty, or why the kernel is dead."""
        return self._died

    def adopt(self, *, after: int | None, server_says_busy: bool | None) -> None:
        """Take over from a daemon that was killed: read what was under way from the record.

        Args:
            after: Record number from which unfinished work is looked for; None for the last few thousand entries.
            server_says_busy: What the Jupyter server reports as the kernel's execution state; None when it did not
                answer.
        """
        if after is None:
            after = self.record.next_seq - 1 - ADOPTED_ENTRIES
        cursor = max(after, self.record.first_seq - 1)
        while entries := self.record.read(cursor):
            for entry in entries:
                cursor = entry.seq
                self._adopt_entry(entry)
        self._fence.link_lost()
        if server_says_busy is not None:
            self._activity.server_reported(busy=server_says_busy)
        self._refresh_state()

    def _adopt_entry(self, entry: Entry) -> None:
        if entry.kind is EntryKind.NOTE:
            if note_of(entry).get("type") in ("died", "restarted"):
                # What was under way has ended there; without this it would be sent again, to another kernel process.
                self._activity.clear()
                self._fence.clear()
            return
        try:
            message = decode_v1(entry.body)
            if entry.kind is EntryKind.UP:
                self._remember(message.msg_id)
                self._activity.sent(message)
                self._fence.sent(message)
            else:
                self._heard = True
                self._activity.received(message)
                self._fence.received(message)
        except MessageError:
            log.warning("unreadable record entry", extra={"kernel": self.id, "seq": entry.seq})

    # -- upwards ---------------------------------------------------------------------------------------------

    def submit(self, message: RawMessage) -> None:
        """Send a request to the kernel, once: a ``msg_id`` that was sent before is dropped.

        Args:
            message: From a front end or from a run.

        Raises:
            MessageError: it cannot be read; nothing was sent or recorded then.
        """
        if message.msg_id in self._known:
            return
        if message.msg_type == "execute_request":
            message.content_fields()  # a kernel drops what it cannot read, and nobody would answer
        message.parent_fields()
        self._remember(message.msg_id)
        self._append(EntryKind.UP, v1_chunks(message))
        self._activity.sent(message)
        if self._fence.active and message.channel == "shell":
            # Sent behind the fence, a request that is lost could not be told from one that never arrived.
            self._held.append(message)
        else:
            self._send(message)
        self._upstream.set_busy(self._activity.busy)
        self._refresh_state()

    def _send(self, message: RawMessage) -> None:
        try:
            self._upstream.send(message)
        except UserError as error:
            self._refuse(message, error)
        else:
            self._fence.sent(message)

    def _send_held(self) -> None:
        while self._held and not self._fence.active:
            self._send(self._held.popleft())

    def assume_sent(self, message: RawMessage) -> None:
        """Count a request as sent although the record does not hold it any more.

        A cell that prints more than a record keeps pushes its own request out; sending it again would run it twice.
        """
        self._remember(message.msg_id)
        self._activity.sent(message)
        self._refresh_state()

    def knows(self, msg_id: str) -> bool:
        """Whether a request was sent already, by this daemon or by the one before it."""
        return msg_id in self._known

    def note(self, value: dict[str, Any]) -> int:
        """Write an entry of our own into the record and return its number."""
        return self._append(EntryKind.NOTE, dump_json(value))

    def declare_loss(self, reason: str) -> None:
        """Say in the record that output may be missing from here on."""
        log.warning("output may be lost", extra={"kernel": self.id, "reason": reason})
        self.note({"type": "lost", "text": reason})

    def _remember(self, msg_id: str) -> None:
        self._known[msg_id] = None
        if len(self._known) > REMEMBERED_REQUESTS:
            self._known.popitem(last=False)

    def _refuse(self, message: RawMessage, error: UserError) -> None:
        """Answer a request that cannot be carried, as a kernel would answer one that fails."""
        content = {
            "status": "error",
            "ename": "MessageTooLarge",
            "evalue": error.message,
            "traceback": [error.message, error.hint],
            "execution_count": None,
        }
        parent = message.header_fields()
        reply_type = message.msg_type.removesuffix("_request") + "_reply"
        self._deliver(self._own("iopub", "error", content, parent))
        self._deliver(self._own(message.channel, reply_type, content, parent))
        self._deliver(self._own("iopub", "status", {"execution_state": "idle"}, parent))

    def _own(self, channel: str, msg_type: str, content: dict[str, Any], parent: dict[str, Any]) -> RawMessage:
        return RawMessage.build(
            channel, msg_type, content, msg_id=new_id("hub"), session=self._own_session, parent=parent
        )

    # -- downwards -------------------------------------------------------------------------------------------

    def _on_message(self, message: RawMessage) -> None:
        self._heard = True
        try:
            message.header_fields()
            parent_id = message.parent_id
            if message.channel == "shell":
                message = _answer(message)
            resend = self._fence.received(message)
            if parent_id in self._own_requests:
                self._idle_watch.received(message)
            else:
                self._complete_error(message)
                self._deliver(message)
        except MessageError as error:
            log.warning("dropped an unreadable message", extra={"kernel": self.id, "reason": str(error)})
            return
        for request in resend:
            self._upstream.send(request)
        if parent_id in self._own_requests and message.channel == "shell":
            self._answers_lost()
            self._send_held()

    def _complete_error(self, message: RawMessage) -> None:
        """Put back the ``error`` that the server's output limit took away, before the execution ends."""
        if error := self._activity.missing_error(message):
            self._deliver(self._own("iopub", "error", error, message.parent_fields()))

    def _deliver(self, message: RawMessage) -> None:
        self._append(EntryKind.DOWN, v1_chunks(message))
        self._activity.received(message)
        if (death := self._activity.take_death()) is not None and not self._expect_death:
            self._mark_dead(death)
        self._upstream.set_busy(self._activity.busy)
        self._idle_watch.changed()
        self._refresh_state()

    def _idle_lost(self, header: dict[str, Any]) -> None:
        self.declare_loss("the end of an execution was not reported; output before it may be missing too")
        self._deliver(self._own("iopub", "status", {"execution_state": "idle"}, header))

    def _ask_for_idle(self) -> str | None:
        if self.link is not LinkState.CONNECTED:
            return None
        return self._send_own(probe(new_id("hub"), self._own_session))

    def _send_own(self, request: RawMessage) -> str:
        self._own_requests.append(request.msg_id)
        self._upstream.send(request)
        return request.msg_id

    def _answers_lost(self) -> None:
        """Close executions whose reply the server threw away: a later request on the same channel was answered."""
        for header in self._fence.unanswered():
            self.declare_loss("the reply of an execution was lost while the connection was down")
            content: dict[str, Any] = {
                "status": "error",
                "ename": "OutputLost",
                "evalue": "the execution has ended, but its reply was lost while the connection was down",
                "traceback": [],
                "execution_count": None,
            }
            self._deliver(self._own("shell", "execute_reply", content, header))
            self._deliver(self._own("iopub", "status", {"execution_state": "idle"}, header))

    def _mark_dead(self, reason: str) -> None:
        self._died = reason
        self._activity.clear()
        self._fence.clear()
        self._held.clear()
        self.note({"type": "died", "text": reason})

    def fail(self, reason: str) -> None:
        """Count the kernel as dead because its link ended for good."""
        if not self._died and not self._closed:
            self._mark_dead(reason)
            self._refresh_state()

    def end(self, reason: str) -> None:
        """Say in the record that nothing more will come, so that whoever follows an execution stops waiting."""
        if self._activity.busy and not self._died:
            self._mark_dead(reason)

    @contextlib.contextmanager
    def restarting(self) -> Iterator[None]:
        """Bracket a restart on purpose: what was under way has ended, and the deaths it causes are none."""
        self._expect_death = True
        try:
            yield
            self._died = ""
            self._activity.clear()
            self._fence.clear()
            self._held.clear()
            self.note({"type": "restarted", "text": "the kernel was restarted; its variables are gone"})
            # Servers make sure at the start of a connection, and only then, that they hear what the kernel publishes.
            self._upstream.set_busy(False)
            self._upstream.reconnect()
        finally:
            self._expect_death = False
            self._refresh_state()

    def declare_takeover(self) -> None:
        """Say that another daemon process goes on here, which cannot know what the first one missed."""
        if self._activity.busy:
            self.declare_loss("the daemon was stopped while the kernel was busy")

    # -- link and state --------------------------------------------------------------------------------------

    def _on_link(self, state: LinkState, text: str) -> None:
        changed = state is not self.link
        first = self.link is LinkState.CONNECTING
        self.link = state
        if state is LinkState.CONNECTED:
            self._after_connect()
        elif state is LinkState.RECONNECTING and changed:
            self._fence.link_lost()
        if state is LinkState.GONE and not self._died:
            reason = text or "the kernel does not exist any more"
            self._mark_dead(reason if self._heard else f"the kernel ended while it was starting ({reason})")
        if changed and not (first and state is LinkState.CONNECTED):
            self.note({"type": "link", "state": str(state), "text": text})
        self._refresh_state()

    def _after_connect(self) -> None:
        # A fence whose reply went down with the connection would hold back requests for ever.
        if self._upstream.reliable or not (self._fence.pending() or self._fence.active):
            return
        fence = probe(new_id("hub"), self._own_session)
        for answer in self._fence.start(fence.msg_id):
            self._upstream.send(answer)
        self._send_own(fence)

    def _refresh_state(self) -> None:
        if self._died:
            self._set_state(KernelState.DEAD)
        elif self.link is LinkState.RECONNECTING:
            self._set_state(KernelState.RECONNECTING)
        elif self.link is LinkState.CONNECTING:
            self._set_state(KernelState.STARTING)
        else:
            self._set_state(KernelState.BUSY if self._activity.busy else KernelState.IDLE)

    def _set_state(self, state: KernelState) -> None:
        if state is not self._state:
            self._state = state
            self._on_state(self)

    def _append(self, kind: EntryKind, body: Any) -> int:
        if self._closed:
            return self.record.next_seq - 1
        return self.record.append(kind, body, self._clock.time())

    # -- reading ---------------------------------------------------------------------------------------------

    async def entries(self, after: int) -> AsyncIterator[list[Entry]]:
        """Iterate over the record in batches, from a cursor, waiting for more at its end until it is closed.

        Args:
            after: Number of the last entry that the caller has seen; 0 for all.
        """
        # Numbers above the last one come from a time whose end a power cut took away.
        cursor = min(after, self.record.next_seq - 1)
        while True:
            batch = self.record.read(cursor)
            if batch:
                cursor = batch[-1].seq
                yield batch
                # A reader that never waits would starve the loop while it catches up.
                await asyncio.sleep(0)
            elif self.record.closed:
                return
            else:
                await self.record.wait(cursor)


def _answer(message: RawMessage) -> RawMessage:
    """Return a reply; one whose content cannot be read as an empty one, because nothing else will come."""
    try:
        message.content_fields()
    except MessageError:
        return RawMessage("shell", message.header, message.parent, message.metadata, b"{}", message.buffers)
    return message


def note_of(entry: Entry) -> dict[str, Any]:
    """Return the JSON object of a note entry; empty when it is unreadable."""
    try:
        value = json.loads(entry.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
