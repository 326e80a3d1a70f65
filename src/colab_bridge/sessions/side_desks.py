"""One desk for each session whose runtime belongs to an account."""

from __future__ import annotations

from collections.abc import Callable

import anyio.abc

from colab_bridge.errors import RuntimeLostError
from colab_bridge.model.records import Session
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.secrets import SecretStore
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.side_requests import SideAccount, SideRequests

__all__ = ["SideDesks"]


class SideDesks:
    """The desks, each made when the first kernel of its session is opened.

    Args:
        session: Returns a session by name.
        providers: Where runtimes come from.
        secrets: Where secrets come from.
        tasks: Owner of the work.
    """

    def __init__(
        self,
        session: Callable[[str], Session],
        providers: ProviderRegistry,
        secrets: SecretStore,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._session = session
        self._providers = providers
        self._secrets = secrets
        self._tasks = tasks
        self._desks: dict[str, SideRequests] = {}

    def desk(self, name: str) -> SideRequests | None:
        """Return the desk of a session; None where no account stands behind its runtime."""
        if not isinstance(self._providers.get(self._session(name).provider), AccountProvider):
            return None
        if name not in self._desks:
            self._desks[name] = SideRequests(lambda: self._account(name), self._secrets, self._tasks)
        return self._desks[name]

    def _account(self, name: str) -> SideAccount:
        session = self._session(name)
        provider = self._providers.get(session.provider)
        if session.handle is None or not isinstance(provider, AccountProvider):
            raise RuntimeLostError(f"session {name} has no runtime", hint=f"colab-bridge stop {name}")
        return SideAccount(project=session.project, provider=provider, handle=session.handle)
