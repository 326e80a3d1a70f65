"""Holds back what must wait for the barrier around an execution, in both directions, without changing any order.

Upwards an ``execute_request`` and every shell request behind it wait for ``before``. Downwards the ``idle`` of an
execution and everything behind it wait for ``after``. A barrier that fails is written down and counts as done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from colab_bridge.kernels.own_messages import OwnMessages
from colab_bridge.ports.barrier import Barrier, BarrierRefused
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["BarrierGate"]

log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    deliver: Callable[[], None]
    message: RawMessage | None


class BarrierGate:
    """The gate of one kernel; used from the event loop.

    Args:
        barrier: What to wait for.
        send: Hands a shell request on.
        own: Makes the answers to requests that must not run.
        say: Delivers such answers in the kernel's place.
        note: Writes a sentence about a failed barrier into the record.
        under_way: Headers of executions whose end is awaited already, by their ids.
    """

    def __init__(
        self,
        barrier: Barrier,
        send: Callable[[RawMessage], None],
        own: OwnMessages,
        say: Callable[[Sequence[RawMessage]], None],
        note: Callable[[str], None],
        under_way: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._barrier = barrier
        self._send = send
        self._own = own
        self._say = say
        self._note = note
        self._open = dict(under_way)
        self._up: deque[RawMessage] = deque()
        self._down: deque[_Waiting] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._step: asyncio.Task[None] | None = None
        self._unwanted = False
        self._after: asyncio.Task[None] | None = None
        self._last: asyncio.Task[None] | None = None

    # -- upwards ---------------------------------------------------------------------------------------------

    def holds_up(self, message: RawMessage) -> bool:
        """Take a request that must wait; it is sent later.

        Returns:
            False when it may go at once.
        """
        if message.channel != "shell" or (self._pump is None and message.msg_type != "execute_request"):
            return False
        self._up.append(message)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._send_up())
        return True

    async def _send_up(self) -> None:
        """Task root: send what waits, one after the other."""
        while self._up:
            message = self._up[0]
            may_go = message.msg_type != "execute_request" or await self._before(message)
            self._up.popleft()
            if may_go:
                self._send(message)
        self._pump = None

    async def _before(self, request: RawMessage) -> bool:
        self._step = asyncio.get_running_loop().create_task(self._call_before(request))
        try:
            await self._step
        except asyncio.CancelledError:
            if not self._unwanted:
                raise
            text = "stopped while its files were brought up; the code did not run"
            self._say(self._own.refusal(request, "KeyboardInterrupt", text, ""))
            return False
        except BarrierRefused as refusal:
            self._say(self._own.refusal(request, "FilesNotReady", refusal.text, refusal.hint))
            return False
        except Exception as error:
            log.exception("barrier before an execution failed")
            self._note(f"files may differ: the step before the execution failed ({type(error).__name__})")
        finally:
            self._step, self._unwanted = None, False
        self._open[request.msg_id] = request.header_fields()
        return True

    async def _call_before(self, request: RawMessage) -> None:
        """Task root of one step; whoever waits for it takes what it raises."""
        await self._barrier.before(request)

    def interrupt(self) -> bool:
        """End the execution that waits for its files, unless the kernel is at an earlier one.

        Returns:
            Whether there was one; the kernel itself need not be interrupted then.
        """
        if self._step is None or self._open:
            return False
        self._unwanted = True
        self._step.cancel()
        return True

    # -- downwards -------------------------------------------------------------------------------------------

    def holds_down(self, deliver: Callable[[], None], message: RawMessage | None) -> bool:
        """Take what must wait on its way down.

        Args:
            deliver: Called when its turn has come.
            message: The message that it is about, None for anything else.

        Returns:
            False when it may be delivered at once.
        """
        if self._after is not None:
            self._down.append(_Waiting(deliver, message))
            return True
        if message is None or (header := self._ended_by(message)) is None:
            return False
        self._begin_after(header, deliver)
        return True

    def _ended_by(self, message: RawMessage) -> dict[str, Any] | None:
        """Return the header of the execution that a message ends, None when it ends none of ours."""
        if message.channel != "iopub":
            return None
        try:
            if message.parent_id not in self._open or message.msg_type != "status":
                return None
            if message.content_fields().get("execution_state") != "idle":
                return None
        except MessageError:
            return None
        del self._open[message.parent_id]
        return message.parent_fields()

    def _begin_after(self, header: dict[str, Any], deliver: Callable[[], None]) -> None:
        self._after = asyncio.get_running_loop().create_task(self._run_after(header))
        self._down.appendleft(_Waiting(deliver, None))

    async def _run_after(self, header: dict[str, Any]) -> None:
        """Task root: wait for the barrier, then deliver what has waited."""
        await self._call_after(header)
        self._after = None
        self._deliver()

    async def _call_after(self, header: Mapping[str, Any]) -> None:
        try:
            await self._barrier.after(header)
        except Exception as error:
            log.exception("barrier after an execution failed")
            self._note(f"files may differ: the step after the execution failed ({type(error).__name__})")

    def _deliver(self) -> None:
        """Deliver up to the next end of an execution."""
        while self._down:
            waiting = self._down.popleft()
            if waiting.message is not None and (header := self._ended_by(waiting.message)) is not None:
                self._begin_after(header, waiting.deliver)
                return
            waiting.deliver()

    # -- ends ------------------------------------------------------------------------------------------------

    def kernel_gone(self) -> None:
        """Drop the requests that wait, and have the barrier end what was under way: their kernel is gone."""
        headers = list(self._open.values())
        self._open.clear()
        self._stop_sending()
        if headers:
            self._last = asyncio.get_running_loop().create_task(self._end_all(headers, self._last))

    async def _end_all(self, headers: list[Mapping[str, Any]], before: asyncio.Task[None] | None) -> None:
        """Task root: no message waits for this."""
        if before is not None:
            await asyncio.wait([before])
        for header in headers:
            await self._call_after(header)

    def _stop_sending(self) -> None:
        self._up.clear()
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    def release(self) -> None:
        """Deliver at once, in order, what waits for the end of an execution."""
        if self._after is not None:
            self._after.cancel()
            self._after = None
        while self._down:
            self._down.popleft().deliver()

    def dissolve(self) -> None:
        """Hand on everything that waits, in both directions, because there is no barrier any more."""
        waiting = list(self._up)
        self._stop_sending()
        for message in waiting:
            self._send(message)
        self.release()

    def close(self) -> None:
        """Stop everything; what waits is dropped, and comes again from where it is kept."""
        self._stop_sending()
        self._down.clear()
        for task in (self._after, self._last):
            if task is not None:
                task.cancel()
        self._after = self._last = None
