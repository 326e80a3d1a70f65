"""Who wants to know what becomes of runs, and when."""

from __future__ import annotations

from typing import Protocol

from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.records import Run
from colab_bridge.wire.message import RawMessage

__all__ = ["RunObserver"]


class RunObserver(Protocol):
    """Is told of every run by :class:`~colab_bridge.execution.service.RunService`, from the event loop.

    Calls must not block and must not raise for anything that a kernel may send.
    """

    def began(self, run: Run, *, resumed: bool) -> None:
        """Take note that a run begins, or with ``resumed`` that it is taken up from a daemon that ended.

        All messages of the execution under way come again after a take-over.
        """
        ...

    def message(self, run_id: str, message: RawMessage) -> None:
        """Take note of a message from the kernel that belongs to a run."""
        ...

    def answered(self, run_id: str) -> None:
        """Take note that the question a run waited with has been answered."""
        ...

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Take note of the end of a run; also of one that was found ended after a restart of the daemon."""
        ...
