"""Where code on a runtime gets the user's own secrets from, such as the token of a model hub."""

from __future__ import annotations

from typing import Protocol

from colab_bridge.model.credentials import SecretAnswer

__all__ = ["SecretStore"]


class SecretStore(Protocol):
    """Gives secrets that the user has set, to projects that the user has approved."""

    async def get(self, project: str, name: str) -> SecretAnswer:
        """Look a secret up.

        Args:
            project: Absolute path of the root of the project whose code asks.
            name: As the code gave it: hostile, of any length.

        Raises:
            AuthError: it is kept where this process cannot read it now; the hint is what helps.
            TransientError: the system's keychain does not answer.
        """
        ...
