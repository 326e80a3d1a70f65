"""The way between clients and one machine, which can be slow, narrow or broken."""

from __future__ import annotations

__all__ = ["Link"]


class Link:
    """The link of one machine; all of its connections share the bandwidth.

    Attributes:
        latency_s: Time that a round trip takes in addition, half of it each way; a new connection pays one more.
        bytes_per_s: Bandwidth in each direction; None is unlimited.
    """

    latency_s: float
    bytes_per_s: float | None

    def cut(self) -> None:
        """Reset all connections that are open now; new ones work."""
        raise NotImplementedError

    def hang(self, *, forget: bool = False) -> None:
        """Carry nothing from now on, without ending anything.

        Args:
            forget: True when :meth:`restore` shall reset the connections that exist by then.
        """
        raise NotImplementedError

    def refuse(self) -> None:
        """Reset all connections, and each new one at once."""
        raise NotImplementedError

    def restore(self) -> None:
        """Carry everything again: no latency, no limit, nothing refused or held back."""
        raise NotImplementedError

    def truncate_after(self, size_bytes: int) -> None:
        """Reset the connection that carries the byte after the next ``size_bytes`` towards clients."""
        raise NotImplementedError
