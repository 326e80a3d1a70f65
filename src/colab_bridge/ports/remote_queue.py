"""Work that goes on at the runtime while no daemon is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from colab_bridge.wire.message import RawMessage

__all__ = ["RemoteQueue"]


class RemoteQueue(Protocol):
    """Requests that the runtime sends to a kernel by itself, one after the other, when no daemon is linked to it.

    While a daemon is linked, nothing is sent from the queue: the daemon sends the same requests, with the same ids,
    when their turn has come. An id that the kernel got already is not sent a second time, whoever comes second.
    """

    async def available(self, kernel_id: str) -> bool:
        """Wait until it is known how a kernel is reached, and return whether its runtime can queue for it."""
        ...

    async def put(self, kernel_id: str, job: str, requests: Sequence[RawMessage], *, stop_on_error: bool) -> None:
        """Leave requests with the runtime, in place of those that were left for the same job before.

        Args:
            kernel_id: Our id of the kernel.
            job: Id of the run.
            requests: ``execute_request`` messages with fixed ids, in order; at most 1 MiB together.
            stop_on_error: End the queue at the first reply that is not ``ok``.

        Raises:
            ColabBridgeError: the runtime did not take them.
        """
        ...

    async def drop(self, kernel_id: str, job: str) -> None:
        """Take back what is left of a job's requests; none is no error.

        Raises:
            ColabBridgeError: the runtime did not answer.
        """
        ...
