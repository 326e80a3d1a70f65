"""The one place where a kernel's messages pass.

A :class:`HubKernel` owns the only connection to one remote kernel. Everything that passes is numbered and written to
the kernel's record before anybody sees it, and every viewer reads the record from a cursor of its own: a slow viewer
therefore costs nothing, a viewer that comes back misses nothing, and memory does not grow with output.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from colab_bridge._util.ids import new_id
from colab_bridge.errors import UserError
from colab_bridge.kernels.activity import KernelActivity
from colab_bridge.kernels.adoption import Inheritance
from colab_bridge.kernels.barrier_gate import BarrierGate
from colab_bridge.kernels.fence import RequestFence, probe
from colab_bridge.kernels.idle_watch import PATIENCE_S, RELIABLE_PATIENCE_S, IdleWatch
from colab_bridge.kernels.journal_intake import JournalIntake
from colab_bridge.kernels.notes import note_of
from colab_bridge.kernels.own_messages import OwnMessages
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord
from colab_bridge.kernels.side_channel import SideChannel, SideHost
from colab_bridge.model.records import KernelState
from colab_bridge.ports.barrier import Barrier
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.side import SideDesk
from colab_bridge.ports.upstream import LinkState, Upstream, UpstreamEvents
from colab_bridge.wire.jupyter_ws import v1_chunks
from colab_bridge.wire.message import MessageError, RawMessage, dump_json

__all__ = ["HubKernel", "note_of"]

log = logging.getLogger(__name__)

#: Ids of requests that are remembered to drop repeats; front ends have a handful in flight, so this is ample.
REMEMBERED_REQUESTS = 10_000
#: How far back a new daemon looks for work that was under way where no run says where it began.
ADOPTED_ENTRIES = 5_000


class HubKernel:
    """One remote kernel: upstream, record, activity, fence, barrier.

    Where the upstream is reliable, the fence only listens: it is asked when the link falls back to one that is not.

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
        self._own = OwnMessages()
        self._own_requests: deque[str] = deque(maxlen=64)
        self._held: deque[RawMessage] = deque()
        self._gate: BarrierGate | None = None
        self._side: SideChannel | None = None
        self._journal = JournalIntake(self, clock, upstream.recorded, record.last_origin)
        self._idle_watch = IdleWatch(self._activity, self._ask_for_idle, self._idle_lost, self._idle_patience)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._state = KernelState.STARTING
        self._died = ""
        self._heard = False
        self._heard_at = float("-inf")
        self._closed = False
        self._expect_death = False
        self._taken_over = False
        self._server_busy: bool | None = None

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the link up until cancelled or until the kernel is gone."""
        try:
            await self._upstream.run(self.events())
        finally:
            self._set_state(KernelState.DEAD if self.link is LinkState.GONE else self._state)

    def events(self) -> UpstreamEvents:
        """Return what the upstream is to call."""
        return UpstreamEvents(
            message=self._on_message, state=self._on_link, gap=self.declare_loss, journal=self._journal
        )

    def set_barrier(self, barrier: Barrier | None) -> None:
        """Have a barrier called around each execution from now on, or none."""
        if self._gate is not None:
            self._gate.dissolve()
        self._gate = None
        if barrier is not None:
            self._gate = BarrierGate(
                barrier,
                self._transmit,
                self._refuse_unready,
                self._refuse_unwanted,
                self._warn,
                self._activity.under_way(),
            )

    def set_side(self, desk: SideDesk) -> None:
        """Have a desk answer what code on the runtime asks of the user's machine."""
        host = SideHost(
            send=self._send_unrecorded,
            say=self._say,
            executing=self._activity.executing,
            catching_up=lambda: self._journal.catching_up,
        )
        self._side = SideChannel(self.id, host, desk)

    def close(self) -> None:
        """Close the record; readers see its end. Nothing is sent to the kernel."""
        self._closed = True
        if self._side is not None:
            self._side.close()
        self._idle_watch.stop()
        if self._gate is not None:
            self._gate.close()
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
        """Whether at least one execution has not ended, as far as that is known yet."""
        return self._activity.busy or self._journal.catching_up

    async def wait_caught_up(self, timeout_s: float) -> None:
        """Wait until the record holds what was said while no daemon ran, at most so long."""
        await self._journal.wait_caught_up(timeout_s)

    def heard_within(self, seconds: float) -> bool:
        """Whether the link is up and the kernel has said something as lately as that."""
        return self.link is LinkState.CONNECTED and self._clock.monotonic() - self._heard_at <= seconds

    @property
    def died(self) -> str:
        """Empty, or why the kernel is dead."""
        return self._died

    def adopt(self, *, after: int | None, server_says_busy: bool | None) -> None:
        """Take over from a daemon that was killed: read what was under way from the record.

        Requests that may not have reached the kernel are sent again, now or after the first connection, depending on
        the upstream.

        Args:
            after: Record number from which unfinished work is looked for; None for the last few thousand entries.
            server_says_busy: What the Jupyter server reports as the kernel's execution state; None when it did not
                answer.
        """
        if after is None:
            after = self.record.next_seq - 1 - ADOPTED_ENTRIES
        cursor = max(after, self.record.first_seq - 1)
        found = Inheritance(activity=self._activity, fence=self._fence)
        while entries := self.record.read(cursor):
            for entry in entries:
                found.take(entry)
            cursor = entries[-1].seq
        for msg_id in found.known:
            self._remember(msg_id)
        self._heard = found.heard
        self._taken_over, self._server_busy = True, server_says_busy
        if self._upstream.reliable:
            self._journal.expect_backlog()
            for message in found.unsent.values():
                self._send(message)
        else:
            self._inherit_unreliably()
        self._refresh_state()

    def _inherit_unreliably(self) -> None:
        self._fence.link_lost()
        if self._server_busy is not None:
            self._activity.server_reported(busy=self._server_busy)
        self._server_busy = None
        self._idle_watch.changed()

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
        if message.channel == "stdin":
            self._submit_answer(message)
            return
        self._append(EntryKind.UP, v1_chunks(message))
        self._activity.sent(message)
        if message.msg_type == "interrupt_request":
            self.interrupt_held()
        if self._gate is None or not self._gate.holds_up(message):
            self._transmit(message)
        self._upstream.set_busy(self._activity.busy)
        self._refresh_state()

    def _submit_answer(self, message: RawMessage) -> None:
        """Send what a user typed. It may be a password, so only that there was an answer is recorded."""
        if self._side is not None and self._side.replied(message):
            return
        self._append(EntryKind.UP, v1_chunks(_without_answer(message)))
        self._transmit(message)

    def _send_unrecorded(self, message: RawMessage) -> None:
        self._upstream.send(message)
        self._fence.sent(message)

    def _transmit(self, message: RawMessage) -> None:
        if self._fence.active and message.channel == "shell":
            # Sent behind the fence, a request that is lost could not be told from one that never arrived.
            self._held.append(message)
        else:
            self._send(message)

    def _send(self, message: RawMessage) -> None:
        try:
            self._upstream.send(message)
        except UserError as error:
            self._refuse(message, "MessageTooLarge", error.message, error.hint)
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

    def _refuse(self, request: RawMessage, ename: str, text: str, hint: str) -> None:
        self._say(self._own.refusal(request, ename, text, hint))

    def _say(self, messages: Sequence[RawMessage]) -> None:
        """Deliver messages of our own making, in the kernel's place."""
        for message in messages:
            self.pass_down(functools.partial(self._deliver_completed, message), message)

    def _refuse_unready(self, request: RawMessage, text: str, hint: str) -> None:
        self._refuse(request, "FilesNotReady", text, hint)

    def _refuse_unwanted(self, request: RawMessage) -> None:
        self._refuse(request, "KeyboardInterrupt", "stopped while its files were brought up; the code did not run", "")

    def interrupt_held(self) -> bool:
        """End the execution that waits for its files and has not been sent; return whether there was one."""
        return self._gate is not None and self._gate.interrupt()

    def _warn(self, text: str) -> None:
        self.note({"type": "notice", "level": "warning", "text": text})

    # -- downwards -------------------------------------------------------------------------------------------

    def _on_message(self, message: RawMessage) -> None:
        if self._gate is None or not self._gate.holds_down(lambda: self.receive(message), message):
            self.receive(message)

    def pass_down(self, deliver: Callable[[], None], message: RawMessage | None = None) -> None:
        """Deliver what came from a journal, now or when the barrier lets it.

        Args:
            deliver: Does it.
            message: The message that is delivered, None for anything else.
        """
        if self._gate is None or not self._gate.holds_down(deliver, message):
            deliver()

    def receive(self, message: RawMessage, origin: int = 0) -> None:
        """Take one message from the kernel.

        Args:
            message: As it came, or of our own making in the kernel's place.
            origin: Its number in the journal on the runtime; 0 for none.
        """
        self._heard, self._heard_at = True, self._clock.monotonic()
        try:
            message.header_fields()
            parent_id = message.parent_id
            if message.channel == "shell":
                message = _answer(message)
            resend = self._fence.received(message)
            if parent_id in self._own_requests:
                self._idle_watch.received(message)
            elif self._side is None:
                self._complete_error(message)
                self._deliver(message, origin)
            elif not self._side.takes(message):
                self._complete_error(message)
                self._deliver(self._side.masked(message), origin)
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
            self._deliver(self._own.make("iopub", "error", error, message.parent_fields()))

    def _deliver_completed(self, message: RawMessage) -> None:
        self._complete_error(message)
        self._deliver(message)

    def _deliver(self, message: RawMessage, origin: int = 0) -> None:
        self._append(EntryKind.DOWN, v1_chunks(message), origin)
        self._activity.received(message)
        if (death := self._activity.take_death()) is not None and not self._expect_death:
            self._mark_dead(death)
        self._upstream.set_busy(self._activity.busy)
        self._idle_watch.changed()
        self._refresh_state()

    def _idle_lost(self, header: dict[str, Any]) -> None:
        self.declare_loss("the end of an execution was not reported; output before it may be missing too")
        self._say([self._own.idle(header)])

    # -- what a journal on the runtime tells -----------------------------------------------------------------

    def request_arrived(self, message: RawMessage, origin: int) -> None:
        """Take the journal's word that a request has reached the runtime; see :mod:`.journal_intake`."""
        try:
            msg_id, msg_type = message.msg_id, message.msg_type
            message.parent_fields()
        except MessageError as error:
            log.warning("dropped an unreadable request", extra={"kernel": self.id, "reason": str(error)})
            return
        if msg_id in self._own_requests:
            return
        if msg_id in self._known:
            self._append(EntryKind.NOTE, dump_json({"type": "sent", "msg_id": msg_id}), origin)
            self._fence.arrived(msg_id)
            return
        log.info("request of somebody else", extra={"kernel": self.id, "type": msg_type})
        self._remember(msg_id)
        self._append(EntryKind.UP, v1_chunks(_without_answer(message)), origin)
        self._activity.sent(message)
        self._upstream.set_busy(self._activity.busy)
        self._refresh_state()

    def write_note(self, note: Mapping[str, Any], origin: int) -> None:
        """Write an entry of the journal's own into the record."""
        self._append(EntryKind.NOTE, dump_json(note), origin)

    def kernel_died(self, reason: str, origin: int) -> None:
        """Count the kernel as dead because the runtime says so."""
        if self._died:
            return
        self._mark_dead(reason if self._heard else f"the kernel ended while it was starting ({reason})", origin)
        self._refresh_state()

    def caught_up(self) -> None:
        """Look anew whether the kernel is busy, now that the journal has been read."""
        if self._side is not None:
            self._side.caught_up()
        self._refresh_state()

    def fall_back(self, reason: str, unsent: Sequence[RawMessage]) -> None:
        """Go on with a link that is not reliable, from now on.

        Args:
            reason: Why, for a log.
            unsent: Requests that certainly did not reach the kernel.
        """
        log.warning("the tunnel is not used any more", extra={"kernel": self.id, "reason": reason})
        if self._taken_over or self._heard:
            self._declare_if_busy("the reliable connection to the kernel was lost while it was busy")
        self._inherit_unreliably()
        for message in unsent:
            self._send(message)
        self._refresh_state()

    def _idle_patience(self) -> float:
        return RELIABLE_PATIENCE_S if self._upstream.reliable else PATIENCE_S

    def _ask_for_idle(self) -> str | None:
        if self.link is not LinkState.CONNECTED:
            return None
        return self._send_own(probe(new_id("hub"), self._own.session))

    def _send_own(self, request: RawMessage) -> str:
        self._own_requests.append(request.msg_id)
        self._upstream.send(request)
        return request.msg_id

    def _answers_lost(self) -> None:
        """Close executions whose reply the server threw away: a later request on the same channel was answered."""
        for header in self._fence.unanswered():
            self.declare_loss("the reply of an execution was lost while the connection was down")
            # Its outputs and its idle may still be under way, because iopub is a channel of its own. The idle watch
            # makes up for an idle that does not come.
            self._say([self._own.lost_reply(header)])

    def _mark_dead(self, reason: str, origin: int = 0) -> None:
        self._died = reason
        self._forget_requests()
        self.write_note({"type": "died", "text": reason}, origin)

    def _forget_requests(self) -> None:
        """Count everything under way as ended, because the kernel process that did it is gone."""
        if self._gate is not None:
            self._gate.release()
            self._gate.kernel_gone()
        if self._side is not None:
            self._side.reset()
        self._activity.clear()
        self._fence.clear()
        self._held.clear()

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
            self._forget_requests()
            self._journal.expect_restart()
            self.note({"type": "restarted", "text": "the kernel was restarted; its variables are gone"})
            # Servers make sure at the start of a connection, and only then, that they hear what the kernel publishes.
            self._upstream.set_busy(False)
            self._upstream.reconnect()
        finally:
            self._expect_death = False
            self._refresh_state()

    def declare_takeover(self) -> None:
        """Say that another daemon process goes on here, where it cannot know what the first one missed."""
        if not self._upstream.reliable:
            self._declare_if_busy("the daemon was stopped while the kernel was busy")

    def _declare_if_busy(self, reason: str) -> None:
        if self._activity.busy:
            self.declare_loss(reason)

    # -- link and state --------------------------------------------------------------------------------------

    def _on_link(self, state: LinkState, text: str) -> None:
        changed = state is not self.link
        first = self.link is LinkState.CONNECTING
        self.link = state
        if state is LinkState.CONNECTED:
            self._after_connect()
        elif state is LinkState.RECONNECTING and changed:
            self._fence.link_lost()
            self._idle_watch.link_lost()
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
        fence = probe(new_id("hub"), self._own.session)
        for answer in self._fence.start(fence.msg_id):
            self._upstream.send(answer)
        self._send_own(fence)
        self._idle_watch.fenced(fence.msg_id)

    def _refresh_state(self) -> None:
        if self._died:
            self._set_state(KernelState.DEAD)
        elif self.link is LinkState.RECONNECTING:
            self._set_state(KernelState.RECONNECTING)
        elif self.link is LinkState.CONNECTING:
            self._set_state(KernelState.STARTING)
        else:
            self._set_state(KernelState.BUSY if self.busy else KernelState.IDLE)

    def _set_state(self, state: KernelState) -> None:
        if state is not self._state:
            self._state = state
            self._on_state(self)

    def _append(self, kind: EntryKind, body: Any, origin: int = 0) -> int:
        if self._closed:
            return self.record.next_seq - 1
        return self.record.append(kind, body, self._clock.time(), origin=origin)

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
                if cursor + 1 < self.record.next_seq:
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


def _without_answer(message: RawMessage) -> RawMessage:
    """Return a request as it may lie on a disk: without what was typed or handed over, which may be a secret."""
    if message.channel != "stdin":
        return message
    return RawMessage("stdin", message.header, message.parent, message.metadata, b"{}")
