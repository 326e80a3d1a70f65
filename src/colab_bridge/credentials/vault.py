"""A place for secrets: the system's keychain, or an encrypted file."""

from __future__ import annotations

from typing import Literal, Protocol

from colab_bridge.errors import AuthError

__all__ = ["Vault", "VaultKind", "unreadable"]

VaultKind = Literal["keychain", "file"]


class Vault(Protocol):
    """Keeps texts by name. Calls block: a keychain may ask the user something first."""

    @property
    def kind(self) -> VaultKind:
        """Which kind it is."""
        ...

    @property
    def place(self) -> str:
        """Where it keeps things, for a sentence; holds no secret."""
        ...

    def get(self, name: str) -> str | None:
        """Return what is kept under a name; None when there is nothing.

        Raises:
            AuthError: it cannot be read now.
        """
        ...

    def put(self, name: str, value: str) -> None:
        """Keep a text, in place of what was kept under that name.

        Raises:
            AuthError: it cannot be written now; what was kept is then unchanged.
        """
        ...

    def drop(self, name: str) -> None:
        """Forget what is kept under a name; nothing happens when there is nothing.

        Raises:
            AuthError: it cannot be written now.
        """
        ...


def unreadable(message: str, hint: str) -> AuthError:
    """Return the error for a vault that cannot be used now."""
    return AuthError(message, hint=hint, code="CB-AUTH-017")
