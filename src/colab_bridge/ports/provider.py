"""Where runtimes come from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest

__all__ = ["RuntimeProvider"]


@runtime_checkable
class RuntimeProvider(Protocol):
    """Acquires, finds again and releases machines that run a Jupyter server.

    A plug-in is an entry point in the group ``colab_bridge.providers`` that names a class taking one
    argument, the folder below which it may keep files of its own. All calls may be cancelled. Errors are those of
    :mod:`colab_bridge.errors`; nothing foreign leaves an implementation.
    """

    name: str

    async def acquire(self, request: RuntimeRequest) -> RuntimeHandle:
        """Get a machine that answers Jupyter REST calls when this returns."""
        ...

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        """Return a valid way in to a machine acquired earlier, also by another process.

        Args:
            handle: The machine.
            stale: A way in that has just been refused by what stands before the machine; another one is wanted. Many
                callers with the same one cause one renewal. Where ways in do not expire it changes nothing.

        Raises:
            RuntimeLostError: the machine is gone for good.
            TransientError: it does not answer now, but may later.
            AuthError: our credentials are refused.
        """
        ...

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        """Tell the provider that the machine is in use; nothing to do where machines do not expire."""
        ...

    async def release(self, handle: RuntimeHandle) -> None:
        """Give the machine back; calling it for one that is gone already is no error."""
        ...
