"""The one state behind all dialects: accounts, runtimes, operations."""

from __future__ import annotations

import secrets
import string
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import anyio

from colab_bridge.testing.colab.accounts import Account, refusal
from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.faults import RefusalKind
from colab_bridge.testing.colab.hardware import Ask, Variant
from colab_bridge.testing.colab.machines import RunningMachine
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.vm.contracts import MachineSpec

__all__ = ["BackendState", "Ending", "Runtime", "end_of_life"]

_LETTERS: Final = string.ascii_lowercase + string.digits
#: Zone codes as they appear in the names of real endpoints.
_ZONES: Final = {Variant.CPU: "usc1f1", Variant.GPU: "usw1b1", Variant.TPU: "use1b1"}

#: Why a runtime has ended: nobody pinged it, it was as old as may be, it was given back, it died.
Ending = Literal["idle", "life", "unassigned", "killed"]


@dataclass(slots=True, kw_only=True)
class Runtime:
    """A runtime of an account; in Google's words an assignment.

    Attributes:
        endpoint: Its name.
        id: Its name in the public API, without ``runtimes/``.
        account: Who has it.
        ask: What it is.
        nbh: The notebook it was made for; empty when it was made through the public API.
        machine: What runs behind it.
        created_at: Unix seconds.
        active_at: Unix seconds of the last activity that counts.
        metered_at: Unix seconds up to which it has been paid for.
        propagated: Credentials that were handed to it: authtype to e-mail address.
    """

    endpoint: str
    id: str
    account: Account
    ask: Ask
    nbh: str
    machine: RunningMachine
    created_at: float
    active_at: float
    metered_at: float
    propagated: dict[str, str] = field(default_factory=dict)


def end_of_life(runtime: Runtime, options: EmulatorOptions) -> tuple[float, Ending]:
    """Return when a runtime ends by itself if nothing happens to it any more, and why. Pure."""
    life_s = runtime.account.rules.life_s if options.life_s is None else options.life_s
    idle_at, old_at = runtime.active_at + options.idle_timeout_s, runtime.created_at + life_s
    return (idle_at, "idle") if idle_at <= old_at else (old_at, "life")


class BackendState:
    """Accounts and runtimes.

    Every question is answered for the present moment of the clock: what has ended by itself by then is ended first.

    Args:
        options: Settings of the emulator.
        clock: Its time.
        folder: Where machines have their disks.
        start_machine: Starts one.
        on_change: Called when the set of runtimes or their deadlines change.

    Attributes:
        options: Settings of the emulator.
        accounts: By e-mail address.
        runtimes: Those that are assigned, by endpoint.
        ended: Those that are no more: endpoint to the reason.
        capacity: How many machines with a card there are in all; cards that are missing here are never scarce.
    """

    def __init__(
        self,
        options: EmulatorOptions,
        clock: EmulatorClock,
        folder: Path,
        start_machine: Callable[[MachineSpec], Awaitable[RunningMachine]],
        on_change: Callable[[], None],
    ) -> None:
        self.options = options
        self.accounts: dict[str, Account] = {}
        self.runtimes: dict[str, Runtime] = {}
        self.ended: dict[str, Ending] = {}
        self.capacity: dict[str, int] = {}
        self._clock = clock
        self._folder = folder
        self._start_machine = start_machine
        self._on_change = on_change
        self._starting: dict[str, tuple[Account, Ask]] = {}
        self._locks: dict[tuple[str, str], anyio.Lock] = {}
        self._machines: list[RunningMachine] = []

    def account(self, email: str) -> Account:
        """Return an account; one that nobody knew so far is made, with a paid subscription."""
        if email not in self.accounts:
            self.accounts[email] = Account(email=email, free_milli_units=self.options.free_milli_units)
        return self.accounts[email]

    def drive_folder(self, account: Account) -> Path:
        """Return the folder that is an account's Drive, on this machine and mounted on its runtimes."""
        folder = self._folder / f"drive-{account.id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # -- questions

    def of(self, account: Account) -> list[Runtime]:
        """Return an account's runtimes, oldest first."""
        return [runtime for runtime in self.runtimes.values() if runtime.account is account]

    def find(self, account: Account, endpoint: str) -> Runtime | None:
        """Return a runtime by its endpoint; None when the account has no such runtime."""
        found = self.runtimes.get(endpoint)
        return found if found is not None and found.account is account else None

    def find_notebook(self, account: Account, nbh: str) -> Runtime | None:
        """Return the runtime of a notebook."""
        return next((runtime for runtime in self.of(account) if runtime.nbh == nbh), None)

    def find_id(self, account: Account, runtime_id: str) -> Runtime | None:
        """Return a runtime by its name in the public API."""
        return next((runtime for runtime in self.of(account) if runtime.id == runtime_id), None)

    def units_hourly(self, account: Account) -> float:
        """Return the compute units an hour that an account uses now."""
        return sum(runtime.ask.units_hourly for runtime in self.of(account))

    def next_end(self) -> float | None:
        """Return the moment at which the next runtime ends by itself; None when there is none."""
        return min((end_of_life(runtime, self.options)[0] for runtime in self.runtimes.values()), default=None)

    # -- changes

    async def settle(self) -> None:
        """Bring everything to the present moment: charge what ran, end what is due."""
        now = self._clock.time()
        for runtime in list(self.runtimes.values()):
            at, why = end_of_life(runtime, self.options)
            self._charge(runtime, min(now, at))
            if now >= at:
                await self.end(runtime, why)

    async def allocate(
        self, account: Account, ask: Ask, *, nbh: str = "", runtime_id: str = "", forced: RefusalKind | None = None
    ) -> Runtime | RefusalKind:
        """Give an account a runtime.

        Calls with the same notebook are one: they all get the runtime that the first of them made.

        Args:
            account: Who asks.
            ask: What it asks for.
            nbh: Notebook that it is for; empty for none.
            runtime_id: Name in the public API; a random one when empty.
            forced: Refuse for this reason, whatever the state is.

        Returns:
            The runtime, or why there is none.
        """
        lock = self._locks.setdefault((account.email, nbh or runtime_id or secrets.token_hex(8)), anyio.Lock())
        async with lock:
            await self.settle()
            found = self.find_notebook(account, nbh) if nbh else None
            if found is not None:
                return found
            why = forced or refusal(ask, account, active=self._active(account), left=self._left(ask.accelerator))
            if why is not None:
                return why
            return await self._start(account, ask, nbh, runtime_id or f"r-{secrets.token_hex(6)}")

    async def _start(self, account: Account, ask: Ask, nbh: str, runtime_id: str) -> Runtime:
        endpoint = _endpoint(ask)
        self._starting[endpoint] = (account, ask)
        try:
            await anyio.sleep(self.options.allocation_s)
            machine = await self._start_machine(self._spec(endpoint, ask, account))
        finally:
            del self._starting[endpoint]
        self._machines.append(machine)
        now = self._clock.time()
        runtime = Runtime(
            endpoint=endpoint,
            id=runtime_id,
            account=account,
            ask=ask,
            nbh=nbh,
            machine=machine,
            created_at=now,
            active_at=now,
            metered_at=now,
        )
        self.runtimes[endpoint] = runtime
        self._on_change()
        return runtime

    def _spec(self, endpoint: str, ask: Ask, account: Account) -> MachineSpec:
        folder = self._folder / endpoint
        folder.mkdir(parents=True)
        return MachineSpec(
            endpoint=endpoint,
            accelerator="" if ask.variant is Variant.CPU else ask.accelerator,
            kind=ask.variant.kind,
            high_memory=ask.high_memory,
            version=ask.version or self.options.versions[0],
            folder=folder,
            python=self.options.python,
            drive_folder=self.drive_folder(account),
            ssh=self.options.ssh,
        )

    def touch(self, runtime: Runtime) -> None:
        """Note activity that keeps a runtime."""
        runtime.active_at = self._clock.time()
        self._on_change()

    async def end(self, runtime: Runtime, why: Ending) -> None:
        """Take a runtime from its account and end its machine; the runtime proxy then refuses its tokens."""
        if self.drop(runtime, why) and why != "killed":
            await runtime.machine.release()

    def drop(self, runtime: Runtime, why: Ending) -> bool:
        """Take a runtime from its account; a machine that is killed dies at once, any other still runs.

        Returns:
            False when it was gone already.
        """
        if self.runtimes.pop(runtime.endpoint, None) is None:
            return False
        self._charge(runtime, self._clock.time())
        self.ended[runtime.endpoint] = why
        self._on_change()
        if why == "killed":
            runtime.machine.kill()
        return True

    async def close(self) -> None:
        """End all machines that were ever started, with their proxies."""
        self.runtimes.clear()
        for machine in self._machines:
            await machine.stop()

    # -- parts

    def _active(self, account: Account) -> int:
        return len(self.of(account)) + sum(owner is account for owner, _ in self._starting.values())

    def _left(self, accelerator: str) -> int | None:
        if accelerator not in self.capacity:
            return None
        taken = [r.ask.accelerator for r in self.runtimes.values()] + [
            a.accelerator for _, a in self._starting.values()
        ]
        return self.capacity[accelerator] - taken.count(accelerator)

    def _charge(self, runtime: Runtime, until: float) -> None:
        """Take off what a runtime has used up to a moment, which may lie before the last charge."""
        seconds = until - runtime.metered_at
        if seconds > 0:
            runtime.account.spend(seconds / 3600 * runtime.ask.units_hourly)
            runtime.metered_at = until


def _endpoint(ask: Ask) -> str:
    """Make a name of the kind ``gpu-t4-s-kkb-usw1b1-36jsit0sm8axr``."""
    start = "m" if ask.variant is Variant.CPU else f"{ask.variant.kind}-{ask.accelerator.lower()}"
    tail = "".join(secrets.choice(_LETTERS) for _ in range(13))
    return f"{start}-s-kkb-{_ZONES[ask.variant]}-{tail}"
