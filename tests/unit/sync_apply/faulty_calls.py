"""File-system calls that fail, end the process or let somebody else act at a chosen moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apply_world import World
from colab_bridge.agent.sync.disk.place import Calls

NAMES = tuple(name for name in vars(Calls) if not name.startswith("_"))


class Killed(BaseException):
    """The process has ended."""


class NoSync:
    """Nothing is made durable: these tests end processes, not machines."""

    def file(self, fd: int) -> None:
        return

    def folder(self, fd: int) -> None:
        return

    def before_move(self) -> None:
        return

    def begin(self, fd: int) -> None:
        return

    def commit(self, fd: int) -> None:
        return

    def close(self) -> None:
        return


def open_faulty(path: Path) -> tuple[World, FaultyCalls]:
    """Open a side whose calls are counted and may fail."""
    holder: list[FaultyCalls] = []

    def wrap(calls: Calls) -> Calls:
        holder.append(FaultyCalls(calls))
        return holder[0]

    return World.open(path, wrap), holder[0]


class FaultyCalls(Calls):
    """Counts the calls, and does something at one of them.

    Attributes:
        count: Calls so far.
        at: Number of the call at which something happens, counted from 0; None never.
        moments: Further numbers at which ``before`` happens.
        before: What happens before the call is made; it may raise.
        after: What happens after it was made; it may raise.
    """

    def __init__(self, real: Calls) -> None:
        super().__init__(real.exchange, NoSync())
        self.count = 0
        self.at: int | None = None
        self.moments: tuple[int, ...] = ()
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None
        self.dead = False
        self.log: list[str] = []


def _wrapped(name: str) -> Callable[..., Any]:
    real = getattr(Calls, name)

    def call(self: FaultyCalls, *args: Any, **more: Any) -> Any:
        if self.dead:
            raise Killed
        mine = self.count
        self.count += 1
        self.log.append(name)
        if (mine == self.at or mine in self.moments) and self.before is not None:
            self.before()
        found = real(self, *args, **more)
        if mine == self.at and self.after is not None:
            self.after()
        return found

    return call


for _name in NAMES:
    setattr(FaultyCalls, _name, _wrapped(_name))


def kill(calls: FaultyCalls) -> Callable[[], None]:
    """End the process: nothing that it would still clean up happens."""

    def now() -> None:
        calls.dead = True
        raise Killed

    return now


def fail(code: int) -> Callable[[], None]:
    def now() -> None:
        raise OSError(code, os.strerror(code))

    return now
