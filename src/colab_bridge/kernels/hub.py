"""The one place where a kernel's messages pass.

A :class:`HubKernel` owns the only connection to one remote kernel. Everything that passes is numbered and written to
the kernel's record before anybody sees it, and every viewer reads the record from a cursor of its own: a slow viewer
therefore costs nothing, a viewer that comes back misses nothing, and memory does not grow with output.

The hub decides about order and about what the kernel's state is. What becomes of requests when a link breaks is the
affair of :mod:`.sending`, what a journal on the runtime tells is sorted by :mod:`.journal_intake`, what waits for files
by :mod:`.barrier_gate`, and what code on the runtime asks of the user's machine by :mod:`.side_channel`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from colab_bridge.kernels.activity import KernelActivity, state_behind
from colab_bridge.kernels.adoption import Inheritance
from colab_bridge.kernels.barrier_gate import BarrierGate
from colab_bridge.kernels.idle_watch import IdleWatch
from colab_bridge.kernels.journal_intake import JournalIntake
from colab_bridge.kernels.notes import note_of
from colab_bridge.kernels.own_messages import OwnMessages, readable_reply
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.kernels.sending import RequestSender
from colab_bridge.kernels.side_channel import SideChannel, SideHost
from colab_bridge.model.records import KernelState
from colab_bridge.ports.barrier import Barrier
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.side import SideDesk
from colab_bridge.ports.upstream import LinkState, Upstream, UpstreamEvents
from colab_bridge.wire.jupyter_ws import v1_chunks
from colab_bridge.wire.masking import without_answer
from colab_bridge.wire.message import MessageError, RawMessage, dump_json

__all__ = ["HubKernel", "note_of"]

log = logging.getLogger(__name__)


class HubKernel:
    """One remote kernel: upstream, record, activity, barrier.

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
        self._own = OwnMessages()
        self._sender = RequestSender(upstream, self._own, self._say, self.declare_loss)
        self._gate: BarrierGate | None = None
        self._side: SideChannel | None = None
        self._journal = JournalIntake(self, self._sender, clock, upstream.recorded, record.last_origin)
        self._idle_watch = IdleWatch(self._activity, self._ask_for_idle, self._idle_lost, lambda: upstream.reliable)
        self._early: list[Callable[[RawMessage], None]] = []
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
            if self.link is LinkState.GONE:
                self._set_state(KernelState.DEAD)

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
            under_way = self._activity.under_way()
            self._gate = BarrierGate(barrier, self._sender.transmit, self._own, self._say, self._warn, under_way)

    def set_side(self, desk: SideDesk) -> None:
        """Have a desk answer what code on the runtime asks of the user's machine."""
        host = SideHost(
            send=self._sender.send_or_raise,
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
        found = Inheritance(activity=self._activity, sender=self._sender)
        found.read(self.record, after)
        self._heard = found.heard
        self._taken_over, self._server_busy = True, server_says_busy
        if self._upstream.reliable:
            self._journal.expect_backlog()
            for message in found.unsent.values():
                self._sender.send(message)
        else:
            self._inherit_unreliably()
        self._refresh_state()

    def _inherit_unreliably(self) -> None:
        self._sender.link_lost()
        if self._server_busy is not None:
            self._activity.server_reported(busy=self._server_busy)
        self._server_busy = None
        self._idle_watch.changed()

    def declare_takeover(self) -> None:
        """Say that another daemon process goes on here, where it cannot know what the first one missed."""
        if not self._upstream.reliable:
            self._declare_if_busy("the daemon was stopped while the kernel was busy")

    def _declare_if_busy(self, reason: str) -> None:
        if self._activity.busy:
            self.declare_loss(reason)

    # -- upwards ---------------------------------------------------------------------------------------------

    def submit(self, message: RawMessage) -> None:
        """Send a request to the kernel, once: a ``msg_id`` that was sent before is dropped.

        Args:
            message: From a front end or from a run.

        Raises:
            MessageError: it cannot be read; nothing was sent or recorded then.
        """
        if self._sender.knows(message.msg_id):
            return
        if message.msg_type == "execute_request":
            message.content_fields()  # a kernel drops what it cannot read, and nobody would answer
        message.parent_fields()
        self._sender.remember(message.msg_id)
        if message.channel == "stdin":
            self._submit_answer(message)
            return
        self._append(EntryKind.UP, v1_chunks(message))
        self._activity.sent(message)
        if message.msg_type == "interrupt_request":
            self.interrupt_held()
        if self._gate is None or not self._gate.holds_up(message):
            self._sender.transmit(message)
        self._upstream.set_busy(self._activity.busy)
        self._refresh_state()

    def _submit_answer(self, message: RawMessage) -> None:
        """Send what a user typed. It may be a password, so only that there was an answer is recorded."""
        if self._side is not None and self._side.replied(message):
            return
        self._append(EntryKind.UP, v1_chunks(without_answer(message)))
        self._sender.transmit(message)

    def assume_sent(self, message: RawMessage) -> None:
        """Count a request as sent although the record does not hold it any more.

        A cell that prints more than a record keeps pushes its own request out; sending it again would run it twice.
        """
        self._sender.remember(message.msg_id)
        self._activity.sent(message)
        self._refresh_state()

    def knows(self, msg_id: str) -> bool:
        """Whether a request was sent already, by this daemon or by the one before it."""
        return self._sender.knows(msg_id)

    def note(self, value: Mapping[str, Any], origin: int = 0) -> int:
        """Write an entry that is no message into the record.

        Args:
            value: Its JSON object.
            origin: Its number in the journal on the runtime; 0 for one of our own.

        Returns:
            Its number in the record.
        """
        return self._append(EntryKind.NOTE, dump_json(value), origin)

    def declare_loss(self, reason: str) -> None:
        """Say in the record that output may be missing from here on."""
        log.warning("output may be lost", extra={"kernel": self.id, "reason": reason})
        self.note({"type": "lost", "text": reason})

    def _say(self, messages: Sequence[RawMessage]) -> None:
        """Deliver messages of our own making, in the kernel's place."""
        for message in messages:
            self.pass_down(functools.partial(self._deliver, message), message)

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
            if message.channel == "shell":
                message = readable_reply(message)
            if self._sender.received(message):
                self._idle_watch.received(message)
            elif self._side is None:
                self._deliver(message, origin)
            elif not self._side.takes(message):
                self._deliver(self._side.masked(message), origin)
        except MessageError as error:
            log.warning("dropped an unreadable message", extra={"kernel": self.id, "reason": str(error)})

    def _deliver(self, message: RawMessage, origin: int = 0) -> None:
        """Record a message; put back the ``error`` that the server's output limit took away before it, if it did."""
        if error := self._activity.missing_error(message):
            self._record_down(self._own.make("iopub", "error", error, message.parent_fields()))
        self._record_down(message, origin)

    def _record_down(self, message: RawMessage, origin: int = 0) -> None:
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

    def _ask_for_idle(self) -> str | None:
        return self._sender.ask() if self.link is LinkState.CONNECTED else None

    # -- what a journal on the runtime tells -----------------------------------------------------------------

    def request_of_others(self, message: RawMessage, origin: int) -> None:
        """Take a request to the kernel that was not sent from here."""
        self._sender.remember(message.msg_id)
        self._append(EntryKind.UP, v1_chunks(without_answer(message)), origin)
        self._activity.sent(message)
        self._upstream.set_busy(self._activity.busy)
        self._refresh_state()

    def kernel_died(self, reason: str, origin: int) -> None:
        """Count the kernel as dead because the runtime says so."""
        if not self._died:
            self._mark_gone(reason, origin)
            self._refresh_state()

    @contextlib.contextmanager
    def showing_early(self, show: Callable[[RawMessage], None]) -> Iterator[None]:
        """Have a viewer called with replies that overtake the record, where they come again in their place."""
        self._early.append(show)
        try:
            yield
        finally:
            self._early.remove(show)

    def show_early(self, message: RawMessage) -> None:
        """Give a message to the viewers that will come again; only answers to what was asked from here.

        Raises:
            MessageError: it cannot be read.
        """
        if self._sender.knows(message.parent_id):
            for show in self._early:
                show(message)

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
            self._sender.send(message)
        self._refresh_state()

    # -- ends and restarts -----------------------------------------------------------------------------------

    def _mark_gone(self, reason: str, origin: int = 0) -> None:
        self._mark_dead(reason if self._heard else f"the kernel ended while it was starting ({reason})", origin)

    def _mark_dead(self, reason: str, origin: int = 0) -> None:
        self._died = reason
        self._forget_requests()
        self.note({"type": "died", "text": reason}, origin)

    def _forget_requests(self) -> None:
        """Count everything under way as ended, because the kernel process that did it is gone."""
        if self._gate is not None:
            self._gate.release()
            self._gate.kernel_gone()
        if self._side is not None:
            self._side.reset()
        self._activity.clear()
        self._sender.forget()

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

    # -- link and state --------------------------------------------------------------------------------------

    def _on_link(self, state: LinkState, text: str) -> None:
        changed = state is not self.link
        first = self.link is LinkState.CONNECTING
        self.link = state
        if state is LinkState.CONNECTED:
            if (fence := self._sender.link_made()) is not None:
                self._idle_watch.fenced(fence)
        elif state is LinkState.RECONNECTING and changed:
            self._sender.link_lost()
            self._idle_watch.link_lost()
        if state is LinkState.GONE and not self._died:
            self._mark_gone(text or "the kernel does not exist any more")
        if changed and not (first and state is LinkState.CONNECTED):
            self.note({"type": "link", "state": str(state), "text": text})
        self._refresh_state()

    def _refresh_state(self) -> None:
        self._set_state(KernelState.DEAD if self._died else state_behind(self.link, self.busy))

    def _set_state(self, state: KernelState) -> None:
        if state is not self._state:
            self._state = state
            self._on_state(self)

    def _append(self, kind: EntryKind, body: Any, origin: int = 0) -> int:
        if self._closed:
            return self.record.next_seq - 1
        return self.record.append(kind, body, self._clock.time(), origin=origin)
