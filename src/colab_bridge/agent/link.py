"""One connection: its epoch, its handshake, and whether the other end is still there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .frames import Frame, FrameReader, FrameType, encode
from .handshake import Greeting
from .limits import Limits

__all__ = ["Link"]

# A late HELLO of an old connection must not push out the one that is being answered.
_MOST_OFFERS = 4
_MOST_CONTROL = 8


class Link:
    """State that dies with a connection.

    Args:
        number: Of this link.
        now: Time of its beginning.
        limits: Bounds of this side.
        nonce: Epoch of the client's ``HELLO``.
    """

    def __init__(self, number: int, *, now: float, limits: Limits, nonce: int) -> None:
        self.number = number
        self.nonce = nonce
        self.epoch = 0
        self.up = False
        self.codec = ""
        self.rtt_s: float | None = None
        self.stale_frames = 0
        self.reader = FrameReader(max_frame_bytes=limits.receive.frame_bytes)
        self._limits = limits
        self._begun = now
        self._heard = now
        self._pinged: float | None = None
        self._pings = 0
        self._pong: int | None = None
        self._ping_due = False
        self._marks: dict[int, int] = {}
        self._offers: dict[int, Greeting] = {}
        self._control: deque[bytes] = deque(maxlen=_MOST_CONTROL)

    def push(self, frame: bytes) -> None:
        """Queue a frame of the handshake; it goes before everything else."""
        self._control.append(frame)

    def pop_handshake(self) -> list[bytes]:
        """Return the frames of the handshake."""
        parts = list(self._control)
        self._control.clear()
        return parts

    def pop_heartbeat(self, marks: Callable[[], dict[int, int]]) -> list[bytes]:
        """Return the frames of the heartbeat.

        Args:
            marks: Gives the number of the next frame of each stream that has some under way, when a question is sent.
        """
        parts: list[bytes] = []
        if self._pong is not None:
            parts.append(encode(Frame(FrameType.PONG, epoch=self.epoch, number=self._pong)))
            self._pong = None
        if self._ping_due:
            self._ping_due = False
            self._marks = marks()
            parts.append(encode(Frame(FrameType.PING, epoch=self.epoch, number=self._pings)))
        return parts

    def offer(self, epoch: int, greeting: Greeting) -> None:
        """Remember a client's greeting until its ``READY``."""
        self._offers[epoch] = greeting
        while len(self._offers) > _MOST_OFFERS:
            del self._offers[next(iter(self._offers))]

    def take_offer(self, epoch: int) -> Greeting | None:
        """Return the greeting that a ``READY`` belongs to, once."""
        return self._offers.pop(epoch, None)

    def establish(self, epoch: int, now: float) -> None:
        """Begin the traffic."""
        self.epoch = epoch
        self.up = True
        # Another greeting was answered with what held before this moment.
        self._offers.clear()
        self._pong = None
        self._ping_due = False
        self.heard(now)

    def heard(self, now: float) -> None:
        """Note a sign of life of the peer."""
        self._heard = now

    def pong(self, number: int) -> None:
        """Answer a heartbeat; a flood of them gets one answer."""
        self._pong = number

    def ponged(self, number: int, now: float) -> dict[int, int]:
        """Take the answer to a heartbeat.

        Returns:
            For each stream the number up to which everything must have been acknowledged by now: the peer tells its
            positions before it answers, and what was sent before the question cannot be behind it on the way.
        """
        if self._pinged is None or self._ping_due or number != self._pings:
            return {}
        self.rtt_s = now - self._pinged
        marks, self._marks = self._marks, {}
        return marks

    def wake(self, passed_s: float, now: float) -> None:
        """Give the peer time for a sign of life when this process itself has slept: its bytes may lie unread."""
        if self.up and passed_s > self._limits.dead_after_s / 2:
            self._heard = max(self._heard, now - self._limits.heartbeat_s)

    def next_deadline(self, *, waiting: bool) -> float:
        """Return when ``tick`` has something to do."""
        if not self.up:
            return self._begun + self._limits.handshake_s
        return min(self._heard + self._limits.dead_after_s, self._next_ping(waiting=waiting))

    def _next_ping(self, *, waiting: bool) -> float:
        # While frames are under way the question comes regularly: its answer proves whether they have arrived.
        heard = self._begun if waiting else self._heard
        return max(heard, self._begun if self._pinged is None else self._pinged) + self._limits.heartbeat_s

    def tick(self, now: float, *, waiting: bool) -> tuple[str, str] | None:
        """Ask for a sign of life where it is time to, and return reason and detail when the link is dead.

        Args:
            now: The time.
            waiting: Frames are under way.
        """
        if not self.up:
            if now >= self._begun + self._limits.handshake_s:
                return ("handshake", f"no handshake within {self._limits.handshake_s:g} s")
            return None
        if now >= self._heard + self._limits.dead_after_s:
            return ("silent", f"nothing was heard for {now - self._heard:.1f} s")
        if now >= self._next_ping(waiting=waiting):
            self._pings += 1
            self._pinged = now
            self._ping_due = True
        return None
