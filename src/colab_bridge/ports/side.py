"""What code on a runtime may ask of the machine at which its user sits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from colab_bridge.wire.colab_side import DownloadOffer, SideRequest
from colab_bridge.wire.message import RawMessage

__all__ = ["SideDesk", "SideLine"]


class SideLine(Protocol):
    """The way back to one kernel, for whoever answers what it asks."""

    kernel_id: str

    def answer(self, request: SideRequest, data: Any) -> None:
        """Answer a request; one that the kernel does not wait for is left alone."""
        ...

    def fail(self, request: SideRequest, text: str) -> None:
        """Have the kernel's call raise an error with one line of text."""
        ...

    def cell(self) -> Mapping[str, Any]:
        """Return the header of the execution under way; ``{}`` when there is none."""
        ...

    def say(self, text: str, cell: Mapping[str, Any] | None = None) -> None:
        """Show a text to the user.

        Args:
            text: One line or more.
            cell: Header of the execution that it belongs to; that under way when omitted.
        """
        ...

    async def ask(self, prompt: str) -> str | None:
        """Ask the user for a line of text, in the cell that is being executed.

        Returns:
            The line; None when nobody can be asked.
        """
        ...

    def hide(self, value: str) -> None:
        """Hide a value in everything that the kernel publishes from now on."""
        ...

    def send(self, message: RawMessage) -> None:
        """Send a message of our own to the kernel; what it answers goes to :meth:`SideDesk.heard`."""
        ...


class SideDesk(Protocol):
    """Answers requests. Called from the event loop; returns at once and raises nothing."""

    def asked(self, line: SideLine, request: SideRequest) -> None:
        """Take a request."""
        ...

    def offered(self, line: SideLine, offer: DownloadOffer) -> bool:
        """Take a file that the kernel has ready; False when nobody fetches it."""
        ...

    def heard(self, line: SideLine, message: RawMessage) -> bool:
        """Take a message of a comm that was opened by :meth:`SideLine.send`; False when it is somebody else's."""
        ...
