"""The emulator for programs and tests that are not asynchronous: it runs in a thread of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from anyio.from_thread import BlockingPortal, start_blocking_portal

from colab_bridge.testing.colab.assembly import ColabEmulator, emulator
from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.faults import Switchboard
from colab_bridge.testing.colab.identity import Identity
from colab_bridge.testing.colab.machines import StartMachine
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.record import RequestRecord, Violation
from colab_bridge.testing.colab.state import BackendState
from colab_bridge.testing.colab.tokens import ProxyTokens

__all__ = ["ThreadedEmulator", "threaded_emulator"]


class ThreadedEmulator:
    """:class:`ColabEmulator` with the same names, whose methods wait instead of being awaited.

    Attributes:
        urls: See :class:`ColabEmulator`, also for those that follow.
        control_url: Base URL of the control interface.
        access_token: An OAuth access token of the first account.
        clock: Its time.
        faults: What is to go wrong.
        identity: Sign-ins.
        tokens: Runtime proxy tokens.
        state: Accounts and runtimes; to be read, and its accounts and ``capacity`` to be changed.
    """

    def __init__(self, running: ColabEmulator, portal: BlockingPortal) -> None:
        self._running = running
        self._portal = portal
        self.urls: dict[str, str] = running.urls
        self.control_url: str = running.control_url
        self.access_token: str = running.access_token
        self.clock: EmulatorClock = running.clock
        self.faults: Switchboard = running.faults
        self.identity: Identity = running.identity
        self.tokens: ProxyTokens = running.tokens
        self.state: BackendState = running.state

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far, oldest first."""
        return self._running.requests

    @property
    def violations(self) -> list[Violation]:
        """Everything that a client must not do and did, oldest first."""
        return self._running.violations

    def env(self) -> dict[str, str]:
        """Return the environment that makes Colab Bridge use this emulator."""
        return self._running.env()

    def advance(self, seconds: float) -> None:
        """Move the clock, and let what is due by then happen before this returns."""
        self._portal.call(self._running.advance, seconds)

    def kill(self, endpoint: str) -> None:
        """Let a machine die. Raises KeyError when there is no such runtime."""
        self._portal.call(self._running.kill, endpoint)

    def prune(self, endpoint: str) -> None:
        """Take a runtime away, as if it had been idle. Raises KeyError when there is no such runtime."""
        self._portal.call(self._running.prune, endpoint)

    def service_account(self, email: str = "robot@emulator.iam.gserviceaccount.com") -> dict[str, str]:
        """Make a service account and return its key file."""
        return self._portal.call(self._running.service_account, email)


@contextlib.contextmanager
def threaded_emulator(
    options: EmulatorOptions | None = None, *, start_machine: StartMachine | None = None
) -> Iterator[ThreadedEmulator]:
    """Run an emulator in a thread of its own until the block is left.

    Args:
        options: Its settings; defaults when None.
        start_machine: What starts machines; real ones when None.

    Yields:
        The emulator, once it listens.
    """
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(emulator(options, start_machine=start_machine)) as running,
    ):
        yield ThreadedEmulator(running, portal)
