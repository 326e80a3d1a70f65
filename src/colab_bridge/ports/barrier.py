"""What happens around an execution so that both folders agree before it starts and after it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from colab_bridge.wire.message import RawMessage

__all__ = ["Barrier", "BarrierRefused"]


class Barrier(Protocol):
    """Called by a kernel's hub around each ``execute_request``.

    Both calls end within deadlines of their own and raise nothing but what is named. Words for people are written into
    the kernel's record by the barrier itself.
    """

    async def before(self, request: RawMessage) -> None:
        """Bring changes up before a request is sent; the hub sends no shell request meanwhile.

        Args:
            request: The ``execute_request`` that waits.

        Raises:
            BarrierRefused: the request must not run now; the hub answers it with the reason.
        """
        ...

    async def after(self, request_header: Mapping[str, Any]) -> None:
        """Bring results down after a request; the hub holds back the request's ``idle`` meanwhile.

        Args:
            request_header: Header of the request that ended, or that was under way when the kernel died.
        """
        ...


class BarrierRefused(Exception):  # an answer, no defect
    """The two folders do not agree, so the request must not run.

    Args:
        text: Why, one line for people.
        hint: What helps, one line.
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
