"""Providers behind which stands an account that owns runtimes and pays for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from colab_bridge.model.account import AccountRuntime, Balance, Offers, Propagation
from colab_bridge.model.runtime import Endpoint, RuntimeHandle
from colab_bridge.ports.provider import RuntimeProvider

__all__ = ["AccountProvider", "CredentialKind"]

CredentialKind = Literal["drive", "user"]


@runtime_checkable
class AccountProvider(RuntimeProvider, Protocol):
    """A provider that can tell what an account has and may have. Errors as in :class:`RuntimeProvider`."""

    def require_same_services(self, env: Mapping[str, str]) -> None:
        """Refuse a caller that means other services than this process was started for.

        Args:
            env: The caller's variables.

        Raises:
            UserError: they differ.
        """
        ...

    async def account(self, account: str = "") -> str:
        """Return the e-mail address of the account that would be used; empty when unknown.

        Args:
            account: As the user calls it; the account in use when empty. So it is in the methods below.
        """
        ...

    async def runtimes(self, account: str = "") -> list[AccountRuntime]:
        """Return every runtime of an account, also those opened in a browser."""
        ...

    async def adopt(self, runtime_id: str, account: str = "") -> RuntimeHandle:
        """Take over a runtime of an account.

        Raises:
            RuntimeLostError: the account has no such runtime.
        """
        ...

    async def release_id(self, runtime_id: str, account: str = "") -> None:
        """Release a runtime of an account by its id; one that is gone already is no error."""
        ...

    async def reconcile(self, in_use: frozenset[str]) -> list[AccountRuntime]:
        """Release what we asked for and nobody holds.

        Args:
            in_use: Ids of runtimes that sessions hold.

        Returns:
            What was released. Runtimes that others made are never touched.
        """
        ...

    async def offers(self, account: str = "") -> Offers:
        """Return what an account may have."""
        ...

    async def balance(self, account: str = "") -> Balance:
        """Return what is left and how fast it goes."""
        ...

    async def forward(self, handle: RuntimeHandle, port: int) -> Endpoint:
        """Return the way in to another HTTP port of a runtime."""
        ...

    async def propagate(self, handle: RuntimeHandle, kind: CredentialKind, *, dry_run: bool) -> Propagation:
        """Hand the user's own credentials to a runtime, as Drive and user sign-in there need them."""
        ...

    def browser_url(self, handle: RuntimeHandle, *, file_id: str = "") -> str:
        """Return the address that opens a runtime in a browser; holds no secret.

        Args:
            handle: The runtime.
            file_id: Notebook in Drive to open on it; an empty notebook when omitted.
        """
        ...
