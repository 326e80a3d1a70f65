"""The emulator's time: the machine's own, moved forward on demand."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["EmulatorClock"]


class EmulatorClock:
    """Real time plus an offset that only grows. May be used from any thread.

    Whoever waits for a moment subscribes to the jumps; nobody has to look at the clock again and again.
    """

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._listeners: list[Callable[[], object]] = []

    def time(self) -> float:
        """Return Unix seconds."""
        return time.time() + self._offset_s

    def monotonic(self) -> float:
        """Return seconds that never go backwards and follow the jumps."""
        return time.monotonic() + self._offset_s

    @property
    def offset_s(self) -> float:
        """How far this clock is ahead of the machine's."""
        return self._offset_s

    def advance(self, seconds: float) -> None:
        """Jump forward, and tell everybody who has subscribed.

        Args:
            seconds: How far, not negative.

        Raises:
            ValueError: time cannot be turned back.
        """
        if seconds < 0:
            raise ValueError(f"the clock only goes forward, not by {seconds} s")
        self._offset_s += seconds
        for listener in tuple(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call a function after each jump, in the thread of whoever jumps.

        Returns:
            What ends the subscription.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
