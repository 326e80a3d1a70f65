"""What the provider needs of a control plane; :mod:`.control_v1` and :mod:`.control_v1beta` implement it."""

from __future__ import annotations

from typing import Protocol

from colab_bridge.model.account import Balance, Offers
from colab_bridge.providers.colab.values import Assignment, Ticket, Wish

__all__ = ["ControlPlane"]


class ControlPlane(Protocol):
    """One way of asking Colab for runtimes, for one account.

    Every call may raise :class:`~colab_bridge.providers.colab.http.CallFailedError`,
    :class:`~colab_bridge.providers.colab.foreign.ProtocolChangedError` and the errors of a token source.
    """

    async def look(self, wish: Wish) -> Ticket | Assignment:
        """See whether a request has its runtime already; gives none."""
        ...

    async def ask(self, wish: Wish, ticket: Ticket) -> Assignment:
        """Ask for the runtime of a request. An answer without a way in is completed by a listing."""
        ...

    async def listing(self) -> list[Assignment]:
        """Return every runtime of the account, each with a new way in."""
        ...

    async def release(self, runtime: Assignment) -> None:
        """Give a runtime back; one that is gone already is no error. It may still be listed for a while."""
        ...

    async def offers(self) -> Offers:
        """Return what the account may have."""
        ...

    async def balance(self) -> Balance:
        """Return what is left and how fast it goes."""
        ...
