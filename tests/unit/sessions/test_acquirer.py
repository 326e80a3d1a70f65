"""Whoever waits for a machine is told of the end of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.errors import AuthError, ColabBridgeError, QuotaError, TransientError, UserError
from colab_bridge.model.account import AccountRuntime, Balance, Offers, Propagation
from colab_bridge.model.jobs import WaitEnd
from colab_bridge.model.records import Session
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.acquirer import Acquirer, require_meter
from colab_bridge.sessions.starts import caller_is
from scripted_upstream import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Machines:
    """A provider that gives a machine, refuses one, or never answers."""

    name = "machines"

    def __init__(self, _folder: Path) -> None:
        self.refusal: Exception | None = None
        self.asked = anyio.Event()
        self.answers = True

    async def acquire(self, _request: RuntimeRequest) -> RuntimeHandle:
        self.asked.set()
        if not self.answers:
            await anyio.sleep_forever()
        if self.refusal is not None:
            raise self.refusal
        return RuntimeHandle(provider=self.name, id="m-1", label="a machine")

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        raise NotImplementedError

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        raise NotImplementedError

    async def release(self, handle: RuntimeHandle) -> None:
        raise NotImplementedError


class Scene:
    """An acquirer, the machines that it asks for, and the ends of waits that it tells."""

    def __init__(self, folder: Path) -> None:
        providers = ProviderRegistry(folder, {"machines": Machines})
        found = providers.get("machines")
        assert isinstance(found, Machines)
        self.machines = found
        self.acquirer = Acquirer(providers, ManualClock(1000.0))
        self.told: list[WaitEnd] = []
        self.acquirer.on_waited(self.told.append)

    async def acquire(self, **options: Any) -> RuntimeHandle:
        return await self.acquirer.acquire(Session(name="s", project="/p", provider="machines", options=options), {})


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_machine_that_was_waited_for_is_told(scene: Scene) -> None:
    await scene.acquire(wait_s=60.0)
    assert [(end.session, end.label, end.problem) for end in scene.told] == [("s", "a machine", "")]


async def test_a_wait_that_gave_up_is_told_with_its_reason(scene: Scene) -> None:
    scene.machines.refusal = QuotaError("none is free", hint="try later")
    with pytest.raises(QuotaError):
        await scene.acquire(wait_s=60.0)
    assert [(end.label, end.problem) for end in scene.told] == [("", "none is free")]


async def test_who_does_not_wait_is_told_nothing(scene: Scene) -> None:
    await scene.acquire()
    assert scene.told == []


async def test_a_caller_who_hangs_up_is_told_nothing(scene: Scene) -> None:
    scene.machines.answers = False
    gone = anyio.Event()

    async def hang_up() -> None:
        await scene.machines.asked.wait()
        gone.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang_up)
        with caller_is(gone), anyio.fail_after(5), pytest.raises(TransientError):
            await scene.acquire(wait_s=60.0)
    assert scene.told == []


class Paid(Machines):
    """The same with an account, whose balance is as the test says."""

    def __init__(self, balance: Balance | ColabBridgeError) -> None:
        super().__init__(Path())
        self.now = balance

    async def balance(self, account: str = "") -> Balance:
        if isinstance(self.now, ColabBridgeError):
            raise self.now
        return self.now

    def require_same_services(self, env: object) -> None:
        raise NotImplementedError

    async def account(self, account: str = "") -> str:
        raise NotImplementedError

    async def runtimes(self, account: str = "") -> list[AccountRuntime]:
        raise NotImplementedError

    async def adopt(self, runtime_id: str, account: str = "") -> RuntimeHandle:
        raise NotImplementedError

    async def release_id(self, runtime_id: str, account: str = "") -> None:
        raise NotImplementedError

    async def reconcile(self, in_use: frozenset[str]) -> list[AccountRuntime]:
        raise NotImplementedError

    async def offers(self, account: str = "") -> Offers:
        raise NotImplementedError

    async def forward(self, handle: RuntimeHandle, port: int) -> Endpoint:
        raise NotImplementedError

    async def propagate(self, handle: RuntimeHandle, kind: str, *, dry_run: bool) -> Propagation:
        raise NotImplementedError

    def browser_url(self, handle: RuntimeHandle, *, file_id: str = "") -> str:
        raise NotImplementedError


@pytest.mark.parametrize(
    "balance",
    [
        Balance(),
        Balance(units=10.0),
        Balance(rate_hourly=0.0),
        QuotaError("too many calls", hint="later"),
        TransientError("no answer", hint="later"),
    ],
    ids=["nothing", "no rate", "no balance", "refused", "silent"],
)
async def test_a_budget_that_cannot_be_kept_is_refused_with_the_flag_that_goes_on(
    balance: Balance | ColabBridgeError,
) -> None:
    with pytest.raises(UserError, match="a budget of 5 compute units cannot be kept") as caught:
        await require_meter(Paid(balance), "", 5.0)
    assert caught.value.hint.endswith("add --no-budget")
    await require_meter(Paid(balance), "", 0.0)


@pytest.mark.parametrize("balance", [Balance(units=0.0, rate_hourly=0.0), Balance(free_units=2.0, rate_hourly=1.0)])
async def test_a_budget_that_can_be_kept_is_taken(balance: Balance) -> None:
    await require_meter(Paid(balance), "", 5.0)


async def test_who_is_not_signed_in_hears_of_that_and_not_of_the_budget() -> None:
    with pytest.raises(AuthError):
        await require_meter(Paid(AuthError("nobody is signed in", hint="colab-bridge auth login")), "", 5.0)
