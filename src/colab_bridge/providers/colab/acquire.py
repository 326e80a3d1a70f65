"""Carries out what :mod:`.acquiring` decides."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio

from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.model.hardware import Hardware
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.colab import acquiring
from colab_bridge.providers.colab.classify import Failure
from colab_bridge.providers.colab.control import ControlPlane
from colab_bridge.providers.colab.http import CallFailedError
from colab_bridge.providers.colab.options import Wanted
from colab_bridge.providers.colab.values import Assignment, Ticket, Wish

__all__ = ["Acquisition"]

#: Seconds that are given to finding and releasing a machine of a request that was cancelled.
CLEANUP_S = 20.0


class Acquisition:
    """One request for a runtime, from the first look to a machine or a refusal.

    Args:
        control: Where to ask.
        request: UUID of the request; written down already.
        wanted: What is wanted.
        clock: Time source.
        report: Told one line whenever there is something new for people.
        inspect: Looks at the machine itself, and returns the runtime with the hardware that it really has.
        pause: Waits some seconds.
    """

    def __init__(
        self,
        control: ControlPlane,
        request: str,
        wanted: Wanted,
        clock: Clock,
        report: Callable[[str], None],
        inspect: Callable[[Assignment], Awaitable[Assignment]],
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._control = control
        self._request = request
        self._wanted = wanted
        self._clock = clock
        self._report = report
        self._inspect = inspect
        self._pause = pause
        #: Whether a runtime of this request may exist or appear that nobody holds.
        self.unsettled = False

    async def run(self) -> acquiring.Done:
        """Get a machine.

        Raises:
            ColabBridgeError: there is none to be had; see :attr:`unsettled`.
        """
        try:
            return await self._run()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLEANUP_S):
                await self._take_back()
            raise

    async def _run(self) -> acquiring.Done:
        now = self._clock.monotonic()
        state, action = acquiring.begin(self._wanted.ladder, wait_s=self._wanted.wait_s, now=now)
        while True:
            if isinstance(action, acquiring.Done):
                self.unsettled = False
                return action
            if isinstance(action, acquiring.Fail):
                self.unsettled = action.unsettled
                raise await self._explained(action.error)
            event = await self._carry_out(action)
            if isinstance(event, acquiring.Released) and event.failure is None:
                self.unsettled = False
            state, action = acquiring.step(
                state,
                event,
                now=self._clock.monotonic(),
                jitter=random.random(),  # noqa: S311  # spreads load
            )
            if isinstance(event, Failure):
                # A definite refusal leaves nothing open; an answer that was lost does.
                self.unsettled = state.open_since is not None

    async def _carry_out(self, action: acquiring.Action) -> acquiring.Event:
        if isinstance(action, acquiring.Wait):
            if action.why:
                self._report(action.why)
            await self._pause(action.seconds)
            return acquiring.Waited()
        if isinstance(action, acquiring.Count):
            return acquiring.Counted(await self._count())
        if isinstance(action, acquiring.Release):
            self._report(f"{action.why}; releasing it")
            return acquiring.Released(await self._release(action.assignment))
        assert isinstance(action, (acquiring.Look, acquiring.Ask))  # the others end the loop
        try:
            return await self._look_or_ask(action)
        except CallFailedError as error:
            return error.failure

    async def _look_or_ask(self, action: acquiring.Look | acquiring.Ask) -> Assignment | Ticket:
        wish = self._wish(action.hardware, action.attempt)
        if isinstance(action, acquiring.Look):
            found = await self._control.look(wish)
            if isinstance(found, Ticket):
                return found
            self.unsettled = True  # by an earlier try, whose answer was lost
            return await self._inspect(found)
        self.unsettled = True
        self._report(f"asking Colab for {action.hardware}")
        return await self._inspect(await self._control.ask(wish, action.ticket))

    def _wish(self, hardware: Hardware, attempt: int) -> Wish:
        return Wish(request=self._request, hardware=hardware, version=self._wanted.version, attempt=attempt)

    async def _count(self) -> int | None:
        try:
            return len(await self._control.listing())
        except CallFailedError:
            return None

    async def _release(self, assignment: Assignment) -> Failure | None:
        try:
            await self._control.release(assignment)
        except CallFailedError as error:
            return error.failure
        return None

    async def _take_back(self) -> None:
        """After a cancellation: release what the open question may have brought."""
        if not self.unsettled:
            return
        try:
            found = await self._control.look(self._wish(self._wanted.ladder[0], 0))
            if isinstance(found, Assignment):
                await self._control.release(found)
                self.unsettled = False
        except CallFailedError:
            return  # it is in the ledger, and looked for at the next start

    async def _explained(self, error: ColabBridgeError) -> ColabBridgeError:
        """Add to a refusal what this account may have."""
        if not isinstance(error, UserError) or error.code != "CB-COLAB-003":
            return error
        version = f" (or there is no version {self._wanted.version})" if self._wanted.version else ""
        try:
            offers = await self._control.offers()
        except CallFailedError:
            return UserError(error.message + version, hint=error.hint, code=error.code)
        names = ", ".join(offers.eligible) or "CPU machines only"
        return UserError(
            error.message + version, hint=f"this account may have: {names}; see: colab-bridge gpus", code=error.code
        )
