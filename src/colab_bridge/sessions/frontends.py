"""Front ends of kernels: who is attached, and what happens when they leave."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc

from colab_bridge._util.process import ProcessId, is_alive
from colab_bridge.errors import ColabBridgeError, TransientError
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.model.records import KernelPurpose, KernelRecord
from colab_bridge.ports.clock import Clock
from colab_bridge.sessions.kernels import KernelPool
from colab_bridge.sessions.reattach import (
    Candidate,
    Departure,
    Reattach,
    StartDecision,
    after_departure,
    on_start,
)

__all__ = ["FrontEnds"]

log = logging.getLogger(__name__)

#: Seconds that front ends get to come back after the daemon was replaced; a proxy kernel needs two or three.
RETURN_GRACE_S = 30.0


#: Together a little longer than a server needs to start a kernel again.
DELETE_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


@dataclass(slots=True)
class _Presence:
    attached: int = 0
    vanished_at: float | None = None
    leaving: bool = False
    # Another process than the one that sent what runs is attached, and shows nothing of it.
    succeeded: bool = False


class FrontEnds:
    """Applies the policy of :mod:`colab_bridge.sessions.reattach` to the kernels that front ends made.

    Args:
        pool: The kernels.
        clock: Time source.
        tasks: Owner of the tasks that remove kernels.
        stopping: Set when this process ends: connections that it closes itself are no departures.
        pauses_s: Seconds between the tries to delete a kernel.
    """

    def __init__(
        self,
        pool: KernelPool,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
        stopping: anyio.Event,
        *,
        pauses_s: tuple[float, ...] = DELETE_PAUSES_S,
    ) -> None:
        self._pool = pool
        self._pauses_s = pauses_s
        self._stopping = stopping
        self._clock = clock
        self._tasks = tasks
        self._presence: dict[str, _Presence] = {}
        self._orphaned: list[Callable[[KernelRecord, HubKernel], None]] = []
        self._returned: list[Callable[[str], None]] = []
        pool.on_state(self._state_changed)

    def on_orphaned(self, orphaned: Callable[[KernelRecord, HubKernel], None], returned: Callable[[str], None]) -> None:
        """Have somebody look after cells whose front end has gone while they run.

        Args:
            orphaned: Called with a busy kernel whose last front end has gone.
            returned: Called with the id of a kernel whose own front end is there again.
        """
        self._orphaned.append(orphaned)
        self._returned.append(returned)

    def decide_start(self, session: str, identity: Mapping[str, Any]) -> StartDecision:
        """Decide which kernel a starting front end of a session gets."""
        candidates = [
            Candidate(
                kernel=kernel.id,
                identity=kernel.identity,
                busy=self._pool.hub(kernel.id).busy,
                attached=self._of(kernel.id).attached > 0,
                vanished_at=self._of(kernel.id).vanished_at,
            )
            for kernel in self._pool.kernels(session)
            if kernel.purpose is KernelPurpose.FRONTEND
        ]
        setting, window = policy_of(identity)
        decision = on_start(setting, identity, candidates, now=self._clock.time(), restart_window_s=window)
        if decision.reuse is not None:
            self._of(decision.reuse).succeeded = True
        return decision

    @contextlib.asynccontextmanager
    async def attached(self, kernel_id: str) -> AsyncIterator[None]:
        """Bracket the connection of one front end; leaving it without a shutdown applies the policy."""
        presence = self._of(kernel_id)
        presence.attached += 1
        if not presence.succeeded:
            for returned in self._returned:
                returned(kernel_id)
        presence.vanished_at = None
        try:
            yield
        finally:
            presence.attached -= 1
            if presence.attached == 0 and not self._stopping.is_set():
                self._vanished(kernel_id)

    def expect_return(self, kernel: KernelRecord) -> None:
        """Give the front end of a kernel time to come (back) before the policy applies; none to one that is dead."""
        if kernel.purpose is not KernelPurpose.FRONTEND:
            return
        if _is_dead(kernel.identity):
            # It went while no daemon looked: too long ago for a start that comes now to be half of a restart.
            self._vanished(kernel.id, at=0.0)
        else:
            self._tasks.start_soon(self._wait_for_return, kernel.id)

    async def _wait_for_return(self, kernel_id: str) -> None:
        await anyio.sleep(RETURN_GRACE_S)
        if self._of(kernel_id).attached == 0 and self._of(kernel_id).vanished_at is None:
            self._vanished(kernel_id)

    def _of(self, kernel_id: str) -> _Presence:
        return self._presence.setdefault(kernel_id, _Presence())

    def _vanished(self, kernel_id: str, *, at: float | None = None) -> None:
        try:
            kernel, hub = self._pool.kernel(kernel_id), self._pool.hub(kernel_id)
        except ColabBridgeError:
            self._presence.pop(kernel_id, None)
            return
        if kernel.purpose is not KernelPurpose.FRONTEND:
            return
        self._of(kernel_id).vanished_at = self._clock.time() if at is None else at
        if hub.busy:
            for orphaned in self._orphaned:
                orphaned(kernel, hub)
        departure = after_departure(policy_of(kernel.identity)[0], busy=hub.busy)
        log.info("front end has gone", extra={"kernel": kernel_id, "decision": str(departure)})
        if departure is Departure.REMOVE:
            self._remove_soon(kernel_id)

    def _state_changed(self, kernel: KernelRecord, hub: HubKernel) -> None:
        presence = self._presence.get(kernel.id)
        if presence is None or hub.busy:
            return
        presence.succeeded = False
        if presence.vanished_at is None or presence.attached:
            return
        if after_departure(policy_of(kernel.identity)[0], busy=False) is Departure.REMOVE:
            self._remove_soon(kernel.id)

    def _remove_soon(self, kernel_id: str) -> None:
        presence = self._of(kernel_id)
        if not presence.leaving:
            presence.leaving = True
            self._tasks.start_soon(self._remove, kernel_id)

    async def _remove(self, kernel_id: str) -> None:
        """Task root of one removal."""
        try:
            await self._delete_patiently(kernel_id)
        except ColabBridgeError as error:
            # The next change of its state, such as the link coming back, tries again.
            log.warning("kernel not removed", extra={"kernel": kernel_id, "reason": error.message})
            self._of(kernel_id).leaving = False
        except Exception:
            log.exception("kernel not removed", extra={"kernel": kernel_id})
            self._of(kernel_id).leaving = False
        else:
            self._presence.pop(kernel_id, None)

    async def _delete_patiently(self, kernel_id: str) -> None:
        """Delete a kernel; a server that is just starting it again answers with an error for a few seconds."""
        for pause_s in self._pauses_s:
            try:
                await self._pool.delete(kernel_id)
            except TransientError:
                await anyio.sleep(pause_s)
            else:
                return
        await self._pool.delete(kernel_id)


def _is_dead(identity: Mapping[str, Any]) -> bool:
    """Whether the process of a front end's proxy kernel is known to be gone."""
    process = identity.get("process")
    if not isinstance(process, Mapping):
        return False
    pid, create_time = process.get("pid"), process.get("create_time")
    if not isinstance(pid, int) or not isinstance(create_time, int | float):
        return False
    return not is_alive(ProcessId(pid=pid, create_time=float(create_time)))


def policy_of(identity: Mapping[str, Any]) -> tuple[Reattach, float]:
    """Return the ``reattach`` setting and the restart window, in seconds, that were valid when a kernel was made."""
    setting = identity.get("reattach")
    window = identity.get("restart_window_s")
    return (
        Reattach(setting) if setting in list(Reattach) else Reattach.BUSY,
        float(window) if isinstance(window, int | float) else 5.0,
    )
