"""What happens to each message, and when this process ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from colab_bridge.client.address import Address
from colab_bridge.errors import ColabBridgeError, RuntimeLostError, TransientError
from colab_bridge.kernels.proxy.daemon_kernel import DaemonKernel, HeldKernel
from colab_bridge.kernels.proxy.deferral import Deferral
from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.link import ChannelLink
from colab_bridge.kernels.proxy.local_messages import (
    error_content,
    interrupted_content,
    kernel_info_content,
    restart_wanted,
)
from colab_bridge.kernels.proxy.notices import Notices
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.kernels.proxy.process_events import say
from colab_bridge.kernels.proxy.reply_order import ReplyOrder
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["KernelRelay"]

#: Seconds for telling the daemon before this process ends; jupyter_client sends SIGTERM 2.5 s after its request.
FAREWELL_S = 2.0
DELETE_AGAIN_S = 0.25
#: Front ends give up on a kernel after 60 s without a kernel_info_reply; a machine may take longer than that to come.
EARLY_INFO_S = 20.0
#: How often the daemon is asked what is said while a machine is got.
SAID_EVERY_S = 1.0

Identities = Sequence[bytes]
Reach = Callable[[bool], Awaitable[Address]]


class KernelRelay:
    """The proxy kernel without its sockets.

    Args:
        kernel: Our kernel at the daemon.
        reach: See :class:`ChannelLink`.
        frontend: Where answers go.
        outbox: The same that ``frontend`` uses.
        asks: Ask in the first cell which machine it is to be.
    """

    def __init__(
        self, kernel: DaemonKernel, reach: Reach, frontend: FrontEnd, outbox: Outbox, *, asks: bool = False
    ) -> None:
        self._kernel = kernel
        self._reach = reach
        self._frontend = frontend
        self._outbox = outbox
        self._order = ReplyOrder(frontend.relay)
        self._notices = Notices(frontend, outbox)
        self._deferral = Deferral(frontend, outbox, asks=asks)
        self._link: ChannelLink | None = None
        self._failure: ColabBridgeError | None = None
        self._retry = asyncio.Event()
        self._asking = True
        self._interrupting = False
        self._ending = False
        self._exit_status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Relay until it is time to go, and return the exit status."""
        self._start(self._live())
        try:
            return await self._exit_status
        finally:
            self._order.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            say(f"internal error: {error!r}")
            self._end(70)

    def _end(self, status: int) -> None:
        if not self._exit_status.done():
            self._exit_status.set_result(status)

    # -- the life of the kernel --------------------------------------------------------------------------------

    async def _live(self) -> None:
        held = await self._acquire(only_held=True)
        while held is None:
            if self._failure is None:
                self._kernel.choose(await self._deferral.wait())
            else:
                await self._retry.wait()
                self._retry.clear()
            held = await self._acquire()
        if held.at_work:
            self._notices.reattached()
        self._link = ChannelLink(held.id, held.after, self._reach, self._outbox, self)
        try:
            await self._link.run()
        except RuntimeLostError as error:
            await self._kernel_died(error.message, delete=False)

    async def _acquire(self, *, only_held: bool = False) -> HeldKernel | None:
        self._asking = True
        early = asyncio.get_running_loop().call_later(EARLY_INFO_S, self._answer_info_early)
        telling = asyncio.get_running_loop().create_task(self._tell_start())
        try:
            held = await self._kernel.acquire(only_held=only_held)
            self._failure = None
            return held
        except ColabBridgeError as error:
            self._fail(error)
            return None
        finally:
            early.cancel()
            telling.cancel()
            self._asking = False

    async def _tell_start(self) -> None:
        """Task root: show in the cell that waits what is said while its machine is got."""
        begun = asyncio.get_running_loop().time()
        last = 0
        while True:
            await asyncio.sleep(SAID_EVERY_S)
            with contextlib.suppress(ColabBridgeError):
                for number, text in await self._kernel.said(last, asyncio.get_running_loop().time() - begun):
                    last = max(last, number)
                    if (parent := self._outbox.executing) is not None:
                        self._frontend.tell(parent, text)

    def _fail(self, error: ColabBridgeError) -> None:
        self._failure = error
        say(error.message)
        if error.hint:
            say(error.hint)
        self._outbox.clear_one_way()
        for request, identities in self._outbox.take():
            self._answer_failed(request, identities, error)

    def _answer_failed(self, request: RawMessage, identities: Identities, error: ColabBridgeError) -> None:
        if request.msg_type == "kernel_info_request":
            content = kernel_info_content(f"Colab Bridge: {error.message}\n{error.hint}")
        else:
            content = error_content(error)
        self._frontend.answer(request, identities, content)

    def _answer_info_early(self) -> None:
        for request, identities in self._outbox.take("kernel_info_request"):
            content = kernel_info_content("Colab Bridge: the runtime is being started.")
            self._frontend.answer(request, identities, content)

    async def _kernel_died(self, reason: str, *, delete: bool) -> None:
        """End with an error, so that front ends see the death of a kernel, which the heartbeat would hide."""
        if self._ending:
            return
        self._ending = True
        say(reason)
        if delete:
            await self._give_up()
        self._end(1)

    async def _give_up(self, *, restart: bool = False) -> None:
        try:
            await asyncio.wait_for(self._delete(restart=restart), FAREWELL_S)
        except TimeoutError:
            say("the daemon is still ending the kernel")

    async def _delete(self, *, restart: bool) -> None:
        """End the kernel; a server that is just starting a dead kernel anew refuses for a moment."""
        while True:
            try:
                await self._kernel.delete(restart=restart)
                return
            except TransientError as error:
                say(f"the kernel was not ended yet: {error.message}")
            except ColabBridgeError as error:
                say(f"the kernel was not ended: {error.message}")
                return
            await asyncio.sleep(DELETE_AGAIN_S)

    # -- from the front end ------------------------------------------------------------------------------------

    def take(self, message: RawMessage, identities: Identities) -> None:
        """Take a message of a front end, its signature already checked.

        Raises:
            MessageError: its header is unreadable.
        """
        if not message.msg_id or self._ending:
            return
        if message.msg_type == "shutdown_request":
            self._start(self._shut_down(message, identities))
        elif message.msg_type == "interrupt_request":
            self._start(self._interrupt_for(message, identities))
        elif message.msg_type == "input_reply" and self._deferral.answered(message):
            return
        elif self._link is None and self._deferral.active:
            self._deferral.take(message, identities)
        elif self._link is None and self._failure is not None:
            self._take_without_kernel(message, identities, self._failure)
        else:
            self._outbox.add(message, identities)
            if self._link is not None:
                self._link.send(message)
                self._notices.sent()

    def _take_without_kernel(self, message: RawMessage, identities: Identities, failure: ColabBridgeError) -> None:
        if message.msg_type == "execute_request":
            # Running a cell is how a user tries again, after having done what the hint says.
            self._outbox.add(message, identities)
            self._retry.set()
        elif message.msg_type.endswith("_request"):
            self._answer_failed(message, identities, failure)

    async def _shut_down(self, request: RawMessage, identities: Identities) -> None:
        self._ending = True
        restart = restart_wanted(request)
        await self._give_up(restart=restart)
        self._frontend.farewell(request, identities, restart=restart)
        self._end(0)

    async def _interrupt_for(self, request: RawMessage, identities: Identities) -> None:
        failure = await self._interrupt()
        self._frontend.answer(request, identities, error_content(failure) if failure else {"status": "ok"})

    async def _interrupt(self) -> ColabBridgeError | None:
        """Interrupt once for all who ask at the same moment: a second one could hit the next cell."""
        if self._interrupting:
            return None
        self._interrupting = True
        try:
            if self._link is None:
                for request, identities in self._outbox.take("execute_request"):
                    self._frontend.answer(request, identities, interrupted_content())
                self._deferral.interrupted()
                self._kernel.stop_waiting()
                return None
            await self._kernel.interrupt()
        except ColabBridgeError as error:
            # jupyter_client interrupts before each shutdown, and then the kernel may already be gone.
            if not self._ending:
                say(f"not interrupted: {error.message}")
            return error
        finally:
            self._interrupting = False
        return None

    # -- from the system ---------------------------------------------------------------------------------------

    def signalled(self, number: signal.Signals) -> None:
        """Take a signal: Ctrl-C is an interrupt, everything else the end."""
        if number == signal.SIGINT:
            self._start(_drop_result(self._interrupt()))
        else:
            self._start(self.vanish())

    async def vanish(self) -> None:
        """End because the front end has gone without a ``shutdown_request``.

        Editors also stop and restart kernels in this way, so the daemon decides (``sessions.reattach``): it sees our
        connection close. A kernel that is still being made has no connection yet and no work in it, so that one is
        deleted.
        """
        if self._ending:
            return
        self._ending = True
        if self._link is None:
            await self._give_up()
        self._end(0)

    # -- from the daemon ---------------------------------------------------------------------------------------

    def received(self, message: RawMessage) -> None:
        """Pass on a message of the kernel."""
        self._outbox.settle(message)
        self._order.take(message)
        if message.channel == "iopub" and message.msg_type == "status":
            state = message.content_fields().get("execution_state")
            if state in ("restarting", "dead"):
                self._start(self._kernel_died(f"the kernel died (its server reports '{state}')", delete=True))

    def state_changed(self, state: str, text: str) -> None:
        """Take the kernel's state as the daemon sees it."""
        if state in ("dead", "gone"):
            self._start(self._kernel_died(text or "the kernel died", delete=state == "dead"))
        elif state == "reconnecting":
            self._notices.away()
        else:
            self._notices.back()

    def lost(self, text: str) -> None:
        """Tell the user that output may be missing."""
        self._notices.lost(text)

    def gap(self, first: int, last: int) -> None:
        """Tell the user that messages are missing."""
        self._notices.gap(first, last)

    def link_up(self) -> None:
        """Note the connection to the daemon."""
        self._notices.back()

    def link_down(self) -> None:
        """Note the loss of the connection to the daemon."""
        self._notices.away()


async def _drop_result(work: Awaitable[Any]) -> None:
    with contextlib.suppress(MessageError):
        await work
