"""Who may talk to the agent: one daemon at a time. Pure; times are numbers that the caller passes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SILENCE_S", "Holder", "Lease"]

SILENCE_S = 120.0
"""Seconds without a word after which another daemon may come."""


@dataclass
class Holder:
    """The daemon that holds the agent.

    Attributes:
        owner: Its id.
        label: Its name for people.
        since: When it came, seconds of the caller's clock.
        heard: When it was heard last.
    """

    owner: str
    label: str
    since: float
    heard: float


class Lease:
    """The right to talk to the agent. It is not written down: an agent that was started anew takes who comes first."""

    def __init__(self) -> None:
        self._holder: Holder | None = None

    def holder(self, now: float) -> Holder | None:
        """Return who holds the agent, None when it is free."""
        if self._holder is not None and now >= self._holder.heard + SILENCE_S:
            return None
        return self._holder

    def ask(self, owner: str, label: str, now: float, *, take: bool) -> Holder | None:
        """Ask for the lease.

        Returns:
            None when it is the owner's now, else who holds it.
        """
        holder = self.holder(now)
        if holder is not None and holder.owner != owner and not take:
            return holder
        since = holder.since if holder is not None and holder.owner == owner else now
        self._holder = Holder(owner=owner, label=label, since=since, heard=now)
        return None

    def heard(self, owner: str, now: float) -> None:
        """Note a sign of life of the holder."""
        if self._holder is not None and self._holder.owner == owner:
            self._holder.heard = now

    def release(self, owner: str) -> None:
        """Give the lease back; nothing happens when another holds it."""
        if self._holder is not None and self._holder.owner == owner:
            self._holder = None
