"""The emulator as a whole: its parts put together, started and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import anyio

from colab_bridge.testing.colab.access import Access
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.control import Control, local_only
from colab_bridge.testing.colab.data_plane import DataPlane
from colab_bridge.testing.colab.drive import Drive
from colab_bridge.testing.colab.faults import Fault, Switchboard
from colab_bridge.testing.colab.http import Route, Service
from colab_bridge.testing.colab.identity import Identity
from colab_bridge.testing.colab.internal_api import InternalApi
from colab_bridge.testing.colab.machines import RunningMachine, StartMachine
from colab_bridge.testing.colab.oauth import OAuth
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.public_api import PublicApi
from colab_bridge.testing.colab.record import Recorder, RequestRecord, Violation
from colab_bridge.testing.colab.serve import Application, Connections, serve
from colab_bridge.testing.colab.service_account import new_key_file
from colab_bridge.testing.colab.session_backend import SessionBackend
from colab_bridge.testing.colab.state import BackendState
from colab_bridge.testing.colab.tokens import ProxyTokens
from colab_bridge.testing.colab.vm.contracts import MachineSpec
from colab_bridge.testing.colab.vm.machine import Machine

__all__ = ["ColabEmulator", "emulator", "start_real"]

log = logging.getLogger(__name__)

#: Variable that points a client at each service.
_VARIABLES: Final = {
    "colab": "COLAB_BRIDGE_COLAB_URL",
    "gapi": "COLAB_BRIDGE_GAPI_URL",
    "public_api": "COLAB_BRIDGE_PUBLIC_API_URL",
    "drive": "COLAB_BRIDGE_DRIVE_URL",
    "oauth": "COLAB_BRIDGE_OAUTH_URL",
}


class ColabEmulator:
    """A running emulator; made by :func:`emulator`.

    Attributes:
        options: What it was made from.
        clock: Its time.
        faults: What is to go wrong.
        identity: Sign-ins; ``identity.consent`` is what the person on consent pages does.
        tokens: Runtime proxy tokens; ``tokens.ttl_s`` is the life of new ones.
        state: Accounts and runtimes.
        urls: Base URLs of the services by the environment variable that a client reads them from.
        control_url: Base URL of the control interface.
        access_token: An OAuth access token of the first account, good for everything, as long as the emulator lives.
    """

    def __init__(self, options: EmulatorOptions, folder: Path, start_machine: StartMachine) -> None:
        self.options = options
        self.clock = EmulatorClock()
        self.faults = Switchboard()
        self.identity = Identity(self.clock, options.access_token_ttl_s)
        self.tokens = ProxyTokens(self.clock, options.token_ttl_s)
        self.urls: dict[str, str] = {}
        self.control_url = ""
        self._recorder = Recorder(self.clock)
        self._tasks = _Tasks()
        self._changed = asyncio.Event()
        self._closing = anyio.Event()
        self._connections = Connections()
        hooks = DataPlane(self._recorder, self.faults, self.tokens, self.identity, self._tasks.spawn)
        self.state = BackendState(
            options,
            self.clock,
            folder,
            start_machine=lambda spec: start_machine(spec, hooks),
            on_change=self._changed.set,
        )
        self._access = Access(self.identity, self.state)
        self._drive = Drive(self.state, self._access, self.identity, self.state.drive_folder, self.clock)
        hooks.state = self.state
        self.state.accounts[options.email] = _first_account(options)
        self.access_token = self.identity.access_token(account=options.email).value

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far, oldest first."""
        return self._recorder.requests

    @property
    def violations(self) -> list[Violation]:
        """Everything that a client must not do and did, oldest first."""
        return self._recorder.violations

    def env(self) -> dict[str, str]:
        """Return the environment that makes Colab Bridge use this emulator, signed in as the first account."""
        return {**self.urls, "COLAB_BRIDGE_ACCESS_TOKEN": self.access_token}

    async def advance(self, seconds: float) -> None:
        """Move the clock, and let what is due by then happen before this returns."""
        self.clock.advance(seconds)
        await self.state.settle()

    async def kill(self, endpoint: str) -> None:
        """Let a machine die; a listing no longer has its runtime.

        Raises:
            KeyError: there is no such runtime.
        """
        await self.state.end(self.state.runtimes[endpoint], "killed")

    async def prune(self, endpoint: str) -> None:
        """Take a runtime away, as if it had been idle for too long.

        Raises:
            KeyError: there is no such runtime.
        """
        await self.state.end(self.state.runtimes[endpoint], "idle")

    def service_account(self, email: str = "robot@emulator.iam.gserviceaccount.com") -> dict[str, str]:
        """Make a service account and return its key file, which points at this emulator."""
        members, public = new_key_file(email, f"{self.urls[_VARIABLES['oauth']]}/token")
        self.identity.service_keys[email] = public
        self.state.account(email)
        return members

    async def apply(self, fault: Fault, path: str) -> None:
        """Carry out a fault that changes the state; a path that names a runtime means this one, any other all."""
        if fault.kind == "expire_tokens":
            self.tokens.expire_all()
        elif fault.kind in {"kill_vm", "prune"}:
            named = [runtime for runtime in self.state.runtimes.values() if runtime.endpoint in path]
            for runtime in named or list(self.state.runtimes.values()):
                await self.state.end(runtime, "killed" if fault.kind == "kill_vm" else "idle")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve until the block is left, then end every machine."""
        loop = asyncio.get_running_loop()
        unsubscribe = self.clock.subscribe(lambda: loop.call_soon_threadsafe(self._changed.set))
        applications, oauth = self._applications()
        try:
            async with serve(applications, self._connections) as urls:
                self.urls = {variable: urls[name] for name, variable in _VARIABLES.items()}
                self.control_url = urls["control"]
                oauth.base_url = urls["oauth"]
                oauth.session_backend = urls["colab"]
                self._drive.base_url = urls["drive"]
                self._tasks.spawn(self._watch)
                try:
                    yield
                finally:
                    self._closing.set()
        finally:
            unsubscribe()
            await self._tasks.close()
            await self.state.close()

    def _applications(self) -> tuple[dict[str, Application], OAuth]:
        access = self._access
        oauth = OAuth(self.identity, self.state)
        backend = SessionBackend(self.state, access, self.tokens, self.options, oauth.runtime_consent_url)
        internal = InternalApi(self.state, access, self.tokens, self.options, self.clock)
        public = PublicApi(self.state, access, self.tokens, self.options, self._tasks.spawn)
        return {
            "colab": self._service("colab", backend.routes()),
            "gapi": self._service("gapi", internal.routes()),
            "public_api": self._service("public_api", public.routes()),
            "drive": self._service("drive", self._drive.routes()),
            "oauth": self._service("oauth", oauth.routes()),
            "control": local_only(self._control()),
        }, oauth

    def _service(self, name: str, routes: list[Route]) -> Service:
        return Service(
            name,
            routes,
            recorder=self._recorder,
            board=self.faults,
            connections=self._connections,
            state=self,
            settle=self.state.settle,
            closing=self._closing,
        )

    def _control(self) -> Service:
        """Return the control interface, whose own requests are no part of the record and never hit by faults."""
        return Service(
            "control",
            Control(self).routes(),
            recorder=Recorder(self.clock),
            board=Switchboard(),
            connections=self._connections,
            state=self,
            settle=self.state.settle,
            closing=self._closing,
        )

    async def _watch(self) -> None:
        """End what is due, at its moment; each change of the runtimes and of the clock sets a new one."""
        while True:
            self._changed.clear()
            await self.state.settle()
            at = self.state.next_end()
            with anyio.move_on_after(None if at is None else at - self.clock.time()):
                await self._changed.wait()


class _Tasks:
    """Coroutines that run beside the requests."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a coroutine."""
        task = asyncio.create_task(_logged(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End those that still run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:  # the root of a task
        log.exception("a task of the emulator failed")


def _first_account(options: EmulatorOptions) -> Account:
    paid = options.paid_units if options.paid_units is not None else 0.0 if options.tier == "free" else 100.0
    return Account(email=options.email, tier=options.tier, paid_units=paid, free_milli_units=options.free_milli_units)


async def start_real(spec: MachineSpec, hooks: Any, options: EmulatorOptions) -> RunningMachine:
    """Start a machine with a real Jupyter server, behind the link that the options describe.

    Args:
        spec: The machine.
        hooks: What it asks the control side.
        options: The emulator's.
    """
    machine = await Machine.start(
        spec,
        check_token=hooks.check_token,
        faults=hooks,
        credentials=hooks.credentials,
        unassign=hooks.unassign,
        expired_status=options.expired_status,
    )
    machine.link.latency_s = options.latency_s
    machine.link.bytes_per_s = options.bytes_per_s
    return machine


@contextlib.asynccontextmanager
async def emulator(
    options: EmulatorOptions | None = None, *, start_machine: StartMachine | None = None
) -> AsyncIterator[ColabEmulator]:
    """Run an emulator of Colab's back end on loopback until the block is left.

    Args:
        options: Its settings; defaults when None.
        start_machine: What starts machines; real ones, with a Jupyter server each, when None.

    Yields:
        The emulator, once it listens.
    """
    options = options or EmulatorOptions()
    chosen = options

    async def start(spec: MachineSpec, hooks: Any) -> RunningMachine:
        return await start_real(spec, hooks, chosen)

    with tempfile.TemporaryDirectory(prefix="cb-colab-", ignore_cleanup_errors=True) as folder:
        running = ColabEmulator(options, Path(folder), start_machine or start)
        async with running.running():
            yield running
