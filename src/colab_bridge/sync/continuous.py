"""Continuous mode: changes travel when they happen, so that a barrier finds little to do."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.remote import RemoteFailure

__all__ = ["keep_in_step"]

log = logging.getLogger(__name__)

_QUIET_S = 0.03
_MOST_S = 0.3
_LOOK_S = 60.0
_LOOK_UNWATCHED_S = 5.0
_AFTER_FAULT_S = 5.0
# Looks at everything take at most this part of the time, so that a large folder at rest costs next to nothing.
_REST = 400


async def keep_in_step(controller: SyncController, remote_dirty: asyncio.Event) -> None:
    """Sync whenever a side changes, and fetch large results, until cancelled.

    Args:
        controller: The pair.
        remote_dirty: Set when the runtime tells of a change.
    """
    here = _LocalWatch(controller)
    try:
        while True:
            await _once(controller, here, remote_dirty)
    finally:
        here.disarm()


async def _once(controller: SyncController, here: _LocalWatch, remote_dirty: asyncio.Event) -> None:
    here.arm()
    with suppress(RemoteFailure):
        await controller.watch_remote()
    later = await _first_of(here.dirty, remote_dirty, controller.wanted_later, here.patience_s)
    quiet = not (later or here.dirty.is_set() or remote_dirty.is_set())
    if controller.paused or controller.poisoned:
        later = False
        await asyncio.sleep(_QUIET_S)
        _clear(here.dirty, remote_dirty)
        return
    told = later or quiet or remote_dirty.is_set()
    told = await _settle(here, remote_dirty) or told
    if not told and await controller.knows_all_here():
        # A barrier has asked the watches, which woke us up too.
        return
    try:
        if later:
            controller.wanted_later.clear()
            await controller.fetch_deferred()
        else:
            report = await controller.keep_up(quiet=quiet)
            here.took(report.seconds, quiet=quiet)
            if report.deferred:
                controller.fetch_later()
    except SyncFailure as failure:
        log.info(
            "not in step", extra={"session": controller.session, "kind": str(failure.kind), "reason": failure.text}
        )
        if failure.kind is not FailureKind.UNSETTLED:
            # No event tells of the end of what is wrong; a run asks anew anyway.
            await asyncio.sleep(_AFTER_FAULT_S)


def _clear(*events: asyncio.Event) -> None:
    for event in events:
        event.clear()


async def _first_of(local: asyncio.Event, remote: asyncio.Event, later: asyncio.Event, patience_s: float) -> bool:
    """Wait until something happens; returns whether it was the wish for large results."""
    waits = [asyncio.ensure_future(event.wait()) for event in (local, remote, later)]
    try:
        await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return later.is_set()


async def _settle(here: _LocalWatch, remote_dirty: asyncio.Event) -> bool:
    """Let a burst of changes end: 30 ms without one, at most 300 ms; returns whether the runtime told of any."""
    deadline = asyncio.get_running_loop().time() + _MOST_S
    told = False
    while True:
        _clear(here.dirty, remote_dirty)
        if asyncio.get_running_loop().time() >= deadline:
            return told
        with suppress(TimeoutError):
            await asyncio.wait_for(remote_dirty.wait(), _QUIET_S)
            told = True
            continue
        return told


class _LocalWatch:
    """Wakes up when the watches of this machine have something; one waking is enough until the next look."""

    def __init__(self, controller: SyncController) -> None:
        self._controller = controller
        self._number: int | None = None
        self._last_look_s = 0.0
        self.dirty = asyncio.Event()

    @property
    def patience_s(self) -> float:
        """Time after which everything is looked at anyway."""
        watched = self._controller.local.folder.watch_number is not None
        return max(_LOOK_S if watched else _LOOK_UNWATCHED_S, _REST * self._last_look_s)

    def took(self, seconds: float, *, quiet: bool) -> None:
        """Take note of what a look at everything costs: a large folder is looked at less often."""
        if quiet:
            self._last_look_s = seconds

    def arm(self) -> None:
        """Listen."""
        number = self._controller.local.folder.watch_number
        if number is None or self._number is not None:
            return
        try:
            asyncio.get_running_loop().add_reader(number, self._woken)
        except (OSError, ValueError, NotImplementedError):
            return
        self._number = number

    def _woken(self) -> None:
        self.disarm()
        self.dirty.set()

    def disarm(self) -> None:
        """Stop listening."""
        if self._number is not None:
            with suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(self._number)
        self._number = None
