"""One call for agreement, over its rounds: what is counted and noted on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from colab_bridge.sync.ahead import HeadStart
from colab_bridge.sync.carry import Tally
from colab_bridge.sync.report import Deferred
from colab_bridge.sync.troubles import Trouble
from colab_bridge.sync_core.plan import Plan

__all__ = ["Turn"]


@dataclass(slots=True)
class Turn:
    """See the module.

    Attributes:
        reason: ``pre``, ``post``, ``watch`` or ``sync``.
        wait_all: Large results too.
        started: Reading of the monotonic clock, seconds.
        audit: Some files are read again on the runtime whatever their stamps say.
        tally: Bytes of content.
        rounds: Rounds so far.
        as_planned: Each exchange of the last round has led to the very tree that was expected.
        done: Plans, with what was done of them only.
        deferred: Large results that are left for later, by the path of their decision.
        failed: Decisions of the last round that could not be carried out.
        troubles: Why something of the last round could not be done, by path.
        waiting: Decisions that wait for the next barrier.
        unstable: Files that a program on the runtime has open for writing.
        late: Old versions on the runtime into which a program went on writing, with their ids in the trash.
        exec_dropped: Files that the runtime made executable, which it may not do here.
        round_trips: Answers of the runtime that were waited for.
        ahead: What the runtime has begun to copy while this machine was looking.
    """

    reason: str
    wait_all: bool
    started: float
    audit: bool = False
    tally: Tally = field(default_factory=Tally)
    rounds: int = 0
    as_planned: bool = True
    done: list[Plan] = field(default_factory=list)
    deferred: dict[str, Deferred] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    unstable: tuple[str, ...] = ()
    late: tuple[tuple[str, str], ...] = ()
    exec_dropped: tuple[str, ...] = ()
    round_trips: int = 0
    ahead: HeadStart | None = None
